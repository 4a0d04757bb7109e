"""Optimisers and learning-rate schedules: an OptimConfig becomes an Optax transformation."""

import jax
import optax

from jaxlm.config import OptimConfig
from jaxlm.errors import UserError

MOST_WARMUP = 0.2
"""Share of a run that a warm-up given in steps takes at most: a recipe's own is cut in a run much shorter than its."""


def schedule(config: OptimConfig, steps: int) -> optax.Schedule:
    """The learning rate of each step, counted from 0.

    constant: lr. piecewise: lr times every factor whose boundary is <= step. cosine: a linear rise over warmup_steps,
    then lr * (f + (1 - f) (1 + cos(pi t)) / 2) with t from 0 to 1 over the rest and f the end factor
    (Loshchilov and Hutter 2017, equation 5). linear: lr * (f + (1 - f) (1 - t)) with t from 0 to 1 over the run.
    """
    if config.schedule == "piecewise":
        factors: dict[int, float] = {}
        for boundary, factor in zip(config.boundaries, config.factors, strict=True):
            step = in_steps(boundary, steps)
            factors[step] = factors.get(step, 1.0) * factor
        return optax.piecewise_constant_schedule(config.lr, factors)
    if config.schedule == "cosine":
        warmup = warmup_steps(config, steps)
        return optax.warmup_cosine_decay_schedule(0.0, config.lr, warmup, steps, config.lr * config.end_factor)
    if config.schedule == "linear":
        return optax.linear_schedule(config.lr, config.lr * config.end_factor, steps)
    return optax.constant_schedule(config.lr)


def warmup_steps(config: OptimConfig, steps: int) -> int:
    """Steps of the warm-up in a run of `steps`: a share of the run as it is, steps up to MOST_WARMUP of the run.

    Raises UserError if a share leaves no step after it.
    """
    if config.warmup >= 1:
        return min(round(config.warmup), int(MOST_WARMUP * steps))
    warmup = in_steps(config.warmup, steps)
    if warmup >= steps:
        raise UserError(f"optim.warmup wants fewer than the run's {steps} steps, got {config.warmup:g}")
    return warmup


def warmup_note(config: OptimConfig, steps: int) -> list[str]:
    """A line to log if the warm-up is cut, else none."""
    if config.warmup < 1 or warmup_steps(config, steps) == round(config.warmup):
        return []
    return [
        f"optim.warmup {config.warmup:g} is cut to {warmup_steps(config, steps):,} steps, "
        f"{MOST_WARMUP:.0%} of the run's {steps:,}"
    ]


def in_steps(place: float, steps: int) -> int:
    """Convert a place in a run to steps: below 1 it is a fraction of the run."""
    return round(place * steps) if place < 1 else round(place)


def transformation(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """Build the optimiser: clipping, then the update rule with the config's schedule."""
    return update_rule(config, schedule(config, steps))


def update_rule(config: OptimConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    """Build the optimiser with another schedule than the config's."""
    if config.name == "sgd":
        rule = optax.sgd(rate, momentum=config.momentum or None)
    else:
        rule = optax.adamw(rate, *config.betas, eps=config.eps, weight_decay=config.weight_decay)
    return rule if config.clip is None else optax.chain(optax.clip_by_global_norm(config.clip), rule)


def count_parameters(params: object) -> int:
    """Count the numbers in a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
