"""Runs of several seeds as one job: their states stacked along a leading axis, advanced by one compiled chunk."""

import dataclasses
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import RunConfig
from jaxlm.config.transformer import TransformerConfig
from jaxlm.data.dataset import Dataset
from jaxlm.data.shards import is_directory
from jaxlm.devices import compilation, replicas
from jaxlm.devices.mesh import must_block, replicated
from jaxlm.errors import UserError
from jaxlm.inference.evaluation import Stop, never
from jaxlm.models.base import Params
from jaxlm.ops import prng
from jaxlm.runs.directory import RunDir, seed_directory
from jaxlm.runs.fingerprint import RunData
from jaxlm.training import optim
from jaxlm.training.cadence import Cadence
from jaxlm.training.job import Job
from jaxlm.training.language import LanguageJob
from jaxlm.training.seeds.results import SeedsScore, loss_lines, results
from jaxlm.training.setup import set_up
from jaxlm.training.state import Chunk, TrainState


class OneSeed(LanguageJob):
    """The job of one of the seeds, as if it were alone. MFU is that of all seeds, which the group has."""

    @property
    def seconds_at_peak(self) -> None:
        """None: the devices work for the other seeds too."""


class SeedsJob(Job):
    """The seeds' jobs as one, whose state has all of theirs, N in number, along the first axis of each array.

    The step number is one for all. Seed n sees the rows, parameters and dropout of the single run of that seed; sums
    may differ in the last bits. The cadence is that of a single run, so that the same steps are evaluated.
    """

    def __init__(self, first: LanguageJob, jobs: list[OneSeed]):
        self.config, self.jobs, self.seeds = first.config, jobs, [one.config.seed for one in jobs]
        self._first = first
        self.buffers, self.init_hash, self.may_begin = first.buffers, first.init_hash, first.may_begin
        self.uniform_loss = first.uniform_loss
        self._mesh, self._ahead = first.setup.mesh, _Rows(-1, 0, np.zeros(0, np.int32))

    @property
    def runs(self) -> list[RunDir]:
        """The run directory of each seed."""
        return [RunDir(one.config.directory) for one in self.jobs]

    @property
    def data(self) -> RunData:
        """The corpus, which all seeds share."""
        return self._first.data

    @property
    def seconds_at_peak(self) -> float | None:
        """Seconds of a step of all seeds at the devices' peak."""
        one = self._first.seconds_at_peak
        return None if one is None else one * len(self.jobs)

    def summary(self) -> list[str]:
        """The lines that are logged before training."""
        each = f", {len(self.jobs) // self._mesh.size} on each of {self._mesh.size} devices" * (self._mesh.size > 1)
        return [*self._first.summary(), f"seeds: {self.seeds[0]} to {self.seeds[-1]}, in one program{each}"]

    def details(self) -> list[str]:
        """Parameters, memory and tokens of one seed."""
        return [*self._first.details(), f"seeds: {len(self.jobs)} times all of that"]

    def cadence(self, chunk: int | None) -> Cadence:
        """The cadence of a single run."""
        return self._first.cadence(chunk)

    def abstract_state(self) -> TrainState:
        """Shapes, types and shardings of the stacked state."""
        one, lies = self._first.setup.abstract_state(self._optimizer), replicas.leading(self._mesh)
        stacked = jax.tree.map(lambda x: jax.ShapeDtypeStruct((len(self.jobs), *x.shape), x.dtype, sharding=lies), one)
        return dataclasses.replace(stacked, step=one.step)

    def initial_state(self) -> TrainState:
        """The states before the first step, stacked."""
        states = [one.setup.initial_state(self._optimizer) for one in self.jobs]
        lies = jax.tree.map(lambda x: x.sharding, self.abstract_state())

        def stack(states: list[TrainState]) -> TrainState:
            return dataclasses.replace(jax.tree.map(lambda *x: jnp.stack(x), *states), step=states[0].step)

        return jax.jit(stack, out_shardings=lies)(states)

    def run_chunk(self, state: TrainState, step: int, K: int) -> tuple[TrainState, Chunk]:
        """Dispatch the K steps after `step` of all seeds, donating the state.

        While the devices work, the host chooses the rows of the K steps after them.
        """
        dataset = self._dataset
        if dataset.full:
            batches = dataset.batches(step, K)
        else:
            rows = self._ahead if (self._ahead.step, self._ahead.K) == (step, K) else self._rows(step, K)
            batches = dataset.gather(jax.device_put(rows.row_XB, replicas.leading(self._mesh)))
        result = self._chunk(state, batches, self._first.setup.placed_buffers, self._dropout_words, K)
        if not dataset.full:
            self._ahead = self._rows(step + K, K)
        return jax.block_until_ready(result) if must_block(self._mesh) else result

    def evaluate(self, params: Params, stop: Stop = never) -> dict[str, SeedsScore]:
        """Evaluate the splits of each seed as its own run does."""
        scores = [one.evaluate(self._of_seed(params, n), stop) for n, one in enumerate(self.jobs)]
        return {split: SeedsScore(tuple(score[split] for score in scores)) for split in scores[0]}

    def where_not_finite(self, params: Params) -> str:
        """The words that name the first seed with a parameter that is not finite."""
        for n, seed in enumerate(self.seeds):
            if not all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(self._of_seed(params, n))):
                return f" of seed {seed}"
        return ""

    def loss_fields(self, mean: float) -> dict[str, Any]:
        """The fields of a train line beside the mean loss of all seeds."""
        return self._first.loss_fields(mean)

    def finish(self, run: RunDir, seconds: float) -> dict[str, Any]:
        """The content of the group's eval.json: means over the seeds' own, which must be written."""
        return results(self.config, self.runs, seconds)

    def losses(self, result: dict[str, Any], run: RunDir) -> list[str]:
        """A table of the seeds' losses, with mean and standard error."""
        return loss_lines(self.seeds, self.runs)

    def state_of_seed(self, state: TrainState, n: int) -> TrainState:
        """The state of the nth seed alone, as its own run has it."""
        return dataclasses.replace(self._of_seed(dataclasses.replace(state, step=self._zeros_N), n), step=state.step)

    @cached_property
    def _zeros_N(self) -> jax.Array:
        return jnp.zeros(len(self.jobs), jnp.int32)

    def _of_seed(self, tree: Any, n: int) -> Any:
        """The arrays of the nth seed, on every device."""
        one = self._take(tree, n)
        return jax.block_until_ready(one) if must_block(self._mesh) else one

    def _rows(self, step: int, K: int) -> "_Rows":
        row_NKB = np.stack([_in_memory(one).row_numbers(step, K) for one in self.jobs])
        return _Rows(step, K, row_NKB.reshape(-1, row_NKB.shape[-1]).astype(np.int32))

    @property
    def _dataset(self) -> Dataset:
        return _in_memory(self._first)

    @cached_property
    def _take(self) -> Callable[[Any, int], Any]:
        return jax.jit(lambda tree, n: jax.tree.map(lambda x: x[n], tree), out_shardings=replicated(self._mesh))

    @cached_property
    def _optimizer(self) -> Any:
        return self._first._optimizer

    @cached_property
    def _dropout_words(self) -> jax.Array:
        """The two words of each seed's dropout key, (N, 2)."""
        words_N2 = np.array([prng.words_of(seed, prng.DROPOUT) for seed in self.seeds], np.uint32)
        return jax.device_put(words_N2, replicas.leading(self._mesh))

    @cached_property
    def _chunk(self) -> Callable[..., tuple[TrainState, Chunk]]:
        """The compiled chunk: (state, batches, buffers, dropout words, K) -> (state after K steps, metrics of each
        seed).
        """
        rate = optim.schedule(self.config.optim, self.config.last_step)
        one, full = self._first.setup.chunk(self._optimizer, rate), self._dataset.full

        def each(state: TrainState, batches: Any, buffers: Any, words: Any, *, K: int) -> tuple[TrainState, Chunk]:
            return one(state, batches, buffers, K, jax.random.wrap_key_data(words, impl=prng.GENERATOR))

        def together(state: TrainState, batches: Any, buffers: Any, words_N2: Any, *, K: int) -> Any:
            if not full:
                batches = jax.tree.map(lambda x: x.reshape(-1, K, *x.shape[1:]), batches)
            axes = (_state(None, 0), None if full else 0, None, 0)
            return jax.vmap(partial(each, K=K), in_axes=axes, out_axes=(_state(None, 0), 0))(
                state, batches, buffers, words_N2
            )

        def chunk(state: TrainState, batches: Any, buffers: Any, words_N2: Any, K: int) -> Any:
            takes, gives = (_state(False, True), not full, False, True), (_state(False, True), True)
            run = replicas.side_by_side(self._mesh, partial(together, K=K), takes, gives)
            return run(state, batches, buffers, words_N2)

        def _state(step: Any, rest: Any) -> TrainState:
            """A prefix of the state's tree: one value for its step, another for all that is stacked."""
            return TrainState(step, rest, rest, None if self.config.optim.ema is None else rest)

        lies = jax.tree.map(lambda x: x.sharding, self.abstract_state())
        return jax.jit(
            chunk,
            donate_argnums=0,
            static_argnums=4,
            out_shardings=(lies, None),
            compiler_options=compilation.step_options(self._mesh),
        )


class _Rows(NamedTuple):
    """The row numbers of K steps from `step` on, seed by seed: X = N * K."""

    step: int
    K: int
    row_XB: np.ndarray


def prepare(
    config: RunConfig, *, restart: bool = False, dry_run: bool = False, log: Callable[[str], None] = print
) -> SeedsJob:
    """Prepare the job of config.seeds runs on one corpus. Raises UserError."""
    if is_directory(config.data):
        raise UserError(f"seeds wants a text in memory, got the shards {config.data.path!r}: train them one by one")
    if isinstance(config.model, TransformerConfig):  # vmap has no rule for the fused kernels
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, attention="plain"))
    setup = set_up(config, resumes=not restart, dry_run=dry_run)
    assert isinstance(setup.dataset, Dataset)
    replicas.check_runs(config.seeds, setup.mesh)
    jobs = []
    for seed in range(config.seed, config.seed + config.seeds):
        place = str(seed_directory(Path(setup.config.directory), seed))
        own = dataclasses.replace(setup.config, seed=seed, seeds=1, run_dir=place, plots=False)
        jobs.append(OneSeed(dataclasses.replace(setup, config=own, dataset=setup.dataset.with_seed(seed)), log))
    return SeedsJob(LanguageJob(setup, log), jobs)


def _in_memory(job: LanguageJob) -> Dataset:
    assert isinstance(job.setup.dataset, Dataset)  # `prepare` refuses shards
    return job.setup.dataset
