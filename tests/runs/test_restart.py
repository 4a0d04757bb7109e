"""What a restart leaves, ended at any step: the old run as it was, or the new one alone."""

import functools
import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from jaxlm.errors import UserError
from jaxlm.runs import claims, restart
from jaxlm.runs.directory import RunDir
from tests.runs.test_claims import at, corpus

TABLE = {"vectors": np.ones((2, 3))}
CHANGING = [(Path, "rename"), (Path, "replace"), (Path, "unlink"), (Path, "mkdir"), (Path, "write_bytes")]


class KilledError(BaseException):
    """In place of a kill, but that what is `finally` is still done."""


def die_at(monkeypatch, count: int) -> None:
    """Raise in place of the count-th change on disk from now on."""
    calls = [0]

    def dying(original):
        def call(*args, **kwargs):
            calls[0] += 1
            if calls[0] == count:
                raise KilledError
            return original(*args, **kwargs)

        return call

    for owner, name in CHANGING:
        monkeypatch.setattr(owner, name, dying(getattr(owner, name)))
    rmtree = shutil.rmtree

    def torn(path, **options):
        """Files go one by one: a kill leaves some."""
        calls[0] += 1
        if calls[0] == count:
            for file in sorted(Path(path).rglob("*"))[:1]:
                rmtree(file) if file.is_dir() else file.unlink()
            raise KilledError
        rmtree(path, **options)

    monkeypatch.setattr(shutil, "rmtree", torn)


def killed(monkeypatch, count: int, work) -> bool:
    """Whether work was ended by its count-th change."""
    with monkeypatch.context() as patch:
        die_at(patch, count)
        try:
            work()
        except KilledError:
            return True
        return False


def held(path: Path) -> dict[str, bytes | None]:
    """Each file below with its content, each directory as None."""
    return {str(entry.relative_to(path)): entry.read_bytes() if entry.is_file() else None for entry in path.rglob("*")}


def a_run(path: Path, **settings) -> RunDir:
    """All files that a run may have, and one that is not its own."""
    with claims.hold(at(path, **settings), corpus(), restart=False, buffers=TABLE) as (run, _):
        pass
    for folder in (run.checkpoints / "7", run.broken / "3", run.plots, run.tensorboard):
        folder.mkdir(parents=True)
        (folder / "file").write_text("old")
    for file in (run.eval, run.novelty, run.metrics, run.samples, path / "notes.txt"):
        file.write_text("old")
    return run


def begin_new(run: RunDir) -> None:
    """What a new run has written before its first checkpoint."""
    restart.set_aside(run)
    run.fingerprint.write_text("new")
    run.config.write_text("new")
    run.metrics.write_text("new")
    run.plots.mkdir()
    (run.checkpoints / "7.orbax-checkpoint-tmp").mkdir(parents=True)


def ended_anywhere(
    place: Path, monkeypatch: pytest.MonkeyPatch, prepare: Callable[[RunDir], None], work: Callable[[RunDir], object]
) -> Iterator[tuple[int, RunDir, dict[str, bytes | None]]]:
    """A run for each change that `work` makes on disk, ended there, and one that is not: the number of the change, the
    run, and what it held before `prepare`.
    """
    for count in itertools.count(1):
        run = a_run(place / str(count))
        before = held(run.path)
        prepare(run)
        went_on = killed(monkeypatch, count, functools.partial(work, run))
        yield count, run, before
        if not went_on:
            return


def test_before_its_first_checkpoint_a_restart_can_be_undone_whenever_it_ended(tmp_path, monkeypatch):
    for count, run, before in ended_anywhere(tmp_path, monkeypatch, lambda run: None, begin_new):
        assert restart.settle(run) == (count > 2)
        assert held(run.path) == before
    assert count > 12


def test_bringing_the_old_run_back_can_be_ended_anywhere_too(tmp_path, monkeypatch):
    for count, run, before in ended_anywhere(tmp_path, monkeypatch, begin_new, restart.settle):  # noqa: B007
        restart.settle(run)
        assert held(run.path) == before
    assert count > 15


def test_with_a_checkpoint_of_its_own_the_new_run_stays_alone_whenever_that_ended(tmp_path, monkeypatch):
    new: dict[Path, dict[str, bytes | None]] = {}

    def prepare(run: RunDir) -> None:
        begin_new(run)
        (run.checkpoints / "1").mkdir()
        new[run.path] = {name: what for name, what in held(run.path).items() if not name.startswith(".replaced")}

    for count, run, _ in ended_anywhere(tmp_path, monkeypatch, prepare, restart.throw_away):  # noqa: B007
        assert not restart.settle(run)
        assert held(run.path) == new[run.path]
    assert count > 2


def test_where_there_is_nothing_nothing_comes_back(tmp_path):
    run = RunDir(tmp_path)
    run.fingerprint.write_text("{}")
    restart.set_aside(run)
    assert not restart.settle(run) and list(held(tmp_path)) == ["fingerprint.json"]


def test_what_cannot_be_deleted_hinders_nothing(tmp_path, monkeypatch):
    run = a_run(tmp_path / "run")
    monkeypatch.setattr(shutil, "rmtree", lambda path, **options: None)
    for _ in range(2):
        restart.set_aside(run)
        run.config.write_text("new")
        restart.throw_away(run)
        assert not restart.settle(run)
    assert len(list(run.discarded.iterdir())) == 2


def test_part_of_a_fingerprint_does_not_stay(tmp_path):
    run = a_run(tmp_path / "run")
    before = held(run.path)
    restart.set_aside(run)
    (run.replaced / "fingerprint.json").rename(run.replaced / "fingerprint.json.part")
    assert restart.settle(run) and held(run.path) == before


def test_a_failure_before_the_first_checkpoint_brings_the_old_run_back(tmp_path):
    run = a_run(tmp_path / "run")
    before = held(run.path)
    told: list[str] = []
    with (
        pytest.raises(MemoryError),
        claims.hold(at(run.path, seed=5), corpus("bob\nabe\n"), restart=True, log=told.append) as (_, state),
    ):
        assert state == "new" and not run.samples.exists()
        raise MemoryError
    assert held(run.path) == before
    assert len(told) == 1 and "is back" in told[0]


def test_a_killed_restart_is_undone_by_the_next_command_that_holds_the_run(tmp_path):
    run = a_run(tmp_path / "run")
    before = held(run.path)
    restart.set_aside(run)
    with claims.hold(at(run.path), corpus(), restart=False, buffers=TABLE) as (_, state):
        assert state == "done"
    assert held(run.path) == before
    begin_new(run)
    with (
        pytest.raises(UserError, match="seed: 0, now 5"),
        claims.hold(at(run.path, seed=5), corpus(), restart=False),
    ):
        pass
    assert held(run.path) == before
