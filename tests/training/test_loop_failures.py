"""What is no number ends the loop: no such state is saved, and the save under way is awaited."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.errors import NonFiniteLoss
from jaxlm.inference.evaluation import Score
from jaxlm.training.loop import Loop
from jaxlm.training.state import Chunk, TrainState
from tests.loops import loop_of, score


def spoil(loop: Loop, at: int, *, loss: float | None = None, w: float | None = None) -> None:
    """Make the loss of the chunk that ends at a step, or the parameter that it leads to, another."""
    real = loop.run_chunk

    def run_chunk(state: TrainState, step: int, K: int) -> tuple[TrainState, Chunk]:
        state, chunk = real(state, step, K)
        if step + K == at and loss is not None:
            chunk = chunk.replace(loss_K=np.full(K, loss))  # type: ignore[attr-defined]
        if step + K == at and w is not None:
            state = state.replace(params={"w": jnp.float32(w)})  # type: ignore[attr-defined]
        return state, chunk

    loop.run_chunk = run_chunk


def steady(params: Any) -> dict[str, Score]:
    """A dev loss that the parameters do not change."""
    return {"dev": Score(1.0, 1, 1, 0)}


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("nats", [math.nan, math.inf])
def test_a_dev_loss_that_is_no_number_ends_the_training(log, nats, beside):
    loop = loop_of(log, lambda params: {"dev": Score(nats, 1, 1, 0)}, beside=beside)
    with pytest.raises(NonFiniteLoss, match=rf"^the dev loss is {nats} at step 0 of 24; no checkpoint was saved"):
        loop.run()
    assert loop.writer.saved == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize(
    ("step", "saved", "good"),
    [(8, [], "no checkpoint was saved before"), (16, [8], "the last good checkpoint is step 8")],
)
def test_a_parameter_that_is_no_number_is_not_saved(log, step, saved, good, beside):
    """Though all losses are numbers."""
    loop = loop_of(log, steady, beside=beside)
    spoil(loop, step, w=math.nan)
    with pytest.raises(NonFiniteLoss, match=rf"^a parameter is not a number at step {step} of 24; {good};"):
        loop.run()
    assert [step for step, *_ in loop.writer.saved] == saved  # type: ignore[attr-defined]


@pytest.mark.parametrize("beside", [True, False])
def test_a_loss_that_is_no_number_waits_for_the_save_under_way(log, beside):
    loop = loop_of(log, score, beside=beside)
    spoil(loop, 12, loss=math.nan)
    order: list[Any] = []
    loop.writer.save = lambda step, *rest, **notes: order.append(step)  # type: ignore[method-assign]
    loop.writer.wait = lambda: order.append("wait")  # type: ignore[method-assign]
    with pytest.raises(NonFiniteLoss, match=r"^the loss is nan at step 11 of 24; the last good checkpoint is step 8;"):
        loop.run()
    assert order == [8, "wait"]
