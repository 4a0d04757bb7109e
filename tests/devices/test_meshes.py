"""Every model on meshes of eight virtual devices gives what it gives on one; each test has a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.conftest import QUICK_COMPILATION, REPOSITORY
from tests.devices import eight_devices

pytestmark = pytest.mark.slow
Results = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The results of a part of eight_devices.py, computed when they are first asked for."""
    known: dict[str, dict[str, Any]] = {}

    def of_part(part: str) -> dict[str, Any]:
        if part not in known:
            path = tmp_path_factory.mktemp("meshes") / "result.json"
            flags = f"{QUICK_COMPILATION} --xla_force_host_platform_device_count=8"
            env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)}
            command = [sys.executable, "-m", "tests.devices.eight_devices", part, str(path)]
            done = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            known[part] = json.loads(path.read_text())
        return known[part]

    return of_part


@pytest.mark.parametrize("mesh", eight_devices.FEW_MESHES)
@pytest.mark.parametrize("name", eight_devices.NAMES)
def test_steps_on_a_mesh_are_those_of_one_device(results, name, mesh):
    """Their losses, and the parameters and moments after them."""
    got = results("models")[f"{name}/{mesh}"]
    np.testing.assert_allclose(got["got"], got["one"], rtol=1e-5)
    assert len(got["got"]) == (1 if name in eight_devices.COUNTED else eight_devices.STEPS)
    assert got["far"] < 2e-5
    split = {path for path, share in got["held"].items() if share < 1}
    assert bool(split) == (mesh != "data" and name not in eight_devices.COUNTED)


@pytest.mark.parametrize("mesh", eight_devices.MESHES)
@pytest.mark.parametrize("form", eight_devices.FORMS)
def test_a_gpt_learns_on_every_mesh_as_on_one_device(results, form, mesh):
    one, got = (np.array(results(form)[name]["losses"]) for name in ("one", mesh))
    assert one[-1] < one[0] - 0.5
    np.testing.assert_allclose(got, one, rtol=0, atol=1e-5)


def test_a_device_holds_the_part_of_an_array_that_the_rules_give_it(results):
    """On 2 x 2 x 2, of parameters and of their moments: a half along each mesh axis that a dimension has."""
    gpt = {
        "embed": 1 / 4,  # vocab, embed
        "position": 1 / 2,  # length, embed
        "norm1_scale": 1 / 2,  # layers, embed
        "q": 1 / 4,  # layers, embed, heads, head
        "k_bias": 1 / 2,  # layers, heads, head
        "attend": 1 / 4,  # layers, heads, head, embed
        "up": 1 / 4,  # layers, embed, mlp
        "up_bias": 1 / 2,  # layers, mlp
        "down": 1 / 4,  # layers, mlp, embed
        "down_bias": 1 / 2,  # layers, embed
    }
    held = results("models")["gpt/all"]["held"]
    for name, share in gpt.items():
        assert held[f"params/{name}"] == held[f"opt_state/0/trace/{name}"] == share, name
    rnn = results("models")["gru/all"]["held"]
    assert [rnn[f"params/{name}"] for name in ("gates", "out_bias", "start")] == [1 / 4, 1 / 2, 1 / 2]
    odd = results("models")["rean-softmax-random/all"]["held"]
    assert odd["params/special"] == 1 / 2  # 257 rows are not split, their width is


def test_the_memory_of_parameters_and_moments_falls_with_fsdp(results):
    """By the compiled step's own analysis; what is left whole are counts, a few bytes."""
    found = results("memory")
    assert found["fsdp 1"] == pytest.approx(found["state"], rel=0.01)
    for fsdp in (2, 4, 8):
        assert found[f"fsdp {fsdp}"] < 1.1 * found["state"] / fsdp
        assert found[f"counted {fsdp}"] == pytest.approx(found[f"fsdp {fsdp}"], rel=0.01)


@pytest.mark.parametrize("mesh", ["data", "fsdp", "all"])
def test_muon_sends_its_matrices_once_and_not_for_each_iteration(results, mesh):
    """Beside three layers the zeros of five more are sent: eight devices take a layer each."""
    found = results("muon")
    assert found[f"{mesh}/5"] == found[f"{mesh}/1"] > 0
    assert found[f"{mesh}/5"] < 3 * 8 / 3 * found["matrices"]


@pytest.mark.parametrize("mesh", ["data", "fsdp"])
def test_micro_batches_on_a_mesh_give_the_losses_of_one_device(results, mesh):
    found = results("accumulated")
    one, got = (np.array(found[name]["losses"]) for name in ("one/4", f"{mesh}/4"))
    assert one[-1] < one[0] - 0.3
    np.testing.assert_allclose(got, one, rtol=0, atol=1e-5)
    np.testing.assert_allclose(one, found["one/1"]["losses"], rtol=0, atol=1e-5)


def test_copies_of_a_model_exchange_the_gradients_of_all_micro_batches_once(results):
    """Copies that share parameters gather and scatter them for each, since none has room for a whole gradient."""
    found = results("accumulated")
    assert found["data/4"]["arrays"] == found["data/1"]["arrays"] == [1]  # on CPUs, one vector
    assert found["data/4"]["sent"] == pytest.approx(found["data/1"]["sent"], rel=0.01)
    assert sum(found["fsdp/4"]["sent"].values()) > 3 * sum(found["fsdp/1"]["sent"].values())


def test_a_kernel_gets_each_devices_own_rows_and_heads(results):
    found = results("heads")
    assert all(shape == [1, 128, 2, 16] for shape in found["shapes"])
    assert found["rows"] < 1e-5 and found["documents"] < 1e-5


@pytest.mark.parametrize("opened", ["8", "4", "2", "1"])
@pytest.mark.parametrize("saved", ["8", "1"])
def test_a_checkpoint_opens_on_any_mesh_and_training_goes_on(results, saved, opened):
    got, same = (results("moved")[f"{saved} to {on}"] for on in (opened, saved))
    assert got["far"] == 0
    np.testing.assert_allclose(got["losses"], same["losses"], rtol=0, atol=1e-5)
    shares = {"8": 1 / 4, "4": 1 / 4, "2": 1 / 2, "1": 1}  # along fsdp and tensor; copies along data have the same
    assert got["held"]["params/up"] == shares[opened]
