"""The training state and the pure functions that move it on."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlm.data.batches import Batch, Batcher, Tokens
from jaxlm.devices.mesh import split_rows
from jaxlm.models.base import TOUCHED, HasRows, HasTrainLoss, LanguageModel, Params, with_buffers
from jaxlm.ops import prng
from jaxlm.ops.losses import cross_entropy, mean_square


@flax.struct.dataclass
class TrainState:
    """Arrays only. `step` counts the updates made."""

    step: jax.Array
    params: Params
    opt_state: optax.OptState


@flax.struct.dataclass
class Chunk:
    """What K steps tell: the mean loss of each, the predictions it counted, and the last step's learning rate."""

    loss_K: jax.Array | np.ndarray
    count_K: jax.Array | np.ndarray
    lr: jax.Array | float
    weight_K: np.ndarray | None = None
    """What each loss weighs in a mean over steps. None: all alike."""


StepFunction = Callable[..., tuple[TrainState, jax.Array, jax.Array]]
"""(state, batch, dropout key, constants of the model or None) -> (state, mean loss, predictions counted)."""


def batch_loss(
    model: LanguageModel[Any], params: Params, batch: Batch, key: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """The model's own loss, or the cross-entropy of windows or sequences in nats: (sum, count of predictions)."""
    if isinstance(model, HasTrainLoss) and key is not None:
        return model.train_loss(params, *batch, key)
    if batch.target.ndim == 1:
        return cross_entropy(model.next_logits(params, batch.tok, key=key), batch.target, batch.weight)
    logits_BTV = model.apply(params, batch.tok, key=key)
    weight_N = None if batch.weight is None else batch.weight.reshape(-1)
    return cross_entropy(logits_BTV.reshape(-1, logits_BTV.shape[-1]), batch.target.reshape(-1), weight_N)


def make_step(model: LanguageModel[Any], optimizer: optax.GradientTransformation, l2: float = 0.0) -> StepFunction:
    """One update by the gradient of the batch's mean loss + l2 * mean_square(params).

    The function takes (state, batch, dropout key, constants of the model or None) and gives (state, mean loss without
    the l2 term, predictions counted). Rows of a table that the loss does not read stay as they are, their moments too
    (see `row_step`), unless an l2 term pulls at every row.
    """
    if isinstance(model, HasRows) and model.row_table and not l2:
        return row_step(model, model.row_table, optimizer)

    def step(
        state: TrainState, batch: Batch, key: jax.Array, buffers: Params | None = None
    ) -> tuple[TrainState, jax.Array, jax.Array]:
        def objective(params: Params) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            total, count = batch_loss(model, with_buffers(params, buffers), batch, key)
            loss = total / jnp.maximum(count, 1.0)
            return loss + l2 * mean_square(params) if l2 else loss, (loss, count)

        grads, (loss, count) = jax.grad(objective, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(step=state.step + 1, params=params, opt_state=opt_state), loss, count

    return step


def row_step(model: HasRows, table: str, optimizer: optax.GradientTransformation) -> StepFunction:
    """A step on the rows of a table that the batch touches, at a cost that the number of rows is not in.

    Those rows, and what the optimiser keeps for each, are taken out of the state, moved on by an ordinary step, and put
    back. A row that is not touched stands still: no decay of its weights or moments makes up for the steps in between,
    while the moments' bias is corrected by the number of all steps. Without moments and decay that is what a step on
    the whole table does.
    """

    def of_table(path: Any) -> bool:
        return bool(path) and getattr(path[-1], "key", None) == table

    def step(
        state: TrainState, batch: Batch, key: jax.Array, buffers: Params | None = None
    ) -> tuple[TrainState, jax.Array, jax.Array]:
        buffers = buffers or {}
        row_U = model.touched(buffers, batch.tok, batch.target, key)
        part = jax.tree_util.tree_map_with_path(
            lambda path, x: x.at[row_U].get(mode="fill", fill_value=0) if of_table(path) else x, state
        )
        step_on_rows = make_step(model.on_rows(row_U.size), optimizer)
        part, loss, count = step_on_rows(part, batch, key, {**buffers, TOUCHED: row_U})
        state = jax.tree_util.tree_map_with_path(
            lambda path, x, new: x.at[row_U].set(new, mode="drop") if of_table(path) else new, state, part
        )
        return state, loss, count

    return step


def make_chunk(
    step: StepFunction,
    batcher: Batcher,
    rate: optax.Schedule,
    mesh: Any,
    *,
    seed: int,
) -> Callable[..., tuple[TrainState, Chunk]]:
    """K steps as one function of (state, tokens, row_KB, constants), to be compiled with the state donated.

    The rows are those that `Batcher.draw` gives for the K steps from state.step on; their batches are gathered before
    the scan. Step s draws its dropout by fold_in(key, s) of the seed's key.
    """

    def chunk(
        state: TrainState, tokens: Tokens, row_KB: jax.Array, buffers: Params | None = None
    ) -> tuple[TrainState, Chunk]:
        dropout_key, K = prng.derive(seed, prng.DROPOUT), len(row_KB)
        if batcher.full:
            same = split_rows(mesh, batcher.at(tokens, row_KB[0]), axis=0)
            batches = None
        else:
            same = None
            batches = jax.vmap(lambda row_B: batcher.at(tokens, row_B))(row_KB)
            batches = split_rows(mesh, batches, axis=1)

        def one(state: TrainState, batch: Batch | None) -> tuple[TrainState, tuple[jax.Array, jax.Array]]:
            dropout = jax.random.fold_in(dropout_key, state.step)
            state, loss, count = step(state, same if batch is None else batch, dropout, buffers)
            return state, (loss, count)

        last = state.step + K - 1
        state, (loss_K, count_K) = jax.lax.scan(one, state, batches, length=K)
        return state, Chunk(loss_K=loss_K, count_K=count_K, lr=jnp.asarray(rate(last)))

    return chunk
