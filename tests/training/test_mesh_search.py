"""The search for the fastest mesh: all that divide the devices, and their order by planted times."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import pytest

import jaxlm
from jaxlm.cli.plan import table
from jaxlm.config import MeshConfig
from jaxlm.devices import topology
from jaxlm.devices.mesh import make_mesh
from jaxlm.errors import UserError
from jaxlm.training import mesh_search
from jaxlm.training.mesh_search import Candidate, meshes, ranked, search
from jaxlm.training.plan import Compiled, Roofline, program
from tests.devices.absent import Device
from tests.training.test_plan import TINY, installed

MIB = 2**20


def step(memory: int = MIB) -> Compiled:
    return Compiled(memory, 0, 0, 0, 1e12, (), 1.0)


def candidate(data: int, products: float, links: float, *, fits: bool = True, predictions: int = 1000) -> Candidate:
    mesh = MeshConfig(data=data, fsdp=8 // data, tensor=1)
    return Candidate(mesh, step(), Roofline(products, 0.0, links), predictions, fits)


@pytest.mark.parametrize(("devices", "count"), [(1, 1), (6, 9), (8, 10), (32, 21)])
def test_every_mesh_of_the_devices_is_there_once(devices, count):
    found = [tuple(mesh.sizes.values()) for mesh in meshes(devices)]
    assert len(found) == len(set(found)) == count
    assert {math.prod(sizes) for sizes in found} == {devices}


def test_the_fastest_that_fits_comes_first_then_those_that_do_not_then_the_refused():
    hidden, seen = candidate(8, 3.0, 3.0), candidate(4, 4.0, 1.0)  # in turn 6 and 5, overlapped 3 and 4
    large = candidate(2, 1.0, 0.0, fits=False)
    refused = Candidate(MeshConfig(data=1, fsdp=1, tensor=8), "mesh.tensor wants ...")
    assert ranked([refused, large, hidden, seen]) == [seen, hidden, large, refused]


def test_meshes_with_other_batches_are_compared_by_the_prediction():
    small, large = candidate(8, 1.0, 0.0, predictions=1000), candidate(4, 1.5, 0.0, predictions=2000)
    assert ranked([small, large]) == [large, small]


def test_the_table_has_the_order_and_names_the_settings():
    lines = table(
        ranked([candidate(8, 3.0, 3.0), candidate(4, 0.004, 0.001), Candidate(MeshConfig(tensor=8), "heads wants ...")])
    )
    assert lines[0].split("  ")[0] == "data x fsdp x tensor"
    assert [line.split()[:5] for line in lines[1:3]] == [["4", "x", "2", "x", "1"], ["8", "x", "1", "x", "1"]]
    assert "4 ms" in lines[1] and "5 ms" in lines[1] and "200,000" in lines[1]
    assert lines[3].endswith("-1 x 1 x 8  heads wants ...")
    assert lines[4] == "fastest that fits: --mesh.data 4 --mesh.fsdp 2 --mesh.tensor 1"
    assert table([candidate(8, 1.0, 0.0, fits=False)])[-1] == "none of them fits"


@pytest.fixture
def eight_devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Eight devices of which only a mesh of them is made, and steps that are not compiled; the meshes asked for."""
    asked: list[str] = []

    def planned(config: Any, name: str, devices: Any) -> Any:
        made, rows, length = program(config, make_mesh(config.mesh, devices))
        asked.append("x".join(map(str, made.mesh.shape.values())))
        return made, rows, length, step()

    monkeypatch.setattr(topology, "devices_of", lambda slice: [Device(n, (0, n, 0)) for n in range(8)])
    monkeypatch.setattr(mesh_search, "planned_step", planned)
    yield asked


def test_a_mesh_that_the_batch_or_the_model_refuses_does_not_end_the_search(eight_devices):
    found = search(dataclasses.replace(TINY, batch_size=4), "h100x8")
    assert len(found) == 10
    by_mesh = {tuple(one.mesh.sizes.values()): one for one in found}
    assert "batch_size wants a multiple of the 8 devices, got 4; take 8" in str(by_mesh[8, 1, 1].step)
    assert by_mesh[4, 1, 2].roofline and by_mesh[4, 1, 2].fits
    assert eight_devices == ["4x1x2", "2x2x2", "2x1x4", "1x4x2", "1x2x4", "1x1x8"]


def test_a_setting_that_no_mesh_can_have_is_a_line(eight_devices):
    with pytest.raises(UserError, match=r"^model.vocab_size wants a number for a plan"):
        search(dataclasses.replace(TINY, model=jaxlm.GptConfig()), "h100x8")


@pytest.mark.slow
def test_a_search_compiles_each_mesh_and_the_model_refuses_some():
    if not installed("h100"):
        pytest.skip("wants jaxlm[plan-cuda]")
    seen: list[Candidate] = []
    found = search(TINY, "h100x4", seen.append)
    assert len(seen) == len(found) == 6 and all(one in found for one in seen)
    assert all(one.fits for one in found[:5])
    assert found[5].mesh.tensor == 4
    assert str(found[5].step).startswith("mesh.tensor wants a divisor of the model's 2 heads, got 4")
    times = [one.roofline.in_turn for one in found if one.roofline]
    assert times == sorted(times)
