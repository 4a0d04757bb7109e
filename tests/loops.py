"""A loop without a model, for its tests."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import jax.numpy as jnp
import numpy as np

from jaxlm.inference.evaluation import Score
from jaxlm.runs import metrics
from jaxlm.training.loop import Loop
from jaxlm.training.plan import Plan
from jaxlm.training.points import Tally
from jaxlm.training.state import Chunk, TrainState

PLAN = Plan(steps=24, chunk=2, log_every=2, eval_every=8, save_every=8)


class Writer(SimpleNamespace):
    """Notes what is saved; `is_idle` and `best_step` are the test's."""

    def save(self, step: int, params: Any, training: Any, **notes: Any) -> None:
        self.saved.append((step, float(params["w"]), notes["notes"]["tally"]["steps"]))

    def wait(self) -> None:
        """Nothing is under way."""


def loop_of(log: metrics.MetricsLog, evaluate: Any, *, beside: bool = True, ran: list[int] | None = None) -> Loop:
    """A loop whose parameter is its step; the loss of each step is its number."""
    ran = [] if ran is None else ran

    def run_chunk(state: TrainState, step: int, K: int) -> tuple[TrainState, Chunk]:
        assert step == int(state.step)
        ran.append(step)
        chunk = Chunk(loss_K=np.arange(step, step + K) + 1.0, count_K=np.ones(K), lr=0.1)
        return TrainState(step=state.step + K, params={"w": state.params["w"] + K}, opt_state=()), chunk

    return Loop(
        state=TrainState(step=jnp.int32(0), params={"w": jnp.float32(0)}, opt_state=()),
        run_chunk=run_chunk,
        evaluate=evaluate,
        plan=PLAN,
        log=log,
        writer=Writer(saved=[], is_idle=True, best_step=24),  # type: ignore[arg-type]
        progress=Mock(),
        tally=Tally(),
        loss_fields=lambda loss: {"unit": "nats/token"},
        beside=beside,
    )


def score(params: Any) -> dict[str, Score]:
    """A dev loss that names the step."""
    return {"dev": Score(float(params["w"]), 1, 1, 0)}


def lines(tmp_path: Any) -> list[tuple[int, str, float]]:
    """Step, split and loss of each line told."""
    return [(line["step"], line["split"], line["loss"]) for line in metrics.read(tmp_path / "metrics.jsonl")]
