"""A job without data or model, for the tests of the loop: its parameter counts its steps, and so does its loss."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxlm
from jaxlm.data import corpus as corpora
from jaxlm.inference.evaluation import Interrupted, Score, Stop, never
from jaxlm.runs import checkpoints, metrics
from jaxlm.runs.directory import RunDir
from jaxlm.training.cadence import Cadence
from jaxlm.training.job import Job
from jaxlm.training.loop import fit
from jaxlm.training.state import Chunk, TrainState

CADENCE = Cadence(steps=24, chunk=2, log_every=2, eval_every=8, save_every=8)
RATE = 0.1


@dataclasses.dataclass(frozen=True)
class Fetched:
    """An array that notes when the host reads it."""

    array: np.ndarray
    note: Callable[[], None]

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        self.note()
        return self.array.astype(dtype or self.array.dtype)


class FakeJob(Job):
    """The loss of step s is s, the parameter behind it s, the dev loss after it s.

    `events` has what was done, in order: ("chunk", its first step), ("fetch", its last step), ("evaluate", step).
    `at` gives functions that are called where the chunk that ends at a step is dispatched; `loss_at` and `w_at` give
    other losses of steps and other parameters behind them, `dev_at` other dev losses. Losses may rise: `uniform_loss`
    is far above them.
    """

    def __init__(self, run_dir: Path, cadence: Cadence = CADENCE, **settings: Any):
        self.points, self.buffers, self.init_hash = cadence, {}, None
        self.config = jaxlm.RunConfig(
            model=jaxlm.MlpConfig(vocab_size=5, d_embed=2, d_hidden=3),
            steps=cadence.steps,
            run_dir=str(run_dir),
            plots=False,
            **settings,
        )
        self.events: list[tuple[str, int]] = []
        self.chunks_asked: list[int | None] = []
        self.at: dict[int, Callable[[], None]] = {}
        self.loss_at: dict[int, float] = {}
        self.w_at: dict[int, float] = {}
        self.dev_at: dict[int, float] = {}
        self.uniform_loss = 100.0
        self.weighs = False

    @property
    def data(self) -> corpora.Corpus:
        return corpora.from_lines("ab\nba\nab\nba\nab\nba\nab\nba\nab\nba\n", self.config.data)

    def summary(self) -> list[str]:
        return []

    def details(self) -> list[str]:
        return []

    def cadence(self, chunk: int | None) -> Cadence:
        self.chunks_asked.append(chunk)
        return self.points if chunk is None else dataclasses.replace(self.points, chunk=chunk)

    def abstract_state(self) -> TrainState | None:
        return abstract_like(self._state(0))

    def initial_state(self) -> TrainState:
        self.events.append(("initial", 0))
        return self._state(0)

    def run_chunk(self, state: TrainState, step: int, K: int) -> tuple[TrainState, Chunk]:
        assert step == int(state.step)
        self.events.append(("chunk", step))
        last = step + K
        self.at.get(last, lambda: None)()
        loss_K = np.array([self.loss_at.get(s, float(s)) for s in range(step + 1, last + 1)])
        chunk = Chunk(
            loss_K=Fetched(loss_K, lambda: self.events.append(("fetch", last))),  # type: ignore[arg-type]
            count_K=np.full(K, 3),
            lr=RATE,
            weight_K=np.arange(step + 1, last + 1) % 3 if self.weighs else None,
        )
        return self._state(last), chunk

    def evaluate(self, params: Any, stop: Stop = never) -> dict[str, Score]:
        step = int(params["w"])
        self.events.append(("evaluate", step))
        if stop():
            raise Interrupted
        return {"dev": Score(self.dev_at.get(step, float(step)), 1, 1, 0)}

    def loss_fields(self, mean: float) -> dict[str, Any]:
        return {"unit": "nats/token"}

    def finish(self, run: RunDir, seconds: float) -> dict[str, Any]:
        self.events.append(("finish", 0))
        nothing = {"train": None, "dev": None, "test": None}
        return {**nothing, "params": 1, "step": self.points.steps, "steps": self.points.steps, "train_time_s": seconds}

    def losses(self, result: dict[str, Any], run: RunDir) -> list[str]:
        return []

    def _state(self, step: int) -> TrainState:
        w = self.w_at.get(step, float(step))
        state = TrainState(step=jnp.int32(step), params={"w": jnp.float32(w)}, opt_state={"m": jnp.float32(-w)})
        return jax.device_put(state, jax.devices()[0])


def fitted(job: FakeJob) -> list[str]:
    """Run `fit` in the job's run directory; returns what it logged."""
    run, said = RunDir(Path(str(job.config.run_dir))), list[str]()
    run.path.mkdir(exist_ok=True)
    fit(job, run, said.append)
    return said


def lines(run_dir: Path) -> list[tuple[int, str, float]]:
    """Step, split and loss of each line of metrics.jsonl."""
    return [(line["step"], line["split"], line["loss"]) for line in metrics.read(run_dir / "metrics.jsonl")]


def saved_steps(run_dir: Path) -> list[int]:
    """The steps of the checkpoints that are there."""
    return [one.step for one in checkpoints.saved(run_dir / "checkpoints")]


def abstract_like(tree: Any) -> Any:
    """Shapes, types and shardings of a tree of arrays, for `load`."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)
