"""The training step and the compiled chunk of steps, shared by training, the range test, benchmarks and tests."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxlm.data.rows import Batch
from jaxlm.models.base import LanguageModel, Params, with_buffers
from jaxlm.ops import prng
from jaxlm.ops.losses import mean_square, nats_and_log_z, weighted_sum
from jaxlm.training.state import Chunk, TrainState

Loss = Callable[[LanguageModel[Any], Params, Batch, jax.Array | None], tuple[jax.Array, jax.Array]]
"""(model, params, batch, dropout key or None) -> (sum, count)."""
Step = Callable[..., tuple[TrainState, jax.Array, jax.Array]]
"""(state, batch, dropout key, buffers or None) -> (state, mean loss, count of predictions)."""
MakeStep = Callable[[LanguageModel[Any], Loss, optax.GradientTransformation, float], Step]
"""(model, loss, optimizer, l2) -> step."""


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


def make_step(model: LanguageModel[Any], loss: Loss, optimizer: optax.GradientTransformation, l2: float = 0.0) -> Step:
    """Build the step: one update by the gradient of the batch's mean loss + l2 * mean_square(params).

    The step takes (state, batch, dropout key, buffers or None) and returns (state, mean loss without the l2 term,
    count of predictions).
    """

    def step(
        state: TrainState, batch: Batch, key: jax.Array, buffers: Params | None = None
    ) -> tuple[TrainState, jax.Array, jax.Array]:
        def objective(params: Params) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            total, count = loss(model, with_buffers(params, buffers), batch, key)
            mean = total / jnp.maximum(count, 1.0)
            return mean + l2 * mean_square(params) if l2 else mean, (mean, count)

        grads, (mean, count) = jax.grad(objective, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(step=state.step + 1, params=params, opt_state=opt_state), mean, count

    return step


def make_chunk(step: Step, rate: optax.Schedule, seed: int) -> Callable[..., tuple[TrainState, Chunk]]:
    """Build K steps as a function of (state, batches, buffers, K), to be compiled with the state donated and K static.

    Batches are stacked along the first axis; if its size is 1 and K is not, every step uses the same batch. Step s
    draws its dropout with fold_in(key, s).
    """

    def chunk(state: TrainState, batches: Batch, buffers: Params | None, K: int) -> tuple[TrainState, Chunk]:
        dropout_key = prng.derive(seed, prng.DROPOUT)
        first = jax.tree.map(lambda x: x[0], batches)
        repeated = batches.target.shape[0] != K

        def one(state: TrainState, batch: Batch | None) -> tuple[TrainState, tuple[jax.Array, jax.Array]]:
            key = jax.random.fold_in(dropout_key, state.step)
            state, mean, count = step(state, first if batch is None else batch, key, buffers)
            return state, (mean, count)

        last = state.step + K - 1
        state, (loss_K, count_K) = jax.lax.scan(one, state, None if repeated else batches, length=K)
        return state, Chunk(loss_K=loss_K, count_K=count_K, lr=jnp.asarray(rate(last)))

    return chunk
