"""The screen about a finished run: what it says of given results, and that it fits."""

import json
from typing import Any

import pytest

import jaxlm
from jaxlm.runs import metrics
from jaxlm.runs.directory import RunDir
from jaxlm.training import train
from jaxlm.training.summary import COLUMNS, SHOWN, advice, beside, loss_line, remarks, screen, shown_samples

COUNTS = {"uniform": 3.3, "bigram": 2.5, "kneser_ney": 2.0, "kneser_ney_order": 6, "kneser_ney_tokens": 900}


def entry(nats: float) -> dict[str, Any]:
    return {"nats_per_token": nats, "bits_per_byte": 3.0, "perplexity": 9.0, "tokens": 100, "bytes": 100}


def result(dev: float | None, step: int = 100, steps: int = 100, **more: Any) -> dict[str, Any]:
    """An eval.json."""
    splits = {"train": entry(2.0), "dev": None if dev is None else entry(dev), "test": entry(2.4)}
    rest = {"params": 12_345, "step": step, "steps": steps, "train_time_s": 9.0}
    return {**splits, "baselines": COUNTS, **rest, **more}


def curve(dev: list[float], train: list[float] | None = None) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl every 25 steps."""
    both = {"dev": dev, "train_sample": train or []}
    return [
        {"step": 25 * n, "split": split, "loss": loss}
        for split, losses in both.items()
        for n, loss in enumerate(losses)
    ]


def config(model: jaxlm.ModelConfig | None = None, **settings: Any) -> jaxlm.RunConfig:
    return jaxlm.RunConfig(model=model or jaxlm.MlpConfig(), steps=100, **settings)


OVERFITTED = curve([3.3, 2.2, 2.4, 2.8, 3.0], [3.3, 2.2, 1.9, 1.5, 1.2])
UNSTABLE = curve([3.3, 2.2, 2.4, 2.8, 3.0], [3.3, 2.2, 2.4, 2.8, 3.0])
FALLING = curve([3.3, 2.6, 2.4, 2.2, 2.1], [3.3, 2.6, 2.4, 2.2, 2.1])
FLAT = curve([3.3, 1.91, 1.902, 1.901, 1.9])


def test_a_best_loss_long_before_the_end_is_told_with_its_step():
    assert remarks(config(), result(2.2, step=25), OVERFITTED) == [
        "dev was best at step 25 of 100, the rest overfitted: 2.2000 to 3.0000"
    ]
    (line,) = remarks(config(), result(2.2, step=25), UNSTABLE)
    assert "the rest was unstable" in line
    assert remarks(config(), result(2.1), FALLING) == []


def test_a_loss_that_rose_a_little_or_late_is_no_remark():
    late = curve([3.3, 2.6, 2.4, 2.2, 2.1, 2.0, 2.1])
    assert remarks(config(), result(2.0, step=125, steps=150), late) == []
    little = curve([3.3, 2.2, 2.201, 2.202, 2.203])
    assert remarks(config(), result(2.2, step=25), little) == []


@pytest.mark.parametrize(
    ("dev", "words"),
    [
        (3.99, "dev 3.9900 is worse than a guess (3.3000) on the same split"),
        (2.6, "dev 2.6000 is worse than the bigram (2.5000) on the same split"),
        (2.4, None),
    ],
)
def test_a_loss_above_counts_is_told(dev, words):
    assert remarks(config(), result(dev), FALLING) == ([words] if words else [])


@pytest.mark.parametrize(
    ("found", "lines", "words"),
    [
        (result(2.2, step=25), OVERFITTED, "more text, a smaller model, --eval.patience 3"),
        (result(2.6, step=25), OVERFITTED, "or python train.py configs/any_text.py --data.path FILE"),
        (result(2.2, step=25), UNSTABLE, "a smaller --optim.lr than 0.1"),
        (result(3.9, train=entry(3.8)), FLAT, "python -m jaxlm.lr_range"),
        (result(3.9), FLAT, "more text, a smaller model"),
        (result(2.1), FALLING, "more steps: --steps 200"),
        (result(2.1), FLAT, "configs/any_text.py --data.path FILE: counts are better"),
        (result(1.9), FLAT, "a larger model"),
        (result(None), [], "a dev split"),
        (
            result(2.0) | {"dev": {**entry(2.0), "nats_per_token": None, "impossible": 3}},
            [],
            "--model.smoothing kneser-ney",
        ),
    ],
)
def test_what_to_try_next_follows_from_the_losses(found, lines, words):
    told = advice(config(), found, lines)
    assert words in told and "\n" not in told


def test_advice_is_of_settings_that_the_model_has_and_of_the_users_file():
    gpt = config(jaxlm.GptConfig(), data=jaxlm.DataConfig(path="my.txt", example="sequence"))
    assert "--model.dropout 0.2" in advice(gpt, result(2.2, step=25), OVERFITTED)
    assert "dropout" not in advice(config(), result(2.2, step=25), OVERFITTED)
    patient = config(eval=jaxlm.EvalConfig(patience=2))
    assert advice(patient, result(1.9, step=25), OVERFITTED) == "more text, a smaller model"
    counts = config(jaxlm.CountsConfig(), data=jaxlm.DataConfig(path="my.txt"))
    told = advice(counts, result(2.5), [])
    assert told == "python train.py configs/names_kneser_ney.py --data.path my.txt (about 2.0000)"
    assert advice(counts, result(2.0), []) == "python train.py configs/any_text.py --data.path my.txt"


def test_of_a_mixture_its_network_share_is_told_and_more_time_wanted():
    mixed = config(jaxlm.MixtureConfig(), data=jaxlm.DataConfig(path="my.txt"))
    rows = screen(mixed, result(2.1, network_share=0.63), FALLING, data=[], losses=[], samples="")
    assert rows[0].endswith("; 63% network, the rest counts")
    longer = result(2.1, train_time_s=120.0)
    told = "more time: python train.py configs/any_text.py --data.path my.txt --minutes 6 --restart"
    assert advice(mixed, longer, FALLING) == told


def test_vectors_of_words_that_have_no_neighbours_to_learn_are_told():
    words = config(jaxlm.Word2vecConfig(), data=jaxlm.DataConfig(path="my.txt", tokens=jaxlm.WordsConfig()))
    losses = {split: {"loss": 2.7, "unit": "nats/pair", "pairs": 5, "tokens": 9} for split in ("train", "dev")}
    found = {**result(None), **losses, "baselines": {"unigram": 2.705}}
    assert "as if by chance" in advice(words, found, FLAT)
    assert advice(words, {**found, "baselines": {"unigram": 3.0}}, FLAT) == "more text"
    assert beside(found) == ["beside dev: words by chance 2.7050"]


def test_counts_stand_beside_dev_where_there_are_some():
    assert beside(result(2.0)) == ["beside dev: uniform 3.3000, bigram 2.5000, Kneser-Ney (6-grams) 2.0000"]
    assert beside(result(2.0, baselines=None)) == []
    assert beside({name: value for name, value in result(2.0).items() if name != "baselines"}) == []


def test_bits_per_character_are_told_where_a_character_is_not_a_byte():
    assert (
        loss_line(config(), "dev", entry(2.0))
        == "dev: 2.0000 nats/token, 3.0000 bits/byte, perplexity 9.000 (100 tokens)"
    )
    wide = {**entry(2.0), "bytes": 250}
    assert (
        loss_line(config(), "dev", wide)
        == "dev: 2.0000 nats/token, 2.8854 bits/character, 3.0000 bits/byte (100 tokens)"
    )
    impossible = {**entry(2.0), "nats_per_token": None, "bits_per_byte": None, "perplexity": None, "impossible": 3}
    assert "3 of 100 tokens have probability 0" in loss_line(config(), "dev", impossible)


def test_ten_samples_are_shown_under_their_headings():
    text = "3 in train:\n  a\n  b\n  c\n0 in dev or test:\n17 new:\n" + "".join(f"  n{i}\n" for i in range(17))
    rows = shown_samples(config(), text)
    assert rows == ["3 in train:", "  a", "  b", "  c", "0 in dev or test:", "17 new:", *(f"  n{i}" for i in range(7))]
    short = "1 in train:\n  a\n0 in dev or test:\n0 new:\n"
    assert "\n".join(shown_samples(config(), short)) == short.rstrip("\n")
    assert shown_samples(config(), "") == []


def test_a_sample_is_a_row_of_the_terminal():
    stream = config(data=jaxlm.DataConfig(kind="stream"))
    rows = shown_samples(
        stream, "\n---\n".join(["to be\nor not", "\x1b[31mred\tone", "x" * 200, "\u6f22" * 60, *"abcdefgh"])
    )
    assert len(rows) == SHOWN
    assert rows[:2] == ["to be / or not", "\\x1b[31mred\\tone"]
    assert rows[2] == "x" * (COLUMNS - 3) + "..." and rows[3] == "\u6f22" * 38 + "..."


def test_everything_fits_a_screen():
    text = "3 in train:\n  a\n  b\n  c\n1 in dev or test:\n  d\n16 new:\n" + "".join(f"  n{i}\n" for i in range(16))
    losses = [loss_line(config(), split, entry(2.6)) for split in ("train", "dev", "test")]
    data = ["data: train 182,580, dev 22,655, test 22,866 tokens, vocabulary 27"]
    rows = screen(config(), result(2.6, step=25), OVERFITTED, data=data, losses=losses, samples=text)
    assert sum(-(-len(row) // 80) for row in rows) < 24
    assert all(len(row) < 80 for row in rows[:-1])
    assert rows[13:15] == [
        data[0].replace("data:", "data: ssa_2017:"),
        "model: Mlp, 12,345 parameters, 100 steps of 32",
    ]


def test_a_finished_run_says_the_same_again(make_run, tmp_path):
    path = make_run(jaxlm.CountsConfig())
    said: list[list[str]] = []
    for _ in range(2):
        said.append([])
        train(RunDir(path).read_config(), log=said[-1].append)
    assert said[0] == said[1] and "trained already" in said[0][2]
    found = json.loads((path / "eval.json").read_text())
    assert f"beside dev: uniform {found['baselines']['uniform']:.4f}" in "\n".join(said[0])
    assert metrics.read(RunDir(path).metrics) and said[0][-1].startswith("step 1 of 1, ")
