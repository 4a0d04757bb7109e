"""The training step and the compiled chunk of steps, shared by training, the range test, benchmarks and tests."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlm.data.rows import Batch
from jaxlm.devices.layout import are_copies_on_cpus, summed_by_copies
from jaxlm.models.base import LanguageModel, Params, with_buffers
from jaxlm.ops import prng
from jaxlm.ops.losses import mean_square, nats_and_log_z, weighted_sum
from jaxlm.training.state import Chunk, TrainState

Loss = Callable[[LanguageModel[Any], Params, Batch, jax.Array | None], tuple[jax.Array, jax.Array]]
"""(model, params, batch, dropout key or None) -> (sum, count)."""


class StepMetrics(NamedTuple):
    """The metrics of one step."""

    loss: jax.Array
    """Mean loss of the batch, without penalties."""
    predictions: jax.Array
    """Predictions in the batch."""
    grad_norm: jax.Array | None = None
    """Global norm of the gradient before clipping; None where it is not asked for."""


Step = Callable[..., tuple[TrainState, StepMetrics]]
"""(state, batch, dropout key, buffers or None) -> (state, metrics)."""
MakeStep = Callable[..., Step]
"""(model, loss, optimizer, l2, accumulate, grad_norm) -> step; see `make_step`."""


def language_loss(
    model: LanguageModel[Any], params: Params, batch: Batch, key: jax.Array | None, *, z_loss: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy in nats of a batch of windows or sequences: (sum, count of predictions).

    With `z_loss` the gradient is that of the sum of nats + z_loss * log(Z) ** 2, Z = sum exp(logits) (Chowdhery et al.
    2022, "PaLM", section 5); the value is that of the nats alone, so that losses stay comparable.
    """
    if batch.target.ndim == 1:
        logits_BV = model.next_logits(params, batch.tok, key=key)
        nats, log_z = nats_and_log_z(logits_BV, batch.target)
    else:
        nats, log_z = model.sequence_nats(params, batch.tok, batch.target, key=key)
    weight_N = None if batch.weight is None else batch.weight.reshape(-1)
    total, count = weighted_sum(nats.reshape(-1), weight_N)
    if z_loss:
        penalty, _ = weighted_sum(z_loss * jnp.square(log_z.reshape(-1)), weight_N)
        total += penalty - jax.lax.stop_gradient(penalty)
    return total, count


def make_step(
    model: LanguageModel[Any],
    loss: Loss,
    optimizer: optax.GradientTransformation,
    l2: float = 0.0,
    *,
    accumulate: int = 1,
    grad_norm: bool = False,
) -> Step:
    """Build the step: one update by the gradient of the batch's mean loss + l2 * mean_square(params).

    The step takes (state, batch, dropout key, buffers or None) and returns (state, metrics). With `accumulate` the
    gradients of so many micro-batches are computed one after another: sums and counts are added up before they are
    divided, so that padding may be unequal. Micro-batch i has the rows i, i + accumulate, ... (those of a device stay
    on it) and the dropout key fold_in(key, i). Copies of a language model on several devices add up their gradients
    once, after the last micro-batch, and each draws a dropout of its own; on CPUs they do so with one batch too.
    `grad_norm` adds the gradient's norm to the
    metrics.
    """
    treats_rows_alone = getattr(loss, "func", loss) is language_loss

    def accumulated(
        whole: tuple[Params, Params | None, jax.Array], batch: Batch, copy: jax.Array | None
    ) -> tuple[Params, jax.Array, jax.Array]:
        params, buffers, key = whole

        def sums(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            return loss(model, with_buffers(params, buffers), batch, key)

        return _accumulated(sums, params, batch, key if copy is None else jax.random.fold_in(key, copy), accumulate)

    def step(
        state: TrainState, batch: Batch, key: jax.Array, buffers: Params | None = None
    ) -> tuple[TrainState, StepMetrics]:
        def objective(params: Params) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            total, count = loss(model, with_buffers(params, buffers), batch, key)
            mean = total / jnp.maximum(count, 1.0)
            return mean + l2 * mean_square(params) if l2 else mean, (mean, count)

        if accumulate == 1 and not (treats_rows_alone and are_copies_on_cpus()):
            grads, (mean, count) = jax.grad(objective, has_aux=True)(state.params)
        else:
            whole = state.params, buffers, key
            if treats_rows_alone:
                grads, total, count = summed_by_copies(accumulated, whole, batch)
            else:
                grads, total, count = accumulated(whole, batch, None)
            mean, grads = total / jnp.maximum(count, 1.0), jax.tree.map(lambda g: g / jnp.maximum(count, 1.0), grads)
            if l2:
                grads = jax.tree.map(lambda g, pull: g + l2 * pull, grads, jax.grad(mean_square)(state.params))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        norm = optax.tree.norm(grads) if grad_norm else None
        state = dataclasses.replace(state, step=state.step + 1, params=params, opt_state=opt_state)
        return state, StepMetrics(mean, count, norm)

    return step


def _accumulated(
    sums: Callable[[Params, Batch, jax.Array], tuple[jax.Array, jax.Array]],
    params: Params,
    batch: Batch,
    key: jax.Array,
    parts: int,
) -> tuple[Params, jax.Array, jax.Array]:
    """The gradient of the summed loss over all micro-batches, the summed loss, and the count."""

    def split(x_B: jax.Array) -> jax.Array:
        return jnp.swapaxes(x_B.reshape(x_B.shape[0] // parts, parts, *x_B.shape[1:]), 0, 1)

    def add(carry: Any, part: tuple[jax.Array, Batch]) -> tuple[Any, None]:
        (total, count), grads = jax.value_and_grad(sums, has_aux=True)(
            params, part[1], jax.random.fold_in(key, part[0])
        )
        return jax.tree.map(jnp.add, carry, (grads, total, count)), None

    zeros = jax.tree.map(jnp.zeros_like, params), jnp.zeros(()), jnp.zeros(())
    (grads, total, count), _ = jax.lax.scan(add, zeros, (jnp.arange(parts), jax.tree.map(split, batch)))
    return grads, total, count


def make_chunk(
    step: Step, rate: optax.Schedule, seed: int, ema: float | None = None
) -> Callable[..., tuple[TrainState, Chunk]]:
    """Build K steps as a function of (state, batches, buffers, K), to be compiled with the state donated and K static.

    Batches are stacked along the first axis; if its size is 1 and K is not, every step uses the same batch. Step s
    draws its dropout with fold_in(key, s), the key being the seed's unless the chunk is given another one. `ema` is the
    decay of the state's running average.
    """

    def chunk(
        state: TrainState, batches: Batch, buffers: Params | None, K: int, key: jax.Array | None = None
    ) -> tuple[TrainState, Chunk]:
        dropout_key = prng.derive(seed, prng.DROPOUT) if key is None else key
        first = jax.tree.map(lambda x: x[0], batches)
        repeated = batches.target.shape[0] != K

        def one(state: TrainState, batch: Batch | None) -> tuple[TrainState, tuple[StepMetrics, jax.Array | None]]:
            key = jax.random.fold_in(dropout_key, state.step)
            state, metrics = step(state, first if batch is None else batch, key, buffers)
            if ema is not None:
                assert state.ema is not None
                state = dataclasses.replace(state, ema=averaged(state.ema, state.params, state.step, ema))
            skipping = isinstance(state.opt_state, optax.ApplyIfFiniteState)
            return state, (metrics, state.opt_state.notfinite_count if skipping else None)

        last = state.step + K - 1
        state, (metrics_K, nonfinite_K) = jax.lax.scan(one, state, None if repeated else batches, length=K)
        if nonfinite_K is not None:
            last = last - state.opt_state.total_notfinite  # a step that is skipped leaves the schedule where it was
        return state, Chunk(
            loss_K=metrics_K.loss,
            count_K=metrics_K.predictions,
            lr=jnp.asarray(rate(last)),
            grad_norm=None if metrics_K.grad_norm is None else metrics_K.grad_norm[-1],
            nonfinite_K=nonfinite_K,
        )

    return chunk


def averaged(average: Params, params: Params, step: jax.Array | np.ndarray, decay: float) -> Params:
    """The running average after step `step`, counted from 1: d * average + (1 - d) * params.

    d = min(decay, (1 + step) / (10 + step)), so that a young average soon leaves the first parameters behind.
    """
    t = jnp.asarray(step, jnp.float32)
    rest = 1 - jnp.minimum(decay, (1 + t) / (10 + t))
    return jax.tree.map(lambda a, p: a + rest * (p - a), average, params)
