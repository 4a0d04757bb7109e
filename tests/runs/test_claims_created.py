"""A new run directory is whole or not there, whoever else makes it, and has the rights that the user's mask leaves."""

import errno
import fcntl
import os
import stat
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from jaxlm.errors import UserError
from jaxlm.runs import claims
from jaxlm.runs.directory import RunDir
from tests.runs.test_claims import at, corpus


@pytest.mark.parametrize(("restart", "expected"), [(False, "resume"), (True, "new")])
def test_a_run_that_another_process_has_made_meanwhile_is_the_one_that_is_used(
    tmp_path, monkeypatch, restart, expected
):
    rename = Path.rename

    def late(self: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        with claims.hold(at(tmp_path / "run"), corpus(), restart=False) as (run, _):
            (run.checkpoints / "5").mkdir(parents=True)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    with claims.hold(at(tmp_path / "run"), corpus(), restart=restart, log=Mock()) as (run, state):
        assert state == expected
        assert run.checkpoints.exists() == (not restart)
    assert (run.checkpoints / "5").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_empty_directory_that_another_process_is_making_a_run_of_is_left_to_it(tmp_path):
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    with run.lock.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with (
            pytest.raises(UserError, match="in use by another process"),
            claims.hold(at(run.path), corpus(), restart=False),
        ):
            pass
    assert [path.name for path in run.path.iterdir()] == [".lock"]


def test_a_full_disk_leaves_nothing_of_a_run_directory(tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(claims, "write_arrays", Mock(side_effect=full))
    with (
        pytest.raises(UserError, match="No space left on device"),
        claims.hold(at(tmp_path / "run"), corpus(), restart=False, buffers={"vectors": np.ones((2, 3))}),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mask", [0o077, 0o002])
def test_a_run_directory_has_the_rights_that_the_users_mask_leaves(tmp_path, mask):
    before = os.umask(mask)
    try:
        with claims.hold(at(tmp_path / "run"), corpus(), restart=False) as (run, _):
            rights = stat.S_IMODE(run.path.stat().st_mode)
    finally:
        os.umask(before)
    assert rights & 0o777 == 0o777 & ~mask
