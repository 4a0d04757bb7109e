"""The speed of training on this machine, measured."""

import time

import jax

from jaxlm.config import RunConfig
from jaxlm.devices import peaks
from jaxlm.devices.mesh import make_mesh

FIRST_GUESS = 0.25
"""Share of the speed of large products that a training is guessed to reach before it is measured."""
SECONDS, LEAST_STEPS = 1.0, 3
"""How long steps are measured, and how many at least."""


def guessed_speed(config: RunConfig) -> float:
    """Guess the operations a second of a training: a share of those of large products on the run's devices."""
    return FIRST_GUESS * peaks.flops_per_second(make_mesh(config.mesh))


def seconds_a_step(config: RunConfig) -> float:
    """Measure a step of a run: compile it, and train for about a second without a run directory."""
    job = config.model.prepare(config, restart=True, dry_run=True, log=lambda line: None)
    state, _ = job.run_chunk(job.initial_state(), 0, 1)
    jax.block_until_ready(state)
    began, steps = time.perf_counter(), 0
    while steps < LEAST_STEPS or time.perf_counter() - began < SECONDS:
        state, _ = job.run_chunk(state, steps + 1, 1)
        jax.block_until_ready(state)
        steps += 1
    return (time.perf_counter() - began) / steps
