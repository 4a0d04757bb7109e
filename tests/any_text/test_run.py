"""The recipe for any text as a run: chosen, resumed, never above the counts."""

import dataclasses
import json

import jax
import pytest

import jaxlm
from jaxlm import any_text
from jaxlm.any_text import run as any_text_run
from jaxlm.any_text.counts import Counts, best_counts
from jaxlm.any_text.look import look
from jaxlm.cli.train_command import parse_train
from jaxlm.config.data import DataConfig
from jaxlm.data import corpus as corpora
from tests.conftest import NAMES


@pytest.fixture
def asked(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\n".join(NAMES))
    return jaxlm.RunConfig(
        model=jaxlm.AnyTextConfig(minutes=0.01),
        data=jaxlm.DataConfig(path=str(path)),
        sample=jaxlm.SampleConfig(n=0),
        run_dir=str(tmp_path / "run"),
        plots=False,
    )


def trained(config, lines):
    """The run directory of a finished training, whose log goes into `lines`."""
    path = any_text.train(config, log=lines.append)
    assert path is not None
    return path


@pytest.mark.slow
def test_a_text_is_seen_counted_and_learned_in_an_ordinary_run(asked):
    lines: list[str] = []
    path = trained(asked, lines)
    assert [line.split(":")[0] for line in lines[:3]] == ["text", "counts", "model"]
    assert json.loads((path / "config.json").read_text())["model"]["class"] == "jaxlm:MixtureConfig"
    result = json.loads((path / "eval.json").read_text())
    counts = best_counts(corpora.load(asked.data))
    assert result["dev"]["nats_per_token"] <= counts.dev + 1e-6
    assert 0 < result["network_share"] < 1
    assert len(jaxlm.generate(jaxlm.load_run(path), n=3, key=jax.random.key(0))) == 3

    lines.clear()
    assert trained(asked, lines) == path
    assert any("is trained already" in line for line in lines)


@pytest.mark.slow
def test_where_the_counts_are_better_they_are_the_model(asked, monkeypatch):
    monkeypatch.setattr(any_text_run, "best_counts", lambda corpus: Counts(order=3, dev=0.5))
    lines: list[str] = []
    path = trained(asked, lines)
    assert any("the counts are the model" in line for line in lines)
    model = json.loads((path / "config.json").read_text())["model"]
    assert (model["class"], model["order"], model["smoothing"]) == ("jaxlm:CountsConfig", 3, "kneser-ney")
    assert path.with_name("run.old").is_dir()


def test_a_handful_of_lines_is_counted(asked, tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(NAMES[:20]))
    path = trained(asked, [])
    assert json.loads((path / "config.json").read_text())["model"]["class"] == "jaxlm:CountsConfig"


@pytest.mark.parametrize(
    "settings, named",
    [
        ({"steps": 10}, "steps"),
        ({"batch_size": 8}, "batch_size"),
        ({"optim": jaxlm.OptimConfig(lr=0.2)}, "optim"),
        ({"data": DataConfig(max_length=12, example="sequence")}, "data.example"),
    ],
)
def test_what_the_recipe_chooses_cannot_be_set(settings, named):
    config = jaxlm.RunConfig(**{"model": jaxlm.AnyTextConfig()} | settings)
    with pytest.raises(jaxlm.UserError, match=named):
        any_text.train(config)


@pytest.mark.slow
def test_a_text_without_dev_is_learned_to_the_last_step(asked):
    data = dataclasses.replace(asked.data, split=(1.0, 0.0, 0.0))
    path = trained(dataclasses.replace(asked, data=data), [])
    result = json.loads((path / "eval.json").read_text())
    assert result["dev"] is None and result["step"] == result["steps"]


@pytest.mark.slow
def test_a_dry_run_writes_nothing(asked, tmp_path):
    lines: list[str] = []
    assert any_text.train(asked, dry_run=True, log=lines.append) is None
    assert any("MixtureConfig" in line for line in lines)
    assert not (tmp_path / "run").exists()


def test_a_large_text_holds_out_as_much_as_is_needed(monkeypatch, asked):
    seen = look("a b\n" * 1000)
    assert any_text_run.data_of(asked, seen).split == asked.data.split
    monkeypatch.setattr(any_text_run, "LARGE_TEXT", 1000)
    monkeypatch.setattr(any_text_run, "HELD_OUT", 400)
    assert any_text_run.data_of(asked, seen).split == pytest.approx((0.8, 0.1, 0.1))
    monkeypatch.setattr(any_text_run, "HELD_OUT", 40)
    assert any_text_run.data_of(asked, seen).split == pytest.approx((0.98, 0.01, 0.01))
    given = dataclasses.replace(asked, data=dataclasses.replace(asked.data, split=(0.5, 0.25, 0.25)))
    assert any_text_run.data_of(given, seen).split == (0.5, 0.25, 0.25)


def test_the_command_line_takes_minutes():
    for given in (["--minutes", "2.5"], ["--minutes=2.5"], ["--model.minutes", "2.5"]):
        command = parse_train(["configs/any_text.py", *given, "--data.path", "x.txt"])
        assert command is not None and command.config.model == jaxlm.AnyTextConfig(minutes=2.5)


def test_the_best_order_predicts_dev_best(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\n".join(NAMES))
    corpus = corpora.load(jaxlm.DataConfig(path=str(path)))
    best = best_counts(corpus)
    config = jaxlm.RunConfig(
        model=jaxlm.CountsConfig(order=best.order, smoothing="kneser-ney"),
        data=jaxlm.DataConfig(path=str(path)),
        run_dir=str(tmp_path / "run"),
        plots=False,
    )
    jaxlm.train(config, log=lambda line: None)
    dev = json.loads((tmp_path / "run" / "eval.json").read_text())["dev"]["nats_per_token"]
    assert dev == pytest.approx(best.dev, abs=1e-5)
