import json
import random
import shlex
import shutil
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxlm.runs.directory import checkpoint_steps
from tests import processes
from tests.processes import Cli, refused, tree

STEPS = 12_003
"""Twelve chunks of 1,000 and three single steps; losses every 2,000, train lines every 3,000, saved every 1,000."""


@pytest.fixture(scope="module")
def cli(tmp_path_factory) -> Cli:
    return processes.cli(tmp_path_factory, as_users_do=True)


@pytest.fixture(scope="module")
def whole(cli) -> Path:
    """The run that nothing interrupts."""
    return cli.trained("whole", "--steps", STEPS)


def results(run: Path) -> dict[str, Any]:
    """All that a run ends with, without times."""
    newest = checkpoint_steps(run / "checkpoints")[-1]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    ended = json.loads((run / "eval.json").read_text())
    config = json.loads((run / "config.json").read_text())
    del ended["train_time_s"], config["run_dir"]
    return {
        "step": newest,
        "state": _state(run / "checkpoints" / str(newest)),
        "metrics": [{k: v for k, v in line.items() if k not in ("tokens_per_s", "time_s")} for line in lines],
        "eval": ended,
        "samples": (run / "samples.txt").read_text(),
        "config": config,
        "files": sorted(path.name for path in run.iterdir()),
    }


def _state(path: Path) -> dict[str, bytes]:
    """The bits of every array of a checkpoint: parameters, momentum and step."""
    from orbax.checkpoint import v1 as ocp

    described = ocp.checkpointables_metadata(path.resolve()).metadata
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = {
        part: jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), described[part])
        for part in ("params", "training")
    }
    loaded = ocp.load_checkpointables(path.resolve(), like)
    leaves = jax.tree_util.tree_leaves_with_path(dict(loaded))
    assert len(leaves) > 8
    return {jax.tree_util.keystr(where): np.asarray(leaf).tobytes() for where, leaf in leaves}


def assert_same(run: Path, whole: Path, *, but: tuple[str, ...] = ()) -> None:
    got, want = results(run), results(whole)
    assert want["step"] == STEPS and len(want["metrics"]) > 12
    got["files"] = [name for name in got["files"] if name != "broken"]
    for name, value in want.items():
        assert name in but or got[name] == value, name


def _go_on(cli: Cli, run: Path, **options: Any) -> str:
    done = cli.train("--run-dir", run, "--steps", STEPS, **options)
    assert done.code == 0 and "Traceback" not in done.stderr, done.stderr
    return done.stdout


def _unfinish(whole: Path, to: Path, *, newest: int | None = None) -> Path:
    """A copy of a finished run as it was just before its end, with no checkpoint beyond a step."""
    shutil.copytree(whole, to)
    (to / "eval.json").unlink()
    (to / "samples.txt").unlink()
    for step in checkpoint_steps(to / "checkpoints"):
        if newest is not None and step > newest:
            shutil.rmtree(to / "checkpoints" / str(step))
    return to


@pytest.mark.slow
def test_the_comparison_is_not_blind(whole):
    """Three steps of the same run are a difference in parameters and momentum."""
    before, after = (_state(whole / "checkpoints" / str(step)) for step in (12_000, STEPS))
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before if "step" in name or "embed" in name)
    assert sum(before[name] != after[name] for name in before) > len(before) / 2


@pytest.mark.slow
def test_killed_at_any_moment(cli, whole, tmp_path):
    """SIGKILL while starting, creating, training, saving and finishing; the delays come from a fixed seed."""
    rng, run = random.Random(11), tmp_path / "runs" / "killed"
    saves = run / "checkpoints"

    def saved(step: int) -> bool:
        return saves.exists() and any(found >= step for found in checkpoint_steps(saves))

    moments = [
        ("starting", lambda: True, 1.0),
        ("creating", lambda: run.parent.exists(), 0.0),
        ("created", lambda: run.exists(), 0.3),
        ("before the first step", lambda: (run / "metrics.jsonl").exists(), 0.05),
        ("saving", lambda: saves.exists() and any(not e.name.isdecimal() for e in saves.iterdir()), 0.02),
        ("training", lambda: saved(2000), 0.3),
        ("saving again", lambda: saved(5000) and any(not e.name.isdecimal() for e in saves.iterdir()), 0.02),
        ("single steps", lambda: saved(12_000), 0.02),
        ("finishing", lambda: (run / "samples.txt").exists(), 0.0),
    ]
    killed = []
    for name, condition, spread in moments:
        process = cli.start_train("--run-dir", run, "--steps", STEPS)
        done = processes.signal_when(condition, process, delay=spread * rng.random())
        assert "Traceback" not in done.stderr
        if done.code == -signal.SIGKILL:
            killed.append(name)
    assert len(killed) >= 6, killed
    _go_on(cli, run)
    assert_same(run, whole)


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_saves_and_says_how_to_go_on(cli, whole, tmp_path, signum):
    """Saves the cadence would not make."""
    run, log = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    process = cli.start_train("--run-dir", run, "--steps", STEPS, "--checkpoint.every", STEPS)
    done = processes.signal_when(lambda: log.exists() and log.stat().st_size > 0, process, signum)
    assert done.code == 128 + signum and "Traceback" not in done.stderr
    *_, last = done.stderr.splitlines()
    (step,) = checkpoint_steps(run / "checkpoints")
    assert f"saved at step {step};" in last
    python, *command = shlex.split(last.partition("to go on, run: ")[2])
    assert python == "python"
    resumed = cli.python(*command)
    assert resumed.code == 0 and f"resuming {run} at step {step}\n" in resumed.stdout
    assert_same(run, whole, but=("config", "eval", "samples"))  # other checkpoints to take the best of


@pytest.mark.slow
def test_stopped_in_the_first_chunk_it_goes_on(cli, whole, tmp_path):
    run = tmp_path / "run"
    log = run / "metrics.jsonl"
    process = cli.start_train("--run-dir", run, "--steps", STEPS)
    done = processes.signal_when(lambda: log.exists() and log.stat().st_size > 0, process, signal.SIGTERM)
    assert done.code == 143 and "to go on, run" in done.stderr
    _go_on(cli, run)
    assert_same(run, whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("params/manifest.ocdbt", b""),
        ("training/manifest.ocdbt", bytes(range(100))),
        ("training/_METADATA", None),
        ("_CHECKPOINT_METADATA", b'{"item'),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_newest_checkpoint_gives_way_to_the_one_before(cli, whole, tmp_path, file, content):
    run = _unfinish(whole, tmp_path / "run")
    path = run / "checkpoints" / str(STEPS) / file
    assert path.exists()
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    told = _go_on(cli, run)
    assert f"checkpoint {STEPS} of {run} is broken" in told
    assert f"resuming {run} at step 12000\n" in told
    assert (run / "broken" / str(STEPS)).is_dir()
    assert_same(run, whole)


@pytest.mark.slow
def test_going_on_under_another_jax_is_told(cli, whole, tmp_path):
    """Samples are others, as dropout would be, of which this model has none; one from before the note says nothing."""
    run = _unfinish(whole, tmp_path / "run", newest=12_000)
    told = _go_on(cli, run, env={"JAX_THREEFRY_PARTITIONABLE": "0"})
    assert "trained with jax_threefry_partitionable True (now False): what follows may not be bit for bit" in told
    assert_same(run, whole, but=("samples",))

    run = _unfinish(whole, tmp_path / "older", newest=12_000)
    notes = run / "checkpoints" / "12000" / "_CHECKPOINT_METADATA"
    edited = json.loads(notes.read_text())
    assert edited["custom_metadata"]["numerics"].pop("jax") == jax.__version__
    notes.write_text(json.dumps(edited))
    (notes.parent / "files.json").unlink()
    assert "bit for bit" not in _go_on(cli, run)
    assert_same(run, whole)


@pytest.mark.slow
def test_nothing_but_broken_checkpoints_begins_anew(cli, whole, tmp_path):
    run = _unfinish(whole, tmp_path / "run")
    steps = checkpoint_steps(run / "checkpoints")
    for step in steps:
        shutil.rmtree(run / "checkpoints" / str(step) / "params")
    told = _go_on(cli, run)
    assert all(f"checkpoint {step} of {run} is broken" in told for step in steps)
    assert f"resuming {run}" not in told and "training begins at step 0\n" in told
    assert_same(run, whole)


@pytest.mark.slow
@pytest.mark.parametrize("newest", [12_000, 11_000], ids=["at a train line", "between two train lines"])
def test_lines_beyond_the_checkpoint_and_half_a_line_are_cut(cli, whole, tmp_path, newest):
    run = _unfinish(whole, tmp_path / "run", newest=newest)
    log = run / "metrics.jsonl"
    assert '"step": 12003' in log.read_text()
    log.write_text(log.read_text() + '{"step": 12003, "split": "train", "lo')
    assert f"resuming {run} at step {newest}\n" in _go_on(cli, run)
    assert_same(run, whole)


@pytest.mark.slow
def test_killed_between_the_last_step_and_eval_json(cli, whole, tmp_path):
    run = _unfinish(whole, tmp_path / "run")
    before = tree(run / "checkpoints")
    _go_on(cli, run)
    assert tree(run / "checkpoints") == before
    assert_same(run, whole)


@pytest.mark.slow
def test_what_killed_processes_leave_blocks_nothing(cli, tmp_path):
    """A directory half made, an empty one in the run's place, parts of files, Orbax's own half checkpoint."""
    half = tmp_path / ".run.k1ll3d"
    half.mkdir()
    (half / "config.json.part").write_text('{"mod')
    run = tmp_path / "run"
    run.mkdir()
    assert cli.train("--run-dir", run).code == 0
    whole = results(run)
    _unfinish(run, tmp_path / "other")
    shutil.rmtree(run)
    (tmp_path / "other").rename(run)
    (run / "checkpoints" / "200").rename(run / "checkpoints" / "200.orbax-checkpoint-tmp-1")
    (run / "eval.json.part").write_text("{")
    (run / "metrics.jsonl.part").write_text("{")
    done = cli.train("--run-dir", run)
    assert done.code == 0, done.stderr
    assert results(run)["state"] == whole["state"] and results(run)["metrics"] == whole["metrics"]


NO_ROOM = """\
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
"""Runs python with the arguments after the first, which is the size in bytes that no file may grow beyond."""
BIG = ("--model.d-hidden", 4000, "--steps", 3000, "--eval.every", 1000, "--optim.lr", 0.001)
"""Parameters of 176 kB: a checkpoint's files are the largest that the run writes."""


@pytest.fixture(scope="module")
def big(cli) -> Path:
    return cli.trained("big", *BIG)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [100_000, 6_000], ids=["checkpoints do not fit", "nothing but settings fits"])
def test_a_full_disk_leaves_the_checkpoint_before(cli, big, tmp_path, limit):
    """No file may grow beyond a limit, as on a disk with no room left; with room, the run goes on."""
    run = _unfinish(big, tmp_path / "run", newest=2000)
    before = tree(run / "checkpoints" / "2000")

    failed = cli.python("-c", NO_ROOM, limit, "train.py", cli.config, "--run-dir", run, *BIG)
    assert tree(run / "checkpoints" / "2000") == before
    assert checkpoint_steps(run / "checkpoints")[-1] == 2000
    assert not (run / "eval.json").exists()
    done = cli.train("--run-dir", run, *BIG)
    assert done.code == 0 and f"resuming {run} at step 2000" in done.stdout
    got, want = results(run), results(big)
    assert {**got, "files": 0} == {**want, "files": 0}
    errors = [line for line in failed.stderr.splitlines() if not line.startswith("step ")]
    assert failed.code == 2 and len(errors) == 1, errors[:3] + errors[-3:]
    assert errors[0].startswith("error: run_dir ") and "File too large" in errors[0]


@pytest.mark.slow
def test_a_disk_that_is_full_from_the_start(cli, tmp_path):
    failed = cli.python("-c", NO_ROOM, 100, "train.py", cli.config, "--run-dir", tmp_path / "run")
    refused(failed, "run_dir", "File too large")
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {".lock"}  # which counts as free
    assert cli.train("--run-dir", tmp_path / "run").code == 0
