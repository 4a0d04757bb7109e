"""Making, claiming and setting aside a run directory: whole whenever a process is killed, one training at a time."""

import dataclasses
import errno
import fcntl
import json
import os
import stat
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from jaxlm.config import DataConfig, MlpConfig, OptimConfig, RunConfig
from jaxlm.data import corpus as corpora
from jaxlm.errors import UserError
from jaxlm.runs import create, directory
from jaxlm.runs.create import claimed
from jaxlm.runs.directory import RunDir
from tests.processes import tree

TEXT = "emma\nolivia\nava\nisabella\nmia\nzoe\nnora\nlily\nella\naria\n"
CONFIG = RunConfig(model=MlpConfig(context=2, d_embed=2, d_hidden=3), steps=10)


def corpus(text: str = TEXT, **settings) -> corpora.Corpus:
    return corpora.from_lines(text, DataConfig(**settings))


def at(path: Path, **settings) -> RunConfig:
    return dataclasses.replace(CONFIG, run_dir=str(path), **settings)


def test_a_new_run_directory_holds_all_that_sampling_needs(tmp_path):
    config = at(tmp_path / "deep" / "run")
    with claimed(config, corpus()) as (run, state):
        assert state == "new" and run.path == tmp_path / "deep" / "run"
    assert run.read_config() == config
    assert json.loads(run.config.read_text())["format"] == directory.FORMAT
    assert run.read_tokenizer() == corpus().tokenizer
    assert json.loads(run.fingerprint.read_text())["format"] == directory.FORMAT
    seen, lines = run.read_seen(), corpus().lines
    for split in corpora.SPLITS:
        assert seen[split].tolist() == sorted(corpora.line_hash(line) for line in lines[split])
    assert [path.name for path in run.path.parent.iterdir()] == ["run"]


def test_lines_are_hashed_once_for_a_new_run(tmp_path, monkeypatch):
    hashed = Mock(side_effect=corpora.line_hashes)
    monkeypatch.setattr(create, "line_hashes", hashed)
    with claimed(at(tmp_path / "run"), corpus()):
        assert [call.args[0] for call in hashed.call_args_list] == list(corpus().lines.values())


def test_the_state_follows_from_what_is_there(tmp_path):
    config = at(tmp_path / "run")
    for expected, made in (("new", "checkpoints/7"), ("resume", "eval.json"), ("done", "plots")):
        with claimed(config, corpus()) as (run, state):
            assert state == expected
        (run.path / made).mkdir(parents=True)


@pytest.mark.parametrize("restart", [True, False])
def test_a_run_that_is_made_has_all_its_files(tmp_path, restart):
    table = {"vectors": np.ones((2, 3))}
    with claimed(at(tmp_path / "run"), corpus(), restart=restart, buffers=table) as (run, state):
        assert state == "new" and run.read_seen() and run.read_buffers()


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("name", ["link", "empty", "locked"])
def test_an_empty_directory_becomes_a_run_and_stays_where_it_is(tmp_path, monkeypatch, name, inside, restart):
    """In its place it is the same directory as before: a disk may be mounted there, or a shell be in it."""
    for path in (tmp_path / "empty", tmp_path / "locked"):
        path.mkdir()
    for left_by_a_kill in (".lock", "fingerprint.json.part"):
        (tmp_path / "locked" / left_by_a_kill).touch()
    (tmp_path / "link").symlink_to("empty")
    inode = (tmp_path / name).stat().st_ino
    monkeypatch.chdir(tmp_path / name)
    path = Path() if inside else tmp_path / name
    with claimed(at(path), corpus(), restart=restart) as (run, state):
        assert state == "new" and run.read_config() == at(path) and run.read_seen() and run.read_tokenizer()
    with claimed(at(path), corpus()) as (_, state):
        assert state == "new"
    assert (tmp_path / name).stat().st_ino == inode
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "link", "locked"}


@pytest.mark.parametrize("changes", [{"settings": ...}, {"settings": []}, {"data": 3}, {"buffers": 3}])
def test_a_damaged_fingerprint_is_a_line_and_can_be_started_over(tmp_path, changes):
    config, table = at(tmp_path / "run"), {"vectors": np.ones((2, 3))}
    with claimed(config, corpus(), restart=False, buffers=table) as (run, _):
        whole = json.loads(run.fingerprint.read_text())
    run.fingerprint.write_text(json.dumps({k: v for k, v in (whole | changes).items() if v is not ...}))
    (name,) = changes
    with (
        pytest.raises(UserError, match=rf"fingerprint\.json.*{name}.*--restart"),
        claimed(config, corpus(), restart=False, buffers=table),
    ):
        pass
    with claimed(config, corpus(), restart=True, buffers=table, log=Mock()) as (run, state):
        assert state == "new" and run.read_fingerprint() == whole


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("content", ['{"theirs": 1}', "[]", json.dumps({"format": directory.FORMAT + 1})])
def test_what_is_no_run_or_a_newer_one_is_left_alone(tmp_path, content, restart):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "fingerprint.json").write_text(content)
    with (
        pytest.raises(UserError, match=r"is not a run directory|update jaxlm"),
        claimed(at(tmp_path / "run"), corpus(), restart=restart),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {"checkpoints", "fingerprint.json", ".lock"}


def test_a_run_of_the_first_format_is_refused_in_a_line_that_names_the_fix(tmp_path):
    with claimed(at(tmp_path / "run"), corpus()) as (run, _):
        pass
    found = json.loads(run.fingerprint.read_text())
    run.fingerprint.write_text(json.dumps(found | {"format": 1}))
    before = tree(run.path)
    with (
        pytest.raises(UserError, match=r"run' has format 1, this version reads format 2: .*--restart") as error,
        claimed(at(tmp_path / "run"), corpus()),
    ):
        pass
    assert "\n" not in str(error.value) and set(tree(run.path)) - set(before) <= {str(run.lock)}
    with claimed(at(tmp_path / "run"), corpus(), restart=True, log=Mock()) as (_, state):
        assert state == "new"
    assert json.loads((tmp_path / "run.old" / "fingerprint.json").read_text())["format"] == 1


def test_files_that_were_lost_are_there_again_before_a_run_goes_on(tmp_path):
    with claimed(at(tmp_path / "run"), corpus()) as (run, _):
        run.checkpoints.mkdir()
    words = run.read_tokenizer().words
    run.tokenizer.unlink()
    run.seen.write_bytes(b"torn")
    with claimed(at(tmp_path / "run"), corpus()) as (run, state):
        assert state == "resume" and run.read_tokenizer().words == words and run.read_seen()


def test_a_finished_run_whose_settings_were_lost_has_them_again(tmp_path):
    """As where the file of a model class was moved."""
    with claimed(at(tmp_path / "run"), corpus()) as (run, _):
        run.eval.write_text("{}")
    run.config.write_text("{}")
    with claimed(at(tmp_path / "run"), corpus()) as (run, state):
        assert state == "done" and run.read_config() == at(tmp_path / "run")


def test_a_restart_as_word2vec_which_keeps_no_lines_has_no_hashes_of_them(tmp_path):
    with claimed(at(tmp_path / "run"), corpus()) as (run, _):
        assert run.seen.exists()
    with claimed(at(tmp_path / "run"), dataclasses.replace(corpus(), kind="stream"), restart=True, log=Mock()) as (
        run,
        _,
    ):
        assert not run.seen.exists()


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("name", ["a[b]c", "a\\b", "st*r", "gs:/bucket", os.fsdecode(b"\xef")])
def test_a_place_that_checkpoints_could_not_be_named_in_is_refused(tmp_path, name, restart):
    with (
        pytest.raises(UserError, match=r"^run_dir wants a path that checkpoints can be kept in, got .* --run-dir$"),
        claimed(at(tmp_path / name / "run"), corpus(), restart=restart),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_every_difference_is_listed(tmp_path):
    with claimed(at(tmp_path / "run"), corpus()):
        pass
    before = tree(tmp_path)
    changed = at(tmp_path / "run", steps=11, optim=OptimConfig(lr=0.2), data=DataConfig(split_seed=1))
    with (
        pytest.raises(UserError, match=r"--run-dir.*--restart") as error,
        claimed(changed, corpus(TEXT + "zed\n", split_seed=1)),
    ):
        pass
    for name in ("data has", "tokenizer has", "split has", "steps: 10, now 11", "optim.lr: 0.1, now 0.2"):
        assert name in str(error.value)
    assert "data.split_seed: 42, now 1" in str(error.value)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("restart", [False, True])
def test_one_process_at_a_time(tmp_path, restart):
    with claimed(at(tmp_path / "run"), corpus()):
        before = tree(tmp_path)
        with (
            pytest.raises(UserError, match="in use by another process"),
            claimed(at(tmp_path / "run"), corpus(), restart=restart),
        ):
            pass
        assert tree(tmp_path) == before
    with claimed(at(tmp_path / "run"), corpus(), restart=restart, log=Mock()) as (_, state):
        assert state == "new"


def test_a_directory_name_need_not_be_utf8(tmp_path):
    config = at(tmp_path / "run", data=DataConfig(path=os.fsdecode(b"na\xefmes.txt")))
    with claimed(config, corpus()) as (run, _):
        assert run.read_config() == config


def test_a_finished_run_that_may_not_be_written_is_done_as_any_other(tmp_path, monkeypatch):
    """As a colleague's, or one on a disk that is mounted for reading."""
    with claimed(at(tmp_path / "run"), corpus()) as (run, _):
        run.eval.write_text("{}")
    real = Path.open

    def refusing(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if set(mode) & set("wax+"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", refusing)
    with claimed(at(tmp_path / "run"), corpus()) as (_, state):
        assert state == "done"
    run.eval.unlink()
    with (
        pytest.raises(UserError, match=r"run_dir '.*run' cannot be written: Permission denied"),
        claimed(at(tmp_path / "run"), corpus()),
    ):
        pass


def test_a_run_that_another_process_has_made_meanwhile_is_the_one_that_is_used(tmp_path, monkeypatch):
    mkdir = Path.mkdir

    def late(self: Path, *args: Any, **rest: Any) -> None:
        monkeypatch.setattr(Path, "mkdir", mkdir)
        with claimed(at(tmp_path / "run"), corpus()) as (run, _):
            (run.checkpoints / "5").mkdir(parents=True)
        mkdir(self, *args, **rest)

    monkeypatch.setattr(Path, "mkdir", late)
    with claimed(at(tmp_path / "run"), corpus()) as (run, state):
        assert state == "resume"
    assert (run.checkpoints / "5").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_empty_directory_that_another_process_is_making_a_run_of_is_left_to_it(tmp_path):
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    with run.lock.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="in use by another process"), claimed(at(run.path), corpus()):
            pass
    assert [path.name for path in run.path.iterdir()] == [".lock"]


@pytest.mark.parametrize("writes", [1, 2, 3, 4])
def test_a_full_disk_is_a_line_and_with_room_the_same_command_makes_the_run(tmp_path, monkeypatch, writes):
    left, write_bytes = [writes], Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return write_bytes(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    table = {"vectors": np.ones((2, 3))}
    with (
        pytest.raises(UserError, match=r"^run_dir .* cannot be written: No space left on device$"),
        claimed(at(tmp_path / "run"), corpus(), buffers=table),
    ):
        pass
    monkeypatch.undo()
    with claimed(at(tmp_path / "run"), corpus(), buffers=table) as (run, state):
        assert state == "new" and run.read_seen() and run.read_buffers() and run.read_tokenizer()
    assert not list(run.path.glob("*.part"))


@pytest.mark.parametrize("mask", [0o077, 0o002])
def test_a_run_directory_has_the_rights_that_the_users_mask_leaves(tmp_path, mask):
    before = os.umask(mask)
    try:
        with claimed(at(tmp_path / "run"), corpus()) as (run, _):
            rights = stat.S_IMODE(run.path.stat().st_mode)
    finally:
        os.umask(before)
    assert rights & 0o777 == 0o777 & ~mask
