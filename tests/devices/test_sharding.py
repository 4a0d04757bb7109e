"""Several devices give what one gives, and the step compiles for hardware that is not here."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import jaxlm
from jaxlm.devices import mesh as mesh_module
from jaxlm.devices.mesh import make_mesh, state_sharding
from jaxlm.training import TrainState, make_chunk, make_step, optim
from jaxlm.training.setup import settle
from tests.conftest import NAMES, QUICK_COMPILATION, REPOSITORY

TRAIN = """
import json, sys
from pathlib import Path
import jax
import jaxlm

def config(name, example="window", **settings):
    data = jaxlm.DataConfig(path="text.txt", example=example)
    model = jaxlm.MlpConfig(d_embed=4, d_hidden=16, init="normal")
    rest = {"steps": 20, "batch_size": 12, "sample": jaxlm.SampleConfig(n=0), "plots": False} | settings
    return jaxlm.RunConfig(model=model, data=data, run_dir=name, optim=jaxlm.OptimConfig(lr=0.5), **rest)

quiet = lambda line: None
result = {"devices": jax.device_count()}
for example in ("window", "sequence"):
    path = jaxlm.train(config(f"{jax.device_count()}-{example}", example), say=quiet)
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    run = jaxlm.load_run(path, which="last")
    result[example] = {
        "lines": [[line["step"], line["split"], line["loss"]] for line in lines],
        "params": {name: leaf.tolist() for name, leaf in run.params.items()},
    }
result["score"] = jaxlm.score(run, "emma").nats.tolist()
result["texts"] = jaxlm.generate(run, n=4, max_tokens=10, key=jax.random.key(0))
if jax.device_count() > 1:
    try:
        jaxlm.train(config("refused", batch_size=30), say=quiet)
    except jaxlm.UserError as error:
        result["error"] = str(error)
    result["refused"] = Path("refused").exists()
Path(f"{jax.device_count()}.json").write_text(json.dumps(result))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    """What the same two runs give on one device and on four, each in a process of its own."""
    directory = tmp_path_factory.mktemp("devices")
    (directory / "text.txt").write_text("\n".join(NAMES))
    started = []
    for devices in (1, 4):
        flags = f"{QUICK_COMPILATION} --xla_force_host_platform_device_count={devices}"
        env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)}
        env["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # two processes would write the same entries
        command = [sys.executable, "-W", "error", "-c", TRAIN]
        started.append(subprocess.Popen(command, cwd=directory, env=env, stderr=subprocess.PIPE, text=True))
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    return {devices: json.loads(Path(directory / f"{devices}.json").read_text()) for devices in (1, 4)}


@pytest.mark.parametrize("example", ["window", "sequence"])
def test_four_devices_give_what_one_gives(results, example):
    assert [results[devices]["devices"] for devices in (1, 4)] == [1, 4]
    one, four = results[1][example], results[4][example]
    assert [line[:2] for line in one["lines"]] == [line[:2] for line in four["lines"]]
    assert [line[:2] for line in one["lines"]] == [
        [0, "dev"],
        [0, "train_sample"],
        [20, "train"],
        [20, "dev"],
        [20, "train_sample"],
    ]
    one_losses, four_losses = ([line[2] for line in result["lines"]] for result in (one, four))
    np.testing.assert_allclose(one_losses, four_losses, rtol=0, atol=1e-5)
    for name in one["params"]:
        np.testing.assert_allclose(one["params"][name], four["params"][name], rtol=0, atol=1e-5)


def test_four_devices_score_and_sample_as_one_does(results):
    np.testing.assert_allclose(results[1]["score"], results[4]["score"], rtol=0, atol=1e-5)
    assert results[1]["texts"] == results[4]["texts"]


def test_a_batch_that_the_devices_do_not_divide_is_refused(results):
    assert "batch_size wants a multiple of the 4 devices, got 30; take 32" in results[4]["error"]
    assert results[4]["refused"] is False


@pytest.mark.parametrize("example", ["window", "sequence"])
@pytest.mark.parametrize("model", [jaxlm.MlpConfig(), jaxlm.NgramConfig(order=3)], ids=["mlp", "ngram"])
def test_the_train_step_lowers_for_gpus_and_tpus(tmp_path, model, example):
    (tmp_path / "text.txt").write_text("\n".join(NAMES))
    config = jaxlm.RunConfig(
        model=model, data=jaxlm.DataConfig(path=str(tmp_path / "text.txt"), example=example), steps=4, batch_size=8
    )
    job = settle(config)
    optimizer = optim.transformation(config.optim, 4)
    rate = optim.schedule(config.optim, 4)
    chunk = make_chunk(make_step(job.model, optimizer), job.batcher, rate, job.mesh, seed=0)
    params = jax.eval_shape(job.model.init, jax.random.key(0), jnp.zeros((1, 3), jnp.int32))
    state = TrainState(step=jnp.int32(0), params=params, opt_state=jax.eval_shape(optimizer.init, params))
    tokens = jax.device_put(job.host)
    lowered = (
        jax.jit(chunk).trace(state, tokens, job.batcher.draw(0, range(2))).lower(lowering_platforms=("cuda", "tpu"))
    )
    program = lowered.as_text()
    assert "stablehlo.while" in program
    assert re.search(r'sharding_constraint .*\{"data"\}', program)  # the batch lies along the data axis


def test_the_mesh_has_all_devices_along_data():
    mesh = make_mesh()
    assert dict(mesh.shape) == {"data": jax.device_count(), "fsdp": 1, "tensor": 1}


def test_state_sharding_names_a_place_for_every_leaf():
    state = {"params": {"a": np.zeros((2, 3)), "b": {"c": np.zeros(4)}}, "step": np.int32(0)}
    placed = state_sharding(make_mesh(), state)
    chex.assert_trees_all_equal_structs(placed, state)
    assert {leaf.spec for leaf in jax.tree.leaves(placed)} == {PartitionSpec()}


def test_the_table_of_axes_is_read_by_the_end_of_a_path(monkeypatch):
    table = (("mlp/up", PartitionSpec("fsdp", "tensor")), ("up", PartitionSpec("tensor")))
    monkeypatch.setattr(mesh_module, "PARAMETER_AXES", table)
    tree = {"opt_state": {"mu": {"mlp": {"up": 0, "down": 0}}}, "params": {"mlp": {"up": 0}, "up": 0}}
    placed = state_sharding(make_mesh(), tree)
    assert placed["params"]["mlp"]["up"].spec == placed["opt_state"]["mu"]["mlp"]["up"].spec == table[0][1]
    assert placed["params"]["up"].spec == table[1][1]
    assert placed["opt_state"]["mu"]["mlp"]["down"].spec == PartitionSpec()


def test_a_device_that_is_not_here_is_the_users_mistake(tmp_path):
    """In a process of its own: the platform is settled once."""
    code = "from jaxlm import sharding\nsharding.choose_device('tpu')"
    env = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True
    )
    if done.returncode == 0:
        pytest.skip("there is a TPU")
    assert done.stderr.splitlines()[-1].startswith("jaxlm.errors.UserError: device wants tpu, but JAX finds none")
