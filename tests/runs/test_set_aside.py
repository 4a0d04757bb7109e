"""--restart renames the old run: nothing is deleted, a run in use is left alone, a kill leaves both runs whole."""

import json
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from jaxlm.errors import UserError
from jaxlm.runs import directory
from jaxlm.runs.create import claimed, set_aside
from jaxlm.runs.directory import RunDir
from tests import processes
from tests.processes import tree
from tests.runs.test_create import at, corpus

TABLE = {"vectors": np.ones((2, 3))}


def a_run(path: Path, **settings) -> RunDir:
    """All files that a run may have, and one that is not its own."""
    with claimed(at(path, **settings), corpus(), buffers=TABLE) as (run, _):
        pass
    for folder in (run.checkpoints / "7", run.broken / "3", run.plots, run.tensorboard):
        folder.mkdir(parents=True)
        (folder / "file").write_text("old")
    for file in (run.eval, run.novelty, run.metrics, run.samples, path / "notes.txt"):
        file.write_text("old")
    return run


def held(path: Path) -> dict[str, bytes | None]:
    """Each file below with its content, each directory as None."""
    return {str(entry.relative_to(path)): entry.read_bytes() if entry.is_file() else None for entry in path.rglob("*")}


def test_a_restart_keeps_all_of_the_old_run_under_another_name(tmp_path):
    run = a_run(tmp_path / "run")
    before = held(run.path)
    said: list[str] = []
    changed = at(run.path, seed=5)
    with claimed(changed, corpus("bob\nabe\n"), restart=True, log=said.append) as (run, state):
        assert state == "new" and run.read_config() == changed and not run.read_buffers()
    assert said == [f"{tmp_path}/run is renamed to {tmp_path}/run.old"]
    assert held(tmp_path / "run.old") == before
    assert {path.name for path in run.path.iterdir()} == {
        "config.json", "tokenizer.json", "seen.npz", "fingerprint.json", ".lock"
    }  # fmt: skip
    assert set(run.read_tokenizer().words) == set("abeo")


def test_further_restarts_count_on_and_take_no_name_that_is_there(tmp_path):
    (tmp_path / "run.old-3").write_text("theirs")
    said: list[str] = []
    for seed in range(4):
        with claimed(at(tmp_path / "run", seed=seed), corpus(), restart=True, log=said.append):
            pass
    names = {"run.old": 0, "run.old-2": 1, "run.old-4": 2, "run": 3}
    for name, seed in names.items():
        assert RunDir(tmp_path / name).read_config().seed == seed
    assert {path.name for path in tmp_path.iterdir()} == {*names, "run.old-3"}
    assert [Path(line.rpartition(" ")[2]).name for line in said] == ["run.old", "run.old-2", "run.old-4"]


@pytest.mark.parametrize("spelled", ["run", "run/", "./run", "{here}/run", "../{name}/run"])
def test_the_name_is_that_of_the_directory_however_it_is_spelled(tmp_path, monkeypatch, spelled):
    monkeypatch.chdir(tmp_path)
    a_run(tmp_path / "run")
    path = Path(spelled.format(here=tmp_path, name=tmp_path.name))
    with claimed(at(path), corpus(), restart=True, log=Mock()) as (_, state):
        assert state == "new"
    assert {path.name for path in tmp_path.iterdir()} == {"run", "run.old"}


@pytest.mark.parametrize("spelled", [".", "./", "x/..", ".."])
def test_a_run_is_not_renamed_by_a_name_that_would_lead_elsewhere_afterwards(tmp_path, monkeypatch, spelled):
    """A relative path from within the run leads into the renamed directory, and the old run would be the new one."""
    a_run(tmp_path / "run")
    (tmp_path / "run" / "x").mkdir()
    monkeypatch.chdir(tmp_path / "run" / ("x" if spelled == ".." else ""))
    before = tree(tmp_path)
    with (
        pytest.raises(UserError, match=rf"^run_dir .* take --run-dir {tmp_path}/run$"),
        claimed(at(Path(spelled)), corpus(), restart=True),
    ):
        pass
    assert tree(tmp_path) == before
    with claimed(at(tmp_path / "run"), corpus(), restart=True, log=Mock()) as (_, state):
        assert state == "new"


def test_a_run_in_use_is_not_renamed(tmp_path):
    with claimed(at(tmp_path / "run"), corpus()):
        before = tree(tmp_path)
        with pytest.raises(UserError, match="run' is in use by another process"):
            set_aside(tmp_path / "run")
    assert tree(tmp_path) == before


def test_where_there_is_nothing_nothing_is_renamed(tmp_path):
    said: list[str] = []
    set_aside(tmp_path / "run", said.append)
    (tmp_path / "empty").mkdir()
    set_aside(tmp_path / "empty", said.append)
    assert said == [] and [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", json.dumps({"format": directory.FORMAT}).encode()])
def test_a_run_whose_fingerprint_is_torn_can_be_set_aside(tmp_path, content):
    run = a_run(tmp_path / "run")
    run.fingerprint.write_bytes(content)
    set_aside(run.path, Mock())
    assert (tmp_path / "run.old" / "fingerprint.json").read_bytes() == content and not run.path.exists()


KILLED_EVERYWHERE = """\
import os, signal, sys
from pathlib import Path
from unittest.mock import Mock
from jaxlm.runs.create import claimed
from tests.runs.test_create import at, corpus
from tests.runs.test_set_aside import TABLE, a_run

base, restart = Path(sys.argv[1]), sys.argv[2] == "restart"

def die_at(last, place):
    calls = [0]
    def dying(original, name):
        def call(self, *args, **rest):
            if place in (self, *self.parents):
                calls[0] += 1
                if calls[0] == last:
                    if name == "write_bytes":  # half of it is there
                        original(self, args[0][: len(args[0]) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
            return original(self, *args, **rest)
        return call
    for name in ("mkdir", "open", "write_bytes", "replace", "rename", "unlink"):
        setattr(Path, name, dying(getattr(Path, name), name))

for count in range(1, 100):
    place = base / str(count)
    place.mkdir()
    if restart:
        a_run(place / "run")
    child = os.fork()
    if not child:
        die_at(count, place / "run")
        with claimed(at(place / "run", seed=1), corpus(), restart=restart, buffers=TABLE, log=Mock()):
            os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        print(count)
        break
"""


@pytest.mark.slow
@pytest.mark.parametrize("restart", [False, True], ids=["made", "restart"])
def test_killed_anywhere_the_same_command_completes_the_run_and_the_old_one_stays_whole(
    tmp_path, tmp_path_factory, restart
):
    """SIGKILL before each change on disk, and amid each write."""
    done = processes.cli(tmp_path_factory).python("-c", KILLED_EVERYWHERE, tmp_path, "restart" if restart else "")
    assert done.code == 0, done.stderr
    last = int(done.stdout)
    assert last > 12
    want = held(a_run(tmp_path / "want").path) if restart else {}
    want.pop("config.json", None)  # it has the path
    for count in range(1, last + 1):
        place = tmp_path / str(count)
        if restart:
            (kept,) = [path for path in place.iterdir() if (path / "notes.txt").exists()]
            assert {name: content for name, content in held(kept).items() if name != "config.json"} == want
            with pytest.raises(UserError, match="seed: 0, now 1"), claimed(at(kept, seed=1), corpus(), buffers=TABLE):
                pass
            assert RunDir(kept).fingerprint.exists() and kept.name in ("run", "run.old")
            if kept.name == "run":
                set_aside(kept, Mock())
        with claimed(at(place / "run", seed=1), corpus(), buffers=TABLE) as (run, state):
            assert state == "new" and run.read_config().seed == 1
            assert run.read_seen() and run.read_tokenizer() and run.read_buffers()
        assert not list(run.path.glob("*.part")), count
