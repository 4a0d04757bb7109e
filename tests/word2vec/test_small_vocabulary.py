"""word2vec on few words: updates of a bounded number of words, workers one after another, and what is learned."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jaxlm
from jaxlm.cli.train_command import load_config
from jaxlm.errors import NonFiniteLoss
from jaxlm.runs.directory import RunDir
from jaxlm.training import train
from jaxlm.word2vec.small_vocabulary import bounded, effective_words, one_by_one, unigram_loss
from tests.conftest import REPOSITORY

SKIP_GRAM = jaxlm.Word2vecConfig()
CBOW = jaxlm.Word2vecConfig(predict="cbow", shared_negatives=16, blocks=8)


def zipf(words: int, total: int = 100_000) -> list[int]:
    """Counts of words in proportion to 1 / rank."""
    share_V = 1 / np.arange(1, words + 1)
    return [max(1, round(count)) for count in total * share_V / share_V.sum()]


def test_equally_frequent_words_all_count():
    assert effective_words([7] * 20, 1e-3) == pytest.approx(20)
    assert effective_words([10**6, 1, 1], 0.0) == pytest.approx(1, abs=1e-4)
    assert 1 < effective_words(zipf(50), 0.0) < effective_words(zipf(50), 1e-3) < 50


@pytest.mark.parametrize("config", [SKIP_GRAM, CBOW])
@pytest.mark.parametrize("words", [1, 2, 5, 20, 50, 200])
def test_an_update_has_no_more_words_than_the_vocabulary(config, words):
    made = bounded(config, zipf(words))
    most = max(1, effective_words(zipf(words), config.subsample))
    assert most / 2 < made.update_words <= min(most, config.update_words) or made == config
    assert dataclasses.replace(made, span=config.span, blocks=config.blocks) == config


@pytest.mark.parametrize("config", [SKIP_GRAM, CBOW])
def test_an_ordinary_text_is_learned_in_the_updates_of_the_settings(config):
    counts = zipf(40_000, 3_600_000)
    assert bounded(config, counts) is config
    assert not one_by_one(config, len(counts), 65_536)


def test_workers_take_turns_where_each_meets_every_word_often():
    assert one_by_one(SKIP_GRAM, 200, 65_536)
    assert not one_by_one(SKIP_GRAM, 3_000, 65_536)
    assert not one_by_one(SKIP_GRAM, 200, 1_000)


def test_the_loss_by_chance_is_the_least_of_constant_logits():
    """By descent over the logit of each word, whose loss is -log s(l) where it comes, -log s(-l) where it is drawn."""
    counts = [50, 30, 15, 5]
    config = dataclasses.replace(SKIP_GRAM, subsample=0.0, negatives=3, exponent=0.5)
    p_V = np.array(counts) / 100
    q_V = np.sqrt(p_V) / np.sqrt(p_V).sum()
    logit_V = np.zeros(4)
    for _ in range(20_000):
        s_V = 1 / (1 + np.exp(-logit_V))
        logit_V += 0.5 * (p_V * (1 - s_V) - 3 * q_V * s_V)
    s_V = 1 / (1 + np.exp(-logit_V))
    least = -(p_V * np.log(s_V) + 3 * q_V * np.log(1 - s_V)).sum()
    assert unigram_loss(config, counts) == pytest.approx(least, abs=1e-6)


def test_a_training_that_explodes_in_its_first_step_has_failed(tmp_path):
    """Its loss is compared with that of vectors of 0."""
    (tmp_path / "text.txt").write_text("a b c d\n" * 200)
    made = jaxlm.RunConfig(
        model=jaxlm.Word2vecConfig(d_embed=4),
        data=jaxlm.DataConfig(path=str(tmp_path / "text.txt"), tokens=jaxlm.WordsConfig(), split=(0.9, 0.1, 0.0)),
        optim=jaxlm.OptimConfig(lr=1e4),
        steps=2,
        batch_size=800,
        run_dir=str(tmp_path / "run"),
    )
    with pytest.raises(NonFiniteLoss, match=r"^the loss, 4\.159 at the start, is .* try a smaller --optim\.lr, in"):
        train(made, log=lambda line: None)


def test_the_loss_by_chance_of_a_tree_is_the_entropy():
    config = dataclasses.replace(
        SKIP_GRAM, output="hierarchical-softmax", negatives=5, shared_negatives=32, exponent=0.75, subsample=0.0
    )
    assert unigram_loss(config, [2, 1, 1]) == pytest.approx(1.5 * math.log(2))


@pytest.mark.parametrize("output", ["negative-sampling", "hierarchical-softmax"])
@pytest.mark.parametrize("recipe", ["word2vec_skipgram", "word2vec_cbow"])
def test_the_recipes_learn_few_words_as_well_as_chance_lets_them(tmp_path: Path, recipe: str, output: Any) -> None:
    """Words drawn by Zipf's law have no neighbours to learn: the loss that is left is that of their frequencies."""
    share_V = 1 / np.arange(1, 7)
    words = np.random.default_rng(0).choice(list("abcdef"), 60_000, p=share_V / share_V.sum())
    (tmp_path / "text.txt").write_text("\n".join(map(" ".join, words.reshape(-1, 20))) + "\n")
    made = load_config(REPOSITORY / "configs" / f"{recipe}.py")
    changed: Any = {"output": output, "negatives": 5, "shared_negatives": 32, "d_embed": 16}
    made = dataclasses.replace(
        made,
        model=dataclasses.replace(made.model, **changed),
        data=dataclasses.replace(made.data, path=str(tmp_path / "text.txt")),
        plots=False,
        run_dir=str(tmp_path / "run"),
    )
    train(made, log=lambda line: None)
    found = RunDir(tmp_path / "run").read_eval()
    assert found["train"]["loss"] == pytest.approx(found["baselines"]["unigram"], rel=0.01)
