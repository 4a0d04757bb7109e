"""Runs from the settings to eval.json on meshes of virtual devices, moved from one number of devices to another."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import NAMES, QUICK_COMPILATION, REPOSITORY

pytestmark = pytest.mark.slow
TRAIN = """
import json, sys
from pathlib import Path

import jax

import jaxlm
from jaxlm.config.mesh import MeshConfig

name, mesh = sys.argv[1], MeshConfig(*map(int, sys.argv[2].split("x")))
config = jaxlm.RunConfig(
    model=jaxlm.GptConfig.llama(context=16, n_layers=1, n_heads=4, n_kv_heads=2, d_model=32),
    data=jaxlm.DataConfig(path="text.txt", example="sequence"),
    optim=jaxlm.OptimConfig("adamw", lr=3e-3),
    steps=30,
    batch_size=16,
    run_dir=name,
    checkpoint=jaxlm.CheckpointConfig(every=10, keep=2),
    sample=jaxlm.SampleConfig(n=0),
    plots=False,
    mesh=mesh,
)
logged = []
path = jaxlm.train(config, log=logged.append)
result = {"logged": logged, "result": json.loads((path / "eval.json").read_text())}
for on, sizes in (("no mesh", MeshConfig()), ("mesh", mesh)):
    run = jaxlm.load_run(path, which="last", mesh=sizes)
    texts = jaxlm.generate(run, n=2, max_tokens=5, key=jax.random.key(0))
    texts += jaxlm.generate(run, n=2, max_tokens=5, draft=run, draft_tokens=2, key=jax.random.key(0))
    share = run.params["up"].addressable_shards[0].data.size / run.params["up"].size
    sums = {key: float(abs(leaf).sum()) for key, leaf in run.params.items()}
    nats = jaxlm.score(run, "emma").nats.tolist()
    drawn = run.untrained()
    at_start = {key: float(abs(leaf).sum()) for key, leaf in drawn.items()}
    alike = all(leaf.sharding.is_equivalent_to(run.params[key].sharding, leaf.ndim) for key, leaf in drawn.items())
    result[on] = {"nats": nats, "texts": texts, "share": share, "sums": sums, "start": at_start, "alike": alike}
try:
    jaxlm.load_run(path, mesh=MeshConfig(tensor=jax.device_count() if jax.device_count() > 2 else 3))
except jaxlm.UserError as error:
    result["refused"] = str(error)
Path(f"{name}.json").write_text(json.dumps(result))
"""


def started(directory: Path, name: str, mesh: str) -> subprocess.Popen[str]:
    devices = int(np.prod([int(size) for size in mesh.split("x")]))
    flags = f"{QUICK_COMPILATION} --xla_force_host_platform_device_count={devices}"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)}
    env["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # two processes would write the same entries
    command = [sys.executable, "-W", "error", "-c", TRAIN, name, mesh]
    return subprocess.Popen(command, cwd=directory, env=env, stderr=subprocess.PIPE, text=True)


def ended(directory: Path, processes: dict[str, subprocess.Popen[str]]) -> dict[str, Any]:
    for process in processes.values():
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    return {name: json.loads((directory / f"{name}.json").read_text()) for name in processes}


def half(directory: Path, run: str, name: str) -> None:
    """A copy of a finished run as it was at the checkpoint before its last."""
    shutil.copytree(directory / run, directory / name)
    shutil.rmtree(directory / name / "checkpoints" / "30")
    (directory / name / "eval.json").unlink()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Runs on eight devices and on one, and the second half of both on other devices."""
    directory = tmp_path_factory.mktemp("runs")
    (directory / "text.txt").write_text("\n".join(NAMES))
    whole = ended(directory, {name: started(directory, name, mesh) for name, mesh in (("8", "2x2x2"), ("1", "1x1x1"))})
    moves = {"8 to 1": "1x1x1", "8 to 2": "1x2x1", "8 to 4": "1x2x2", "1 to 8": "1x4x2"}
    moved: dict[str, Any] = {}
    for name, mesh in moves.items():
        half(directory, name[0], name)
        moved |= ended(directory, {name: started(directory, name, mesh)})
    return whole | moved


def test_a_run_on_a_mesh_ends_as_that_of_one_device(runs):
    one, eight = runs["1"]["result"], runs["8"]["result"]
    for split in ("train", "dev", "test"):
        assert eight[split]["nats_per_token"] == pytest.approx(one[split]["nats_per_token"], abs=1e-5)


@pytest.mark.parametrize("name", ["8 to 1", "8 to 2", "8 to 4", "1 to 8"])
def test_a_run_goes_on_elsewhere_with_the_losses_it_would_have_had(runs, name):
    moved, stayed = runs[name], runs[name[0]]
    assert any("resuming" in line and "step 20" in line for line in moved["logged"])
    for split in ("train", "dev", "test"):
        want = stayed["result"][split]["nats_per_token"]
        assert moved["result"][split]["nats_per_token"] == pytest.approx(want, abs=1e-5)


def test_sampling_needs_no_mesh_and_takes_one(runs):
    for on in ("no mesh", "mesh"):
        np.testing.assert_allclose(runs["8"][on]["nats"], runs["1"]["no mesh"]["nats"], rtol=0, atol=1e-4)
        assert runs["8"][on]["texts"] == runs["1"]["no mesh"]["texts"]
    assert runs["8"]["no mesh"]["share"] == 1
    assert runs["8"]["mesh"]["share"] == 1 / 4
    assert runs["8"]["mesh"]["sums"] == pytest.approx(runs["8"]["no mesh"]["sums"], rel=1e-6)


def test_untrained_parameters_are_drawn_where_they_lie(runs):
    for on in ("no mesh", "mesh"):
        assert runs["8"][on]["alike"], on
        assert runs["8"][on]["start"] == pytest.approx(runs["1"]["no mesh"]["start"], rel=1e-6)
    assert runs["8"]["mesh"]["start"] != runs["8"]["mesh"]["sums"]


def test_a_mesh_that_does_not_fit_the_run_is_a_line(runs):
    want = "mesh.tensor wants a divisor of the model's 4 heads, got 8; take 1, 2, 4"
    assert runs["8"]["refused"] == want
