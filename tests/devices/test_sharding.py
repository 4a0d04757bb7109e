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
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

import jaxlm
from jaxlm.cli.train_command import train_command
from jaxlm.config.mesh import MeshConfig
from jaxlm.config.serialization import from_json, settings_that_change_numbers, to_json
from jaxlm.devices.mesh import check_batch, make_mesh, row_sharder, rows_multiple, spec_of, state_sharding
from jaxlm.training import optim
from jaxlm.training.setup import set_up
from jaxlm.training.state import TrainState
from jaxlm.training.step import language_loss, make_chunk, make_step
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
    return jaxlm.RunConfig(model=model, data=data, run_dir=name, optim=jaxlm.OptimConfig(lr=0.1), **rest)

quiet = lambda line: None
result = {"devices": jax.device_count()}
for example in ("window", "sequence"):
    path = jaxlm.train(config(f"{jax.device_count()}-{example}", example), log=quiet)
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
        jaxlm.train(config("refused", batch_size=30), log=quiet)
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


@pytest.mark.slow
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
    setup = set_up(config)
    optimizer = optim.transformation(config.optim, 4)
    rate = optim.schedule(config.optim, 4)
    chunk = jax.jit(make_chunk(make_step(setup.model, language_loss, optimizer), rate, 0), static_argnums=3)
    params = jax.eval_shape(setup.model.init, jax.random.key(0), jnp.zeros((1, 3), jnp.int32))
    state = TrainState(step=jnp.int32(0), params=params, opt_state=jax.eval_shape(optimizer.init, params))
    traced = chunk.trace(state, setup.dataset.batches(0, 2), {}, 2)
    assert "stablehlo.while" in traced.lower(lowering_platforms=("cuda", "tpu")).as_text()


def test_the_rows_of_a_batch_are_split_over_data_and_fsdp():
    sharder = jax.jit(row_sharder(make_mesh()), static_argnums=1)
    program = sharder.trace(np.zeros((2, 8)), 1).lower(lowering_platforms=("cuda",)).as_text()
    assert re.search(r'sharding_constraint .*\{"data", "fsdp"\}', program)


def virtual(**sizes: int) -> AbstractMesh:
    """A mesh of devices that are not there."""
    shape = {"data": 1, "fsdp": 1, "tensor": 1} | sizes
    return AbstractMesh(tuple(shape.values()), tuple(shape))


def test_all_devices_lie_along_data_unless_the_settings_say_otherwise():
    assert dict(make_mesh().shape) == {"data": jax.device_count(), "fsdp": 1, "tensor": 1}
    assert dict(make_mesh(MeshConfig(fsdp=-1, data=1)).shape) == {"data": 1, "fsdp": jax.device_count(), "tensor": 1}
    assert set(make_mesh().axis_types) == {AxisType.Auto}


@pytest.mark.parametrize(
    ("sizes", "got", "advice"),
    [
        ({"data": 3}, "data 3 x fsdp 1 x tensor 1", "--mesh.data 8 --mesh.fsdp 1 --mesh.tensor 1"),
        ({"data": 2, "fsdp": 3}, "data 2 x fsdp 3 x tensor 1", "--mesh.data 2 --mesh.fsdp 4 --mesh.tensor 1"),
        ({"tensor": 3}, "data -1 x fsdp 1 x tensor 3", "--mesh.data 2 --mesh.fsdp 1 --mesh.tensor 4"),
        (
            {"data": 1, "fsdp": 1, "tensor": 16},
            "data 1 x fsdp 1 x tensor 16",
            "--mesh.data 1 --mesh.fsdp 1 --mesh.tensor 8",
        ),
    ],
)
def test_sizes_of_another_product_are_refused_with_the_nearest_mesh(monkeypatch, sizes, got, advice):
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    with pytest.raises(jaxlm.UserError) as error:
        make_mesh(MeshConfig(**sizes))
    assert str(error.value) == (
        f"mesh.data, mesh.fsdp and mesh.tensor want a product of 8, the number of devices, got {got}; take {advice}"
    )


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"data": 0}, "mesh.data wants a number >= 1, got 0"),
        ({"fsdp": -2}, "mesh.fsdp wants a number >= 1, got -2"),
        ({"tensor": -1}, "mesh.tensor wants a number of devices, got -1, which mesh.data has already; take 1"),
    ],
)
def test_sizes_that_no_devices_have_are_refused(sizes, message):
    with pytest.raises(jaxlm.UserError) as error:
        MeshConfig(**sizes)
    assert str(error.value) == message


def test_a_mesh_changes_no_numbers_and_is_set_on_the_command_line(tmp_path):
    plain = jaxlm.RunConfig(model=jaxlm.MlpConfig(), steps=1)
    config = train_command(tmp_path / "config.py", plain, ["--mesh.data", "2", "--mesh.fsdp", "2"]).config
    assert config.mesh == MeshConfig(data=2, fsdp=2)
    assert from_json(to_json(config)) == config
    assert not any(name.startswith("mesh") for name in settings_that_change_numbers(to_json(config)))


def test_rows_are_split_over_data_and_fsdp():
    mesh: Any = virtual(data=2, fsdp=3, tensor=5)
    assert rows_multiple(mesh) == 6
    with pytest.raises(jaxlm.UserError, match="batch_size wants a multiple of the 6 devices, got 8; take 12"):
        check_batch(8, mesh)


def test_moments_lie_as_their_parameters_and_all_else_is_replicated():
    params = {"a": np.zeros((4, 6)), "b": {"a": np.zeros((4, 6)), "c": np.zeros(4)}, "free": np.zeros((4, 6))}
    axes = {"a": ("embed", "mlp"), "b/a": ("mlp", "embed"), "b/c": ("embed",)}
    optimizer = optax.chain(optax.clip(1.0), optax.masked(optax.adam(0.1), {"a": True, "b": True, "free": False}))
    state = TrainState(step=np.array(0, np.int32), params=params, opt_state=jax.eval_shape(optimizer.init, params))
    mesh: Any = virtual(fsdp=2, tensor=2)
    lies = state_sharding(mesh, state, axes)
    chex.assert_trees_all_equal_structs(lies, state)
    adam = lies.opt_state[1].inner_state[0]
    for tree in (lies.params, adam.mu, adam.nu):
        assert tree["a"].spec == PartitionSpec("fsdp", "tensor")
        assert tree["b"]["a"].spec == PartitionSpec("tensor", "fsdp")
        assert tree["b"]["c"].spec == PartitionSpec("fsdp")
    assert lies.params["free"].spec == lies.step.spec == adam.count.spec == PartitionSpec()
    reduced = {"params": params, "rows": {"a": np.zeros((4, 1))}}
    placed = state_sharding(mesh, TrainState(step=np.array(0, np.int32), params=params, opt_state=reduced), axes)
    assert placed.opt_state["rows"]["a"].spec == PartitionSpec()  # another shape than the parameter's


def test_a_dimension_that_the_devices_do_not_divide_is_replicated_but_heads_are_refused():
    mesh: Any = virtual(fsdp=2, tensor=4)
    assert spec_of(mesh, (27, 6), ("vocab", "embed")) == PartitionSpec(None, "fsdp")
    assert spec_of(mesh, (8, 4), ("mlp", "vocab")) == PartitionSpec("tensor", None)  # one dimension for each mesh axis
    assert spec_of(mesh, (2, 8, 4, 2), ("layers", "embed", "heads", "head")) == PartitionSpec(
        None, "fsdp", "tensor", None
    )
    for axis in ("heads", "kv"):
        with pytest.raises(jaxlm.UserError) as error:
            spec_of(mesh, (8, 6, 2), ("embed", axis, "head"))
        assert str(error.value) == f"mesh.tensor wants a divisor of the model's 6 {axis}, got 4; take 1, 2, 3, 6"
    with pytest.raises(ValueError, match="want an array of 1 dimensions"):
        spec_of(mesh, (8, 6), ("embed",))
    with pytest.raises(ValueError, match="got 'width'"):
        spec_of(mesh, (8,), ("width",))


def test_a_device_that_is_not_here_is_the_users_mistake(tmp_path):
    """In a process of its own: the platform is settled once."""
    code = "from jaxlm.devices import platform\nplatform.choose_device('tpu')"
    env = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True
    )
    if done.returncode == 0:
        pytest.skip("there is a TPU")
    assert done.stderr.splitlines()[-1].startswith("jaxlm.errors.UserError: device wants tpu, but JAX finds none")
