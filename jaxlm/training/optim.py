"""Optimisers and learning-rate schedules: an OptimConfig becomes an Optax transformation."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxlm.config import OptimConfig, check
from jaxlm.errors import UserError
from jaxlm.models.base import Axes
from jaxlm.training.matrices import Sides, map_sides
from jaxlm.training.muon import scale_by_muon

MOST_WARMUP = 0.2
"""Share of a run that a warm-up given in steps takes at most: a recipe's own is cut in a run much shorter than its."""


def schedule(config: OptimConfig, steps: int) -> optax.Schedule:
    """The learning rate of each step, counted from 0.

    constant: lr. piecewise: lr times every factor whose boundary is <= step. cosine: a linear rise over warmup_steps,
    then lr * (f + (1 - f) (1 + cos(pi t)) / 2) with t from 0 to 1 over the rest and f the end factor
    (Loshchilov and Hutter 2017, equation 5). linear: the rise, then lr * (f + (1 - f) (1 - t)). wsd: the rise, lr, and
    the fall of linear over the cooldown (Hu et al. 2024, "MiniCPM", section 4). Raises UserError where warm-up and
    cooldown leave no room for each other.
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
    if config.schedule == "wsd" or (config.schedule == "linear" and config.warmup):
        return _through(_corners(config, steps))
    if config.schedule == "linear":
        return optax.linear_schedule(config.lr, config.lr * config.end_factor, steps)
    return optax.constant_schedule(config.lr)


def _corners(config: OptimConfig, steps: int) -> dict[int, float]:
    """The steps between which the rate is linear, with the rate at each, of linear and wsd."""
    lr, warmup = config.lr, warmup_steps(config, steps)
    cooldown = in_steps(config.cooldown, steps) if config.schedule == "wsd" else steps - warmup
    if warmup + cooldown > steps:
        raise UserError(
            f"optim.cooldown wants at most the {steps - warmup:,} steps after the warm-up, got {config.cooldown:g}"
            + f" ({cooldown:,} steps)" * (config.cooldown < 1)
        )
    end = {steps: lr * config.end_factor} if cooldown else {}
    return {0: 0.0, warmup: lr, steps - cooldown: lr, **end}


def _through(corners: dict[int, float]) -> optax.Schedule:
    step_P, rate_P = (jnp.array(list(numbers), jnp.float32) for numbers in (corners.keys(), corners.values()))
    return lambda step: jnp.interp(jnp.asarray(step, jnp.float32), step_P, rate_P)


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


def transformation(config: OptimConfig, steps: int, axes: Axes | None = None) -> optax.GradientTransformation:
    """Build the optimiser with the config's schedule: see `update_rule`."""
    return update_rule(config, schedule(config, steps), axes)


def update_rule(config: OptimConfig, rate: optax.Schedule, axes: Axes | None = None) -> optax.GradientTransformation:
    """Build the optimiser with another schedule than the config's: clipping, then the update rule.

    `axes` are the model's, by which matrices are known. With skip_nonfinite the whole is an optax.apply_if_finite that
    never gives up: its state counts the gradients that were skipped, and the caller stops. Raises UserError, once there
    are parameters, where they have no logical axes and the settings want matrices.
    """
    if config.name == "sgd":
        rule = optax.sgd(rate, momentum=config.momentum or None)
    elif config.name == "adamw":
        mask = None if config.decay == "all" else partial(map_sides, lambda sides, x: sides is not None, axes or {})
        rule = optax.adamw(rate, *config.betas, eps=config.eps, weight_decay=config.weight_decay, mask=mask)
    else:
        rule = _muon(config, rate, axes or {})
    if config.clip is not None:
        rule = optax.chain(optax.clip_by_global_norm(config.clip), rule)
    return rule if config.skip_nonfinite is None else optax.apply_if_finite(rule, check.MOST)


def check_matrices(config: OptimConfig, axes: Axes, params: Callable[[], Any]) -> None:
    """Raise UserError where the settings want matrices and the parameters have none, or no logical axes."""
    wants = "optim.name muon" if config.name == "muon" else "optim.decay matrices"
    if config.name != "muon" and config.decay != "matrices":
        return
    if not any(jax.tree.leaves(map_sides(lambda sides, x: sides is not None, axes, params()))):
        raise UserError(
            f"{wants} wants a model with matrices between hidden layers, got one without: take optim.name adamw and "
            "optim.decay all"
        )


def _muon(config: OptimConfig, rate: optax.Schedule, axes: Axes) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024) for the matrices, AdamW for the rest.

    Muon: W <- W - r (s O + weight_decay W) with r = muon_lr * rate / lr. O is the orthogonal matrix next to Nesterov's
    momentum (its bias corrected) by five Newton-Schulz iterations, in each layer alone. The scale s makes up for the
    shape: sqrt(max(1, outputs / inputs)), by which a step changes the root mean square of a layer's outputs alike at
    all widths; or with muon_rms, muon_rms * sqrt(max(inputs, outputs)), by which s O has that root mean square (Liu et
    al. 2025, "Muon is scalable for LLM training", equation 4). AdamW's is about 0.2: then both rates mean the same.
    """

    def scale(sides: Sides, x: jax.Array) -> jax.Array:
        inputs, outputs = (math.prod(x.shape[place] for place in side) for side in sides)
        if config.muon_rms is None:
            return math.sqrt(max(1.0, outputs / inputs)) * x
        return config.muon_rms * math.sqrt(max(inputs, outputs)) * x

    share = config.muon_lr / config.lr
    matrices = optax.chain(
        scale_by_muon(config.muon_momentum, axes),
        optax.stateless(lambda updates, params: map_sides(scale, axes, updates)),
        optax.add_decayed_weights(config.weight_decay),
        optax.scale_by_learning_rate(lambda step: share * rate(step)),
    )
    decay = config.weight_decay if config.decay == "all" else 0.0
    return optax.partition(
        {"matrices": matrices, "rest": optax.adamw(rate, *config.betas, eps=config.eps, weight_decay=decay)},
        lambda tree: map_sides(lambda sides, x: "matrices" if sides else "rest", axes, tree),
    )


def count_parameters(params: object) -> int:
    """Count the numbers in a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
