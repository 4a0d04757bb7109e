"""A run that starts from another's parameters depends on their content, and on that run only until it has begun."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import jaxlm
from jaxlm.runs.directory import RunDir
from jaxlm.sweep import Variant, sweep
from jaxlm.training import train
from tests.conftest import NAMES, TINY
from tests.processes import tree

SENTENCES = "\n".join(["the cat saw a dog", "a dog saw the cat", "the hen saw the dog"] * 20)
WORD2VEC = jaxlm.Word2vecConfig(d_embed=4, subsample=0.0)
FIRST, RUN = RunDir(Path("first")), RunDir(Path("run"))


def settings(model: jaxlm.ModelConfig, **changes: Any) -> jaxlm.RunConfig:
    """Of a run that begins from the first one; paths lead from the current directory."""
    tokens = jaxlm.CharactersConfig() if model.predicts_text else jaxlm.WordsConfig(min_count=1)
    defaults: dict[str, Any] = {
        "data": jaxlm.DataConfig(path="text.txt", tokens=tokens),
        "sample": jaxlm.SampleConfig(n=0),
        "steps": 3,
        "batch_size": 8,
        "plots": False,
        "run_dir": "run",
        "init_from": "first",
    }
    return jaxlm.RunConfig(model=model, **{**defaults, **changes})


def quietly(config: jaxlm.RunConfig, **options: bool) -> str:
    said: list[str] = []
    train(config, log=said.append, **options)
    return "\n".join(said)


def refused(words: str, config: jaxlm.RunConfig, **options: bool) -> None:
    """By a run and by a sweep, in one line, with everything as it was."""
    before = tree(Path())
    for attempt in (quietly, lambda config, **options: sweep([Variant({}, config)], log=lambda line: None, **options)):
        with pytest.raises(jaxlm.UserError, match=words) as told:
            attempt(config, **options)
        assert "\n" not in str(told.value)
    assert tree(Path()) == before


@pytest.fixture(scope="module", params=[TINY, WORD2VEC], ids=["mlp", "word2vec"])
def finished(request, tmp_path_factory):
    """The settings of a finished run that began from another, and the directory of both."""
    base = tmp_path_factory.mktemp("pair")
    (base / "text.txt").write_text("\n".join(NAMES) if request.param == TINY else SENTENCES)
    config = settings(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(base)
        quietly(settings(request.param, run_dir="first", init_from=None, steps=2))
        quietly(config)
    return config, base


@pytest.fixture
def config(finished, tmp_path, monkeypatch):
    """The settings, with the two runs in a current directory of this test's own."""
    config, base = finished
    shutil.copytree(base, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return config


@pytest.mark.slow
def test_a_run_that_has_begun_needs_the_other_no_more(config):
    shutil.rmtree(FIRST.path)
    fingerprint = RUN.fingerprint.read_bytes()
    assert "trained already" in quietly(config)
    result = json.loads(RUN.eval.read_text())
    RUN.eval.unlink()
    assert "resuming run at step 3" in quietly(config)
    assert json.loads(RUN.eval.read_text())["dev"] == result["dev"]
    assert RUN.fingerprint.read_bytes() == fingerprint
    refused("init_from: run 'first' does not exist", config, restart=True)
    refused("init_from: run 'frist' does not exist", dataclasses.replace(config, init_from="frist"))


def test_a_restart_that_is_refused_leaves_the_old_run_where_it_was(config):
    """The other is gone, which is found before anything is renamed."""
    shutil.rmtree(FIRST.path)
    refused("init_from: run 'first' does not exist", config, restart=True)
    assert "trained already" in quietly(config)


def test_without_a_checkpoint_a_run_cannot_go_on_from_what_is_gone(config):
    shutil.rmtree(FIRST.path)
    RUN.eval.unlink()
    for path in RUN.checkpoints.glob("*/training/**/d/*"):
        path.write_bytes(b"")
    with pytest.raises(jaxlm.UserError, match="init_from 'first' cannot be opened, and no checkpoint of run 'run'"):
        quietly(config)
    refused("init_from: run 'first' does not exist", config)


@pytest.mark.parametrize("begun", [True, False])
def test_other_parameters_make_another_run(config, begun):
    shutil.rmtree(FIRST.path)
    shutil.copytree(RUN.path, FIRST.path)
    if not begun:
        RUN.eval.unlink()
        shutil.rmtree(RUN.checkpoints)
    refused(r"init_from has other content \(sha256 ", config)


def test_a_run_that_has_begun_goes_on_once_what_it_began_from_is_moved_away(config):
    """A resume reads nothing of it, which the refusal says."""
    shutil.copytree(FIRST.path, "kept")
    shutil.rmtree(FIRST.path)
    shutil.copytree(RUN.path, FIRST.path)
    refused("; or move that run away: this one resumes without it$", config)
    FIRST.path.rename("moved")
    assert "trained already" in quietly(config)
    shutil.rmtree(RUN.checkpoints)
    RUN.eval.unlink()
    Path("moved").rename(FIRST.path)
    refused("to rename the old run and begin anew$", config)


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("spelled", ["first/", "./first", "{here}/first"])
def test_the_same_start_may_be_spelled_in_another_way(config, spelled, gone):
    if gone:
        shutil.rmtree(FIRST.path)
    other = dataclasses.replace(config, init_from=spelled.format(here=Path.cwd()))
    assert "trained already" in quietly(other)
    assert "trained already" in quietly(config)


def test_a_sweep_trains_nothing_where_a_later_run_began_from_other_parameters(config):
    shutil.rmtree(FIRST.path)
    shutil.copytree(RUN.path, FIRST.path)
    runs = [Variant({}, dataclasses.replace(config, run_dir="new")), Variant({}, config)]
    with pytest.raises(jaxlm.UserError, match="init_from has other content"):
        sweep(runs, log=lambda line: None)
    assert not Path("new").exists()


def test_a_run_of_an_older_version_goes_on(config):
    print_of_run = json.loads(RUN.fingerprint.read_text())
    assert print_of_run.pop("init_from")
    RUN.fingerprint.write_text(json.dumps(print_of_run))
    assert "trained already" in quietly(config)
    shutil.rmtree(FIRST.path)
    assert "trained already" in quietly(config)


@pytest.mark.parametrize("restart", [False, True])
def test_a_run_does_not_start_from_itself(config, restart):
    here = dataclasses.replace(config, run_dir=str(FIRST.path.resolve()))
    refused("init_from 'first' is the run directory itself", here, restart=restart)


def test_another_kind_of_model_or_a_run_without_checkpoints_is_no_start(config):
    kinds = {type(kind).__name__: kind for kind in (TINY, WORD2VEC)}
    got = type(config.model).__name__
    kinds.pop(got)
    ((wanted, other),) = kinds.items()
    refused(
        f"init_from wants a run of a {wanted}, as this is, got 'first' of a {got}", settings(other, run_dir="other")
    )
    shutil.rmtree(FIRST.checkpoints)
    fresh = dataclasses.replace(config, run_dir="other")
    refused("init_from: run 'first' has no checkpoint that can be read", fresh)
