"""E05: cross-entropy computed directly from logits against computing it by way of probabilities."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import NgramConfig
from jaxlm.exercises.lab import Lab, median_seconds, speed_against
from jaxlm.exercises.softmax import WAYS, closed_gradient
from jaxlm.models.initialization import untrained_params
from jaxlm.plots import pictures

BATCH = 4096
"""Predictions in the batch of the text."""
GPT2_SIZE = (256, 50_257)
"""Rows and vocabulary of the second measurement: GPT-2's vocabulary."""
STEPS = tuple(range(201))
"""Offsets of the logits that are tried, in nats."""


class LossComparison(NamedTuple):
    """Losses, gradients, numerical limits and times of each way to compute the loss, by its name in WAYS."""

    losses: dict[str, float]
    """Loss on one batch of the text in nats per token."""
    gradients_differ: dict[str, float]
    """Largest absolute difference of each gradient from the closed form."""
    last_shift: dict[str, int]
    """Largest offset of all logits, in nats, with finite loss and gradient."""
    last_gap: dict[str, int]
    """Largest gap between the target's logit and the largest one, in nats, with finite loss and gradient."""
    seconds: dict[tuple[int, str], float]
    """Median seconds by vocabulary and "WAY loss" or "WAY gradient"."""


def compare_losses(lab: Lab, *, rounds: int = 7, large: tuple[int, int] = GPT2_SIZE) -> LossComparison:
    """Compare the ways to compute the loss: their results, the logits at which they fail, and their times."""
    setup = lab.setup(NgramConfig(order=2))
    batch = setup.dataset.batch(np.resize(setup.dataset.rows["train"], BATCH))
    params, target_N = untrained_params(setup.config, setup.model), batch.target
    logits_NV = jax.jit(setup.model.next_logits)(params, batch.tok)
    both = {name: jax.jit(jax.value_and_grad(way))(logits_NV, target_N) for name, way in WAYS.items()}
    loss = {name: float(value) for name, (value, _) in both.items()}
    closed_NV = np.asarray(jax.jit(closed_gradient)(logits_NV, target_N))
    differ = {name: float(np.abs(gradient_NV - closed_NV).max()) for name, (_, gradient_NV) in both.items()}
    lab.log(f"same numbers, on {BATCH:,} predictions of the text under random logits:")
    for name in WAYS:
        lab.log(f"  {name:<11}  loss {loss[name]:.6f}, gradient within {differ[name]:.1e} of (softmax - one-hot) / N")
    shift, gap = _limits(lab)
    rng = np.random.default_rng(lab.seed)
    random_NV = jnp.asarray(rng.normal(size=large), jnp.float32)
    random_N = jnp.asarray(rng.integers(0, large[1], large[0]), jnp.int32)
    times = _times(lab, logits_NV, target_N, rounds) | _times(lab, random_NV, random_N, rounds)
    found = LossComparison(loss, differ, shift, gap, times)
    _answer(lab, found)
    pictures.bars(
        {"all logits moved up": shift, "the target's logit below the largest": gap},
        lab.picture("E05"),
        title=f"How far until loss or gradient is no number ({STEPS[-1]}: as far as was tried)",
        ylabel="nats",
    )
    return found


def _limits(lab: Lab) -> tuple[dict[str, int], dict[str, int]]:
    """Find the last of STEPS before a loss or gradient of two logits, of which the second is the target, is not finite.

    Returns the limits by way: of moving both logits up, and of moving the first up alone.
    """
    up_G = np.array(STEPS, np.float32)
    logits_2GNV = np.stack([np.stack([up_G, up_G], 1), np.stack([up_G, 0 * up_G], 1)])[:, :, None]
    last: tuple[dict[str, int], dict[str, int]] = {}, {}
    lab.log("the last step with a finite loss and gradient, where all logits move up, or the target's lies lower:")
    for name, way in WAYS.items():
        steps = jax.jit(jax.vmap(jax.vmap(jax.value_and_grad(way), (0, None)), (0, None)))
        loss_2G, gradient_2GNV = (np.asarray(x) for x in steps(logits_2GNV, np.ones(1, np.int32)))
        good_2G = np.isfinite(loss_2G) & np.isfinite(gradient_2GNV).all(axis=(2, 3))
        for found, good_G in zip(last, good_2G, strict=True):
            found[name] = STEPS[-1] if good_G.all() else int(np.argmin(good_G)) - 1
        lab.log(f"  {name:<11}  up {last[0][name]}, lower {last[1][name]}")
    return last


def _times(lab: Lab, logits_NV: jax.Array, target_N: jax.Array, rounds: int) -> dict[tuple[int, str], float]:
    N, V = logits_NV.shape
    calls: dict[str, Any] = {}
    bytes_of: dict[str, float] = {}
    functions = {f"{name} loss": way for name, way in WAYS.items()}
    functions |= {f"{name} gradient": jax.grad(way) for name, way in WAYS.items()}
    functions["closed gradient"] = closed_gradient
    for name, function in functions.items():
        compiled = jax.jit(function).lower(logits_NV, target_N).compile()
        calls[name] = lambda call=compiled: call(logits_NV, target_N)
        bytes_of[name] = (compiled.cost_analysis() or {}).get("bytes accessed", float("nan"))
    took = median_seconds(calls, rounds)
    lab.log(
        f"{N:,} rows of {V:,} logits ({4 * N * V / 1e6:.1f} MB), medians of calls in turn, memory moved as XLA has it:"
    )
    for name, time in took.items():
        lab.log(f"  {name:<20}  {1000 * time:9.3f} ms  {bytes_of[name] / 1e6:8.1f} MB")
    return {(V, name): time for name, time in took.items()}


def _answer(lab: Lab, found: LossComparison) -> None:
    loss, shift, gap, times = found.losses, found.last_shift, found.last_gap, found.seconds
    speeds = []
    for V in dict.fromkeys(V for V, _ in times):
        for way in ("by hand", "by softmax"):
            of_loss, of_gradient = (
                speed_against(times[V, f"from logits {what}"], times[V, f"{way} {what}"], way)
                for what in ("loss", "gradient")
            )
            speeds.append(f"at {V:,} logits a row the loss from logits was {of_loss}, its gradient {of_gradient}")
    apart = max(loss.values()) - min(loss.values())
    limits = ", ".join(f"{name} {shift[name]} and {gap[name]}" for name in WAYS)
    lab.log(
        f"answer: while logits are small the losses are the same (to within {apart:.1e}). How far all logits can move "
        f"up and how far the target can lie below the largest, of {STEPS[-1]} tried: {limits}. Exp overflows, and a "
        "small probability rounds to 0 before its log; from logits neither is formed: that is why it is preferred. As "
        f"for speed, {'; '.join(speeds)}. The gradient is (softmax - one-hot) / N, one expression over the logits, and "
        "XLA fuses the steps of every way: hence the speed is what was measured, not a rule."
    )
