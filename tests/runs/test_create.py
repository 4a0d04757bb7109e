import dataclasses
import errno
import json
import os
import signal
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from jaxlm.runs import claims, directory
from jaxlm.config import DataConfig, MlpConfig, OptimConfig, RunConfig
from jaxlm.data import corpus as corpora
from jaxlm.errors import UserError
from tests import processes
from tests.processes import tree

TEXT = "emma\nolivia\nava\nisabella\nmia\nzoe\nnora\nlily\nella\naria\n"
CONFIG = RunConfig(model=MlpConfig(context=2, d_embed=2, d_hidden=3), steps=10)


def corpus(text: str = TEXT, **settings) -> corpora.Corpus:
    return corpora.from_lines(text, DataConfig(**settings))


def at(path: Path, **settings) -> RunConfig:
    return dataclasses.replace(CONFIG, run_dir=str(path), **settings)


def test_a_new_run_directory_holds_all_that_sampling_needs(tmp_path):
    config = at(tmp_path / "deep" / "run")
    with claims.hold(config, corpus(), restart=False) as (run, state):
        assert state == "new" and run.path == tmp_path / "deep" / "run"
    assert run.read_config() == config
    assert run.read_tokenizer() == corpus().tokenizer
    assert json.loads(run.fingerprint.read_text())["format"] == directory.FORMAT
    seen, lines = run.read_seen(), corpus().lines
    for split in corpora.SPLITS:
        assert seen[split].tolist() == sorted(corpora.line_hash(line) for line in lines[split])
    assert [path.name for path in run.path.parent.iterdir()] == ["run"]


def test_lines_are_hashed_once_for_a_new_run(tmp_path, monkeypatch):
    hashed = Mock(side_effect=corpora.line_hashes)
    monkeypatch.setattr(claims, "line_hashes", hashed)
    with claims.hold(at(tmp_path / "run"), corpus(), restart=False):
        assert [call.args[0] for call in hashed.call_args_list] == list(corpus().lines.values())


def test_the_state_follows_from_what_is_there(tmp_path):
    config = at(tmp_path / "run")
    for expected, made in (("new", "checkpoints/7"), ("resume", "eval.json"), ("done", "plots")):
        with claims.hold(config, corpus(), restart=False) as (run, state):
            assert state == expected
        (run.path / made).mkdir(parents=True)


@pytest.mark.parametrize("restart", [True, False])
def test_a_run_that_is_made_has_all_its_files(tmp_path, restart):
    table = {"vectors": np.ones((2, 3))}
    with claims.hold(at(tmp_path / "run"), corpus(), restart=restart, buffers=table) as (run, state):
        assert state == "new" and run.read_seen() and run.read_buffers()


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("name", ["link", "empty", "locked"])
def test_an_empty_directory_becomes_a_run_and_stays_where_it_is(tmp_path, monkeypatch, name, restart):
    """In its place it is the same directory as before: a disk may be mounted there, or a shell be in it."""
    for path in (tmp_path / "empty", tmp_path / "locked"):
        path.mkdir()
    for left_by_a_kill in (".lock", "fingerprint.json.part"):
        (tmp_path / "locked" / left_by_a_kill).touch()
    (tmp_path / "link").symlink_to("empty")
    inode = (tmp_path / name).stat().st_ino
    monkeypatch.chdir(tmp_path / name)
    for path in (tmp_path / name, Path()):
        with claims.hold(at(path), corpus(), restart=restart) as (run, state):
            assert state == "new" and run.read_config() == at(path) and run.read_seen() and run.read_tokenizer()
    assert (tmp_path / name).stat().st_ino == inode
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "link", "locked"}


@pytest.mark.parametrize("changes", [{"settings": ...}, {"settings": []}, {"data": 3}, {"buffers": 3}])
def test_a_damaged_fingerprint_is_a_line_and_can_be_started_over(tmp_path, changes):
    config, table = at(tmp_path / "run"), {"vectors": np.ones((2, 3))}
    with claims.hold(config, corpus(), restart=False, buffers=table) as (run, _):
        whole = json.loads(run.fingerprint.read_text())
    run.fingerprint.write_text(json.dumps({k: v for k, v in (whole | changes).items() if v is not ...}))
    (name,) = changes
    with (
        pytest.raises(UserError, match=rf"fingerprint\.json.*{name}.*--restart"),
        claims.hold(config, corpus(), restart=False, buffers=table),
    ):
        pass
    with claims.hold(config, corpus(), restart=True, buffers=table) as (run, state):
        assert state == "new" and run.read_fingerprint() == whole


def test_restart_throws_everything_away_but_what_is_not_the_runs(tmp_path):
    table = {"vectors": np.ones((2, 3))}
    with claims.hold(at(tmp_path / "run"), corpus(), restart=False, buffers=table) as (run, _):
        assert run.read_buffers()
    for name in ("checkpoints/7/params", "broken/3", "plots", "tensorboard"):
        (run.path / name).mkdir(parents=True)
    for path in (run.eval, run.novelty, run.metrics, run.samples, run.path / "notes.txt"):
        path.write_text("{}")
    changed = at(tmp_path / "run", seed=5)
    with claims.hold(changed, corpus("bob\nabe\n"), restart=True) as (run, state):
        assert state == "new" and run.read_config() == changed and not run.read_buffers()
        (run.checkpoints / "1").mkdir(parents=True)
    assert set(run.read_tokenizer().words) == set("abeo")
    left = {path.name for path in run.path.iterdir()}
    own = {"config.json", "tokenizer.json", "seen.npz", "fingerprint.json", "checkpoints", ".lock"}
    assert left == own | {"notes.txt"}


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("content", ['{"theirs": 1}', '{"format": 2, "settings": {}}'])
def test_what_is_no_run_or_a_newer_one_is_left_alone(tmp_path, content, restart):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "fingerprint.json").write_text(content)
    with (
        pytest.raises(UserError, match=r"is not a run directory|update jaxlm"),
        claims.hold(at(tmp_path / "run"), corpus(), restart=restart),
    ):
        pass
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {"checkpoints", "fingerprint.json", ".lock"}


def test_files_that_were_lost_are_there_again_before_a_run_goes_on(tmp_path):
    with claims.hold(at(tmp_path / "run"), corpus(), restart=False) as (run, _):
        run.checkpoints.mkdir()
    words = run.read_tokenizer().words
    run.tokenizer.unlink()
    run.seen.write_bytes(b"torn")
    with claims.hold(at(tmp_path / "run"), corpus(), restart=False) as (run, state):
        assert state == "resume" and run.read_tokenizer().words == words and run.read_seen()


def test_a_finished_run_whose_settings_were_lost_has_them_again(tmp_path):
    """As where the file of a model class was moved."""
    with claims.hold(at(tmp_path / "run"), corpus(), restart=False) as (run, _):
        run.eval.write_text("{}")
    run.config.write_text("{}")
    with claims.hold(at(tmp_path / "run"), corpus(), restart=False) as (run, state):
        assert state == "done" and run.read_config() == at(tmp_path / "run")


def test_a_restart_as_word2vec_which_keeps_no_lines_throws_their_hashes_away(tmp_path):
    with claims.hold(at(tmp_path / "run"), corpus(), restart=False) as (run, _):
        assert run.seen.exists()
    with claims.hold(at(tmp_path / "run"), dataclasses.replace(corpus(), lines={}), restart=True):
        assert not run.seen.exists()


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("name", ["a[b]c", "a\\b", "st*r", "gs:/bucket", os.fsdecode(b"\xef")])
def test_a_place_that_checkpoints_could_not_be_named_in_is_refused(tmp_path, name, restart):
    with (
        pytest.raises(UserError, match=r"^run_dir wants a path that checkpoints can be kept in, got .* --run-dir$"),
        claims.hold(at(tmp_path / name / "run"), corpus(), restart=restart),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_every_difference_is_listed(tmp_path):
    with claims.hold(at(tmp_path / "run"), corpus(), restart=False):
        pass
    before = tree(tmp_path)
    changed = at(tmp_path / "run", steps=11, optim=OptimConfig(lr=0.2), data=DataConfig(split_seed=1))
    with (
        pytest.raises(UserError, match=r"--run-dir.*--restart") as error,
        claims.hold(changed, corpus(TEXT + "zed\n", split_seed=1), restart=False),
    ):
        pass
    for name in ("data has", "tokenizer has", "split has", "steps: 10, now 11", "optim.lr: 0.1, now 0.2"):
        assert name in str(error.value)
    assert "data.split_seed: 42, now 1" in str(error.value)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("restart", [False, True])
def test_one_process_at_a_time(tmp_path, restart):
    with claims.hold(at(tmp_path / "run"), corpus(), restart=False):
        before = tree(tmp_path)
        with (
            pytest.raises(UserError, match="in use by another process"),
            claims.hold(at(tmp_path / "run"), corpus(), restart=restart),
        ):
            pass
        assert tree(tmp_path) == before
    with claims.hold(at(tmp_path / "run"), corpus(), restart=restart) as (_, state):
        assert state == "new"


def test_a_directory_name_need_not_be_utf8(tmp_path):
    config = at(tmp_path / "run", data=DataConfig(path=os.fsdecode(b"na\xefmes.txt")))
    with claims.hold(config, corpus(), restart=False) as (run, _):
        assert run.read_config() == config


KILL = """\
import os, signal, sys
from jaxlm import claims

from pathlib import Path
from typing import Any
name, count = sys.argv[2], int(sys.argv[3])
original, calls = getattr(Path, name), [0]
def dying(self, *args, **kwargs):
    if Path(sys.argv[1]).parent in self.parents:
        calls[0] += 1
        if calls[0] == count:
            os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *args, **kwargs)
setattr(Path, name, dying)
with claims.hold(at(Path(sys.argv[1])), corpus(), restart=False):
    pass
"""


@pytest.mark.parametrize(("call", "count"), [("write_bytes", 2), ("replace", 3), ("rename", 1)])
def test_killed_while_the_run_directory_is_made(tmp_path, tmp_path_factory, call, count):
    """SIGKILL before the n-th call of a method of Path on something of the run."""
    killed = processes.cli(tmp_path_factory).python("-c", KILL, tmp_path / "run", call, count)
    assert killed.code == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "run").exists()
    with claims.hold(at(tmp_path / "run"), corpus(), restart=False) as (run, state):
        assert state == "new" and run.read_seen() and run.read_tokenizer()


@pytest.mark.parametrize("target", ["config.json", "tokenizer.json", "seen.npz"])
def test_a_restart_that_is_killed_leaves_no_file_of_two_runs(tmp_path, monkeypatch, target):
    """The file after `target` is never written. What the old command then finds is whole and its own."""
    old, new = (at(tmp_path / "run"), corpus()), (at(tmp_path / "run"), corpus("bob\nabe\nzoë\n"))
    with claims.hold(*old, restart=False):
        pass

    class KilledError(BaseException):
        pass

    order = ["config.json", "tokenizer.json", "seen.npz", "fingerprint.json"]
    dies_at = order[order.index(target) + 1]
    write_bytes = directory.write_bytes

    def dying(path, content):
        if path.name == dies_at:
            raise KilledError
        write_bytes(path, content)

    monkeypatch.setattr(directory, "write_bytes", dying)
    with pytest.raises(KilledError), claims.hold(*new, restart=True):
        pass
    monkeypatch.undo()
    with claims.hold(*old, restart=False) as (run, state):
        assert state == "new"
        assert run.read_tokenizer() == old[1].tokenizer
        assert run.read_seen()["train"].tolist() == sorted(map(corpora.line_hash, old[1].lines["train"]))


def test_a_finished_run_that_may_not_be_written_is_done_as_any_other(tmp_path, monkeypatch):
    """As a colleague's, or one on a disk that is mounted for reading."""
    with claims.hold(at(tmp_path / "run"), corpus(), restart=False) as (run, _):
        run.eval.write_text("{}")
    real = Path.open

    def refusing(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if set(mode) & set("wax+"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", refusing)
    with claims.hold(at(tmp_path / "run"), corpus(), restart=False) as (_, state):
        assert state == "done"
    run.eval.unlink()
    with (
        pytest.raises(UserError, match=r"run_dir '.*run' cannot be written: Permission denied"),
        claims.hold(at(tmp_path / "run"), corpus(), restart=False),
    ):
        pass
