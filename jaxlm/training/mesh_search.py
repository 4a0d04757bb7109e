"""Which mesh of some devices is the fastest for a run, by the train step compiled for each of them."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxlm.config import MeshConfig, RunConfig
from jaxlm.devices import peaks, topology
from jaxlm.devices.mesh import make_mesh
from jaxlm.errors import UserError
from jaxlm.training.plan import Compiled, Roofline, dtype_of, planned_step, program, room


class Candidate(NamedTuple):
    """A mesh and the train step compiled for it."""

    mesh: MeshConfig
    step: Compiled | str
    """Why there is none, where the model, the batch or the compiler refuses the mesh."""
    roofline: Roofline | None = None
    """The least seconds of a step; None without one."""
    predictions: int = 1
    """Predictions of a step."""
    fits: bool = False
    """True if a device's memory holds the step."""


def meshes(devices: int) -> list[MeshConfig]:
    """All meshes of data x fsdp x tensor with so many devices."""
    sizes = [size for size in range(devices, 0, -1) if devices % size == 0]
    return [
        MeshConfig(data=data, fsdp=fsdp, tensor=devices // (data * fsdp))
        for data in sizes
        for fsdp in sizes
        if devices % (data * fsdp) == 0
    ]


def search(config: RunConfig, on: str, done: Callable[[Candidate], None] = lambda one: None) -> list[Candidate]:
    """Compile the train step of a run for every mesh of some devices: the fastest that fits comes first.

    `on` names them as `topology.parse_slice` reads it; each candidate is handed to `done` as soon as it is compiled.
    Raises UserError for settings that no mesh can have, and for a compiler that is not installed.
    """
    slice = topology.parse_slice(on)
    devices = topology.devices_of(slice)
    with topology.tracing_for(slice.name):
        program(config, make_mesh(absent=devices[:1]))
    found = []
    for mesh in meshes(len(devices)):
        found.append(_compiled(dataclasses.replace(config, mesh=mesh), slice.name, devices))
        done(found[-1])
    return ranked(found)


def ranked(found: list[Candidate]) -> list[Candidate]:
    """Those that fit come first, then those that do not, then those that are refused; each by seconds a prediction.

    The seconds are those of computing and exchanging in turn: what a compiler overlaps is not known from a bound.
    """

    def key(one: Candidate) -> tuple[bool, bool, float]:
        seconds = one.roofline.in_turn / one.predictions if one.roofline else 0.0
        return one.roofline is None, not one.fits, seconds

    return sorted(found, key=key)


def _compiled(config: RunConfig, name: str, devices: list[Any]) -> Candidate:
    try:
        training, rows, length, step = planned_step(config, name, devices)
    except UserError as error:
        return Candidate(config.mesh, str(error))
    if isinstance(step, str):
        return Candidate(config.mesh, step)
    roofline = step.at_peak(peaks.DEVICES[name], len(devices), dtype_of(training))
    return Candidate(config.mesh, step, roofline, rows * length, step.memory <= room(config, name))
