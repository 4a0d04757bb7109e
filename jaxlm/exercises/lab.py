"""Shared parts of the exercises: models of one text, their losses, and the times of calls."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp

from jaxlm.config import DataConfig, ModelConfig, RunConfig
from jaxlm.errors import UserError
from jaxlm.inference.evaluation import Score
from jaxlm.models.base import ContextModel, FittedModel, LanguageModel, Params
from jaxlm.models.counts import AddK
from jaxlm.training.setup import Setup, set_up, some_rows

SAMPLE_SECONDS = 0.005
"""Calls shorter than this are repeated, and timed together."""


@dataclasses.dataclass(frozen=True)
class Lab:
    """The settings of an exercise: its text, the directory of its plot, its seed and device, and where it logs."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    """The text and its split."""
    out: Path = Path("runs/exercises")
    """Directory for plots and runs."""
    seed: int = 0
    """Seed of parameters and batches."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """auto: the best device that JAX finds."""
    log: Callable[[str], None] = print
    """Called with each line of output."""

    def setup(self, model: ModelConfig, *wanted: str) -> Setup:
        """Set up a model on the text. Raises UserError if one of the wanted splits has no tokens."""
        setup = set_up(RunConfig(model=model, data=self.data, seed=self.seed, device=self.device, steps=1))
        for split in wanted:
            if not setup.corpus.size(split):
                shares = " ".join(map(str, self.data.split))
                raise UserError(f"data.split wants lines in {split} for this exercise, got none by {shares}")
        return setup

    def whole(self) -> "Lab":
        """Return this lab with all of its text in train."""
        return dataclasses.replace(self, data=dataclasses.replace(self.data, split=(1.0, 0.0, 0.0)))

    def picture(self, exercise: str) -> Path:
        """Return the file of an exercise's plot, after making its directory."""
        self.out.mkdir(parents=True, exist_ok=True)
        return self.out / f"{exercise}.png"


@dataclasses.dataclass(frozen=True)
class AnyK(ContextModel):
    """An add-k model whose k is a parameter, so that one compiled program evaluates a grid of k."""

    def next_logits(self, params: Params, ctx_BC: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Log-probabilities of the next token after each context."""
        return self._fixed(params).next_logits(params["counts"], ctx_BC)

    def next_nats(self, params: Params, ctx_BC: jax.Array, target_B: jax.Array) -> jax.Array:
        """Negative log-likelihood of each target in nats: -log p(target | context)."""
        return self._fixed(params).next_nats(params["counts"], ctx_BC, target_B)

    def _fixed(self, params: Params) -> AddK:
        return AddK(context=self.context, vocab_size=self.vocab_size, add_k=params["k"])


@dataclasses.dataclass(frozen=True)
class CountedModel:
    """A count model fitted to train, which can be evaluated with any k."""

    setup: Setup
    """The model, its data and devices."""
    params: Params
    """The counts."""
    notes: list[str]
    """Remarks of the fit, such as a fallback of the discounts."""

    @classmethod
    def of(cls, setup: Setup) -> "CountedModel":
        """Fit the model by counting the n-grams of train."""
        start, end = setup.text.bounds["train"]
        model = cast(FittedModel[Any], setup.model)
        return cls(setup, *model.fit(setup.text.tokens_N[start:end], setup.text.age_N[start:end]))

    def with_k(self, k: float) -> "CountedModel":
        """Return the model with k added to each of its counts; they must come from `of`."""
        model = AnyK(context=self.setup.model.context or 0, vocab_size=self.setup.model.vocab_size)
        params = {"counts": self.params, "k": jnp.float32(k)}
        setup = dataclasses.replace(self.setup, model=cast(LanguageModel[Any], model))
        return dataclasses.replace(self, setup=setup, params=params)

    def score(self, split: str) -> Score:
        """Evaluate the model on a split."""
        rows = self.setup.dataset.rows[split]
        return self.setup.evaluator(self.params, some_rows(rows, len(rows)))

    def loss(self, split: str) -> float:
        """Loss on a split in nats per token; infinite if a token has probability 0."""
        nats = self.score(split).nats_per_token
        return math.inf if nats is None else nats


def median_seconds(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each call over `rounds`, calls taken in turn, after each has run and compiled once."""
    repeats, taken = {}, {name: list[float]() for name in calls}
    for name, call in calls.items():
        jax.block_until_ready(call())
        repeats[name] = max(1, math.ceil(SAMPLE_SECONDS / _clock(call, 3)))
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(_clock(call, repeats[name]))
    return {name: statistics.median(times) for name, times in taken.items()}


def _clock(call: Callable[[], Any], repeats: int) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        jax.block_until_ready(call())
    return (time.perf_counter() - began) / repeats


def speed_against(ours: float, other: float, name: str) -> str:
    """Describe how our time compares with the other one, which is called `name`."""
    if 0.9 < other / ours < 1.1:
        return f"as fast as {name} ({other / ours:.2f} times)"
    if other > ours:
        return f"{other / ours:.1f} times as fast as {name}"
    return f"slower than {name} ({ours / other:.1f} times as long)"
