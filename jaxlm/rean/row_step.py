"""A training step on the rows of a table that a batch touches."""

from typing import Any

import jax
import optax

from jaxlm.data.rows import Batch
from jaxlm.models.base import LanguageModel, Params
from jaxlm.rean.model import ReanModel
from jaxlm.rean.table import TOUCHED
from jaxlm.training.state import TrainState
from jaxlm.training.step import Loss, Step, StepMetrics, make_step


def make_rean_step(
    model: LanguageModel[Any],
    loss: Loss,
    optimizer: optax.GradientTransformation,
    l2: float = 0.0,
    *,
    accumulate: int = 1,
    grad_norm: bool = False,
) -> Step:
    """The step of a REAN model: on the touched rows alone where its objective reads no others, else the usual step.

    Those rows, and what the optimiser keeps for each, are gathered from the state, updated by an ordinary step, and
    scattered back, at a cost independent of the vocabulary. A row that is not touched keeps its weights and moments: no
    decay makes up for the steps in between, while the moments' bias is corrected by the number of all steps. Without
    moments and decay the result is that of a step on the whole table. An l2 term pulls at every row, so with one the
    whole table is updated.
    """
    assert isinstance(model, ReanModel), model
    table = model.row_table
    if table is None or l2:
        return make_step(model, loss, optimizer, l2, accumulate=accumulate, grad_norm=grad_norm)
    assert accumulate == 1, accumulate  # each micro-batch would touch other rows: refused with the settings

    def is_row(path: Any) -> bool:
        return bool(path) and getattr(path[-1], "key", None) == table

    def step(
        state: TrainState, batch: Batch, key: jax.Array, buffers: Params | None = None
    ) -> tuple[TrainState, StepMetrics]:
        buffers = buffers or {}
        row_U = model.touched(buffers, batch.tok, batch.target, key)
        part = jax.tree_util.tree_map_with_path(
            lambda path, x: x.at[row_U].get(mode="fill", fill_value=0) if is_row(path) else x, state
        )
        step_on_rows = make_step(model.on_rows(row_U.size), loss, optimizer, grad_norm=grad_norm)
        part, metrics = step_on_rows(part, batch, key, {**buffers, TOUCHED: row_U})
        state = jax.tree_util.tree_map_with_path(
            lambda path, x, new: x.at[row_U].set(new, mode="drop") if is_row(path) else new, state, part
        )
        return state, metrics

    return step
