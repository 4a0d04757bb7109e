"""Losses of counts beside dev: those of the count models themselves on the same split."""

import math
from typing import Any

import numpy as np
import pytest

import jaxlm
from jaxlm.data.corpus import from_lines, from_stream
from jaxlm.runs.directory import RunDir
from jaxlm.training import baselines as module
from jaxlm.training.baselines import baselines
from tests.conftest import NAMES

TEXT = "\n".join(NAMES)


def dev_loss(make_run: Any, model: jaxlm.CountsConfig, **data: Any) -> float:
    """The dev loss that a run of a count model has in eval.json."""
    run = make_run(model, name=f"order{model.order}", sample=jaxlm.SampleConfig(n=0), **data)
    return float(RunDir(run).read_eval()["dev"]["nats_per_token"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lines", "stream"])
def test_they_are_the_losses_of_the_count_models(make_run, kind):
    data = jaxlm.DataConfig(kind=kind)
    corpus = {"lines": from_lines, "stream": from_stream}[kind](TEXT, data)
    found = baselines(corpus)
    assert found is not None
    assert found["uniform"] == math.log(corpus.tokenizer.vocab_size)
    assert (found["kneser_ney_order"], found["kneser_ney_tokens"]) == (6, corpus.size("train"))
    bigram, counts = jaxlm.CountsConfig(order=2), jaxlm.CountsConfig(order=6, smoothing="kneser-ney")
    assert found["bigram"] == pytest.approx(dev_loss(make_run, bigram, data={"kind": kind}), abs=1e-5)
    assert found["kneser_ney"] == pytest.approx(dev_loss(make_run, counts, data={"kind": kind}), abs=1e-5)


def test_a_large_vocabulary_is_counted_in_shorter_n_grams(monkeypatch):
    monkeypatch.setattr(module, "SMALL_VOCABULARY", 5)
    found = baselines(from_lines(TEXT, jaxlm.DataConfig()))
    assert found is not None and found["kneser_ney_order"] == 3


def test_what_is_counted_and_scored_is_bounded(monkeypatch):
    """Of equal lines a part gives the same losses as all of them, and says how much was counted."""
    corpus = from_lines("ab\n" * 100, jaxlm.DataConfig())
    whole = baselines(corpus)
    monkeypatch.setattr(module, "TRAIN_TOKENS", 90)
    monkeypatch.setattr(module, "DEV_TOKENS", 4)
    part = baselines(corpus)
    assert whole is not None and part is not None
    assert (whole["kneser_ney_tokens"], part["kneser_ney_tokens"]) == (240, 90)
    assert part["bigram"] == pytest.approx(whole["bigram"], abs=0.02)


def test_without_a_dev_split_there_are_none():
    assert baselines(from_lines(TEXT, jaxlm.DataConfig(split=(1.0, 0.0, 0.0)))) is None


def test_a_token_that_train_does_not_have_costs_what_is_left_for_it():
    """Dev is b and its end, train a and its end."""
    corpus = from_lines("a\na\na\nb\n", jaxlm.DataConfig(split=(0.75, 0.25, 0.0), split_seed=_seed_with_b_last()))
    found = baselines(corpus)
    assert found is not None and corpus.tokenizer.decode(corpus.tokens("dev")) == "b"
    # after EOS: a three times; after b: nothing
    np.testing.assert_allclose(found["bigram"], (math.log(3 + 3) - math.log(1) + math.log(3) - math.log(1)) / 2)


def _seed_with_b_last() -> int:
    """A seed of the split whose shuffle leaves b in dev."""
    for seed in range(100):
        corpus = from_lines("a\na\na\nb\n", jaxlm.DataConfig(split=(0.75, 0.25, 0.0), split_seed=seed))
        if corpus.lines["dev"] == ["b"]:
            return seed
    raise AssertionError
