"""Language models as jobs: every model that gives text a likelihood, from counts to GPT and REAN."""

import math
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, cast

import jax
import numpy as np

from jaxlm.config import RunConfig
from jaxlm.data.corpus import SPLITS, Corpus
from jaxlm.devices import peaks, platform
from jaxlm.devices.mesh import must_block, replicated
from jaxlm.inference.evaluation import NATS_PER_TOKEN, Score, Stop, never, token_fields
from jaxlm.models.base import FittedModel, Params, axes_of, with_buffers
from jaxlm.runs.directory import RunDir
from jaxlm.training import finish, optim
from jaxlm.training.cadence import Cadence, step_flops
from jaxlm.training.job import Job
from jaxlm.training.setup import Setup, set_up, some_rows, summary
from jaxlm.training.state import Chunk, TrainState
from jaxlm.training.step import make_step
from jaxlm.training.summary import loss_line

CALIBRATION_LOGITS = 2**24
"""Most logits in memory while parameters of the likelihood are calibrated."""
TRAIN_SAMPLE = 10_000
"""Predictions of train that are evaluated during training if there is no dev split."""
LONG = 60.0
"""Seconds of a run at a cautious speed from which on its MFU is measured."""
MOST_EVALUATED = 2**18
"""Most predictions of a split that are evaluated during training, padding included; eval.json reads all of dev."""


def prepare(
    config: RunConfig, *, restart: bool = False, dry_run: bool = False, log: Callable[[str], None] = print
) -> Job:
    """Prepare the job of a language model that depends on no other run. Raises UserError."""
    setup = set_up(config, resumes=not restart, dry_run=dry_run)
    return LanguageJob(setup, log) if setup.config.model.trained_by_steps else CountJob(setup, log)


class LanguageJob(Job):
    """A language model trained by steps."""

    def __init__(self, setup: Setup, log: Callable[[str], None]):
        self.setup, self.log, self.config, self.buffers = setup, log, setup.config, setup.buffers
        self.init_hash = setup.start.content if setup.start else None
        self.may_begin = setup.start is None or setup.start.params is not None
        self.uniform_loss = math.log(setup.model.vocab_size) if setup.objective.unit == NATS_PER_TOKEN else None

    @property
    def data(self) -> Corpus:
        """The corpus."""
        return self.setup.corpus

    def summary(self) -> list[str]:
        """The lines that are logged before training."""
        return summary(self.setup)

    def details(self) -> list[str]:
        """Parameters, memory of the state, and tokens of the run."""
        state, setup = self.abstract_state(), self.setup
        assert state is not None
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
        tokens, steps = setup.batch_tokens, self.config.last_step
        beside = [f"buffers: {optim.count_parameters(self.buffers):,} numbers, not trained"] if self.buffers else []
        return [
            f"parameters: {setup.parameters:,}",
            *beside,
            f"memory: {platform.bytes_in_words(size)} of state, as much again for gradients",
            f"tokens: {tokens:,} a step, {tokens * steps:,} in {steps:,} steps",
        ]

    @cached_property
    def seconds_at_peak(self) -> float | None:
        """Seconds of a step at the devices' peak.

        None for a run of less than a minute, which it would delay, and for a model with a step of its own.
        """
        setup, config = self.setup, self.config
        seconds = step_flops(setup.parameters, setup.batch_tokens) * config.last_step / platform.flops_per_second()
        if seconds < LONG or setup.objective.make_step is not make_step:
            return None
        operations = setup.flops(setup.dataset.batch_size, setup.dataset.targets_per_row)
        return operations / peaks.flops_per_second(setup.mesh, getattr(config.model, "dtype", "float32"))

    def cadence(self, chunk: int | None) -> Cadence:
        """The cadence of the run, by the device's speed."""
        rate = platform.flops_per_second()
        rows = sum(map(len, self._followed.values())) * (1 if self.config.optim.ema is None else 2)
        return Cadence.of(
            self.config,
            self.setup.parameters,
            self.setup.batch_tokens,
            rate=rate,
            chunk=chunk,
            eval_tokens=rows * self.setup.dataset.targets_per_row,
        )

    def abstract_state(self) -> TrainState | None:
        """Shapes, types and shardings of the state."""
        return self.setup.abstract_state(self._optimizer)

    def initial_state(self) -> TrainState:
        """The state before the first step."""
        return self.setup.initial_state(self._optimizer)

    def run_chunk(self, state: TrainState, step: int, K: int) -> tuple[TrainState, Chunk]:
        """Dispatch the K steps after `step`, donating the state."""
        batches = self.setup.dataset.batches(step, K)
        result = self._chunk(state, batches, self.setup.placed_buffers, K)
        return jax.block_until_ready(result) if must_block(self.setup.mesh) else result

    def evaluate(self, params: Params, stop: Stop = never) -> dict[str, Score]:
        """Evaluate dev and a fixed sample of train of equal size, each at most MOST_EVALUATED predictions."""
        params = with_buffers(params, self.setup.placed_buffers)
        return {split: self.setup.evaluator(params, row_R, stop) for split, row_R in self._followed.items()}

    def calibrate(self, params: Params) -> Params:
        """Calibrate the parameters that the objective does not train, if it has any."""
        return self._calibrate(params) if self._calibrate else params

    def loss_fields(self, mean: float) -> dict[str, Any]:
        """The fields of a train line beside its mean loss."""
        unit = self.setup.objective.unit
        if unit != NATS_PER_TOKEN:
            return {"unit": unit, "nats_per_token": None, "bits_per_byte": None}
        return token_fields(mean, self._bytes_per_token)

    def finish(self, run: RunDir, seconds: float) -> dict[str, Any]:
        """Evaluate all splits with the best parameters, write samples and plots; returns the content of eval.json."""
        return finish.finish(self.setup, run, seconds, self.log)

    def losses(self, result: dict[str, Any], run: RunDir) -> list[str]:
        """One line for each split that eval.json has."""
        return [loss_line(self.config, split, result[split]) for split in SPLITS if result[split]]

    @cached_property
    def _followed(self) -> dict[str, np.ndarray]:
        """The rows of each split that are evaluated during training."""
        rows, width = self.setup.dataset.rows, self.setup.dataset.targets_per_row
        dev = some_rows(rows["dev"], max(1, MOST_EVALUATED // width))
        train = some_rows(rows["train"], len(dev) or max(1, TRAIN_SAMPLE // width))
        return {split: row_R for split, row_R in (("dev", dev), ("train_sample", train)) if len(row_R)}

    @cached_property
    def _optimizer(self) -> Any:
        return optim.transformation(self.config.optim, self.config.last_step, axes_of(self.setup.model))

    @cached_property
    def _chunk(self) -> Callable[..., tuple[TrainState, Chunk]]:
        return self.setup.compiled_chunk(self._optimizer, optim.schedule(self.config.optim, self.config.last_step))

    @cached_property
    def _bytes_per_token(self) -> float:
        corpus = self.setup.corpus
        return float(corpus.tokenizer.bytes_of_token[corpus.tokens("train")].mean())

    @cached_property
    def _calibrate(self) -> Callable[[Params], Params] | None:
        calibrate, setup = self.setup.objective.calibrate, self.setup
        row_R = setup.dataset.rows[setup.objective.calibrated_on]
        if calibrate is None or not len(row_R):
            return None
        most = max(1, CALIBRATION_LOGITS // setup.model.vocab_size // setup.dataset.targets_per_row)
        batch = setup.dataset.batch(some_rows(row_R, most))
        compiled = jax.jit(partial(calibrate, setup.model))
        return lambda params: cast(Params, compiled(with_buffers(params, setup.placed_buffers), batch))


class CountJob(LanguageJob):
    """A language model whose parameters come from one pass over the data, as a run of a single step."""

    @property
    def seconds_at_peak(self) -> None:
        """None: counting has no products."""

    def details(self) -> list[str]:
        """A line for the parameters, whose number is known only after counting."""
        return ["parameters: as many as the data has n-grams"]

    def cadence(self, chunk: int | None) -> Cadence:
        """The cadence of a run of one step."""
        return Cadence(steps=1, chunk=1, log_every=1, eval_every=1, save_every=1)

    def abstract_state(self) -> None:
        """None, since shapes are known only after counting; a count is repeated instead of resumed."""

    def initial_state(self) -> TrainState:
        """The state before counting, without parameters."""
        return TrainState(step=np.array(0, np.int32), params={}, opt_state=())

    def run_chunk(self, state: TrainState, step: int, K: int) -> tuple[TrainState, Chunk]:
        """Count the n-grams of train in a single step."""
        corpus, model = self.setup.corpus, cast(FittedModel[Any], self.setup.model)
        start, end = corpus.bounds["train"]
        params, notes = model.fit(corpus.tokens_N[start:end], corpus.age_N[start:end])
        for note in notes:
            self.log(note)
        params = jax.device_put(params, replicated(self.setup.mesh))
        nothing = np.empty(0)
        return TrainState(np.array(1, np.int32), params, ()), Chunk(loss_K=nothing, count_K=nothing, lr=0.0)

    def evaluate(self, params: Params, stop: Stop = never) -> dict[str, Score]:
        """Evaluate as a LanguageJob does, once there are counts."""
        return super().evaluate(params, stop) if params else {}
