"""RunConfig: a model, its data, its optimiser, and when it is evaluated, saved and sampled."""

import dataclasses
import math
import re
from pathlib import Path
from typing import Literal

from jaxlm.config import check
from jaxlm.config.data import DataConfig
from jaxlm.config.distributed import DistributedConfig
from jaxlm.config.mesh import MeshConfig
from jaxlm.config.models import ModelConfig
from jaxlm.config.optim import OptimConfig
from jaxlm.config.rean import TableConfig
from jaxlm.config.seeds import check_seeds
from jaxlm.config.settings import Settings, expand_home, refuse_unused
from jaxlm.errors import UserError

DEFAULT_DIRECTORY = "runs/run"
"""The run directory without run_dir; train.py sets runs/ and the config file's name."""
DEFAULT_BATCH = 32
"""Rows in a batch without batch_size and batch_tokens."""
MOST_SEEDS = 1024
"""Runs that one program trains together at most."""
MOST_SAMPLES = 2**20
"""Samples at once at most, and tokens of one."""
DRAFT_TOKENS, MOST_DRAFT_TOKENS = 4, 64
"""Tokens that a draft proposes at once, where nothing else is asked for and at most."""


@dataclasses.dataclass(frozen=True)
class EvalConfig(Settings, group="eval."):
    """When losses are taken, and how much of a split they read."""

    every: int | None = None
    """Steps between dev losses. None: a tenth of the run. The first ones come earlier, on a grid that doubles."""
    log_every: int | None = None
    """Steps between train lines in metrics.jsonl. None: a hundredth of the run."""
    max_tokens: int = 250_000
    """Predictions of train read for eval.json at most, and of dev from shards; other dev and test are read whole."""
    patience: int | None = None
    """Stop if the dev loss has not fallen for so many evaluations; the best checkpoint counts. None: never."""

    def __post_init__(self) -> None:
        check.at_least("eval.every", self.every, 1)
        check.at_least("eval.log_every", self.log_every, 1)
        check.at_least("eval.max_tokens", self.max_tokens, 1)
        check.at_least("eval.patience", self.patience, 1)


@dataclasses.dataclass(frozen=True)
class CheckpointConfig(Settings, group="checkpoint."):
    """When the state is saved, and how many are kept."""

    every: int | None = None
    """Steps between checkpoints. None: at every dev loss."""
    keep: int = 2
    """Newest checkpoints kept; the best by dev loss stays beside them."""

    def __post_init__(self) -> None:
        check.at_least("checkpoint.every", self.every, 1)
        check.at_least("checkpoint.keep", self.keep, 1)


@dataclasses.dataclass(frozen=True)
class SampleConfig(Settings, group="sample."):
    """The samples a run prints and keeps at its end."""

    n: int = 20
    """How many."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the most likely token."""
    max_tokens: int = 200
    """Tokens a sample has at most."""

    def __post_init__(self) -> None:
        check.between("sample.n", self.n, 0, MOST_SAMPLES)
        check.at_least("sample.temperature", self.temperature, 0)
        check.between("sample.max_tokens", self.max_tokens, 1, MOST_SAMPLES)


@dataclasses.dataclass(frozen=True)
class RunConfig(Settings):
    """One run: a model, its data, and how it is trained."""

    model: ModelConfig
    """The model's own settings."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    sample: SampleConfig = SampleConfig()
    seed: int = 0
    """Seed of parameters, batches and samples."""
    seeds: int = 1
    """Runs of these settings, of seeds `seed`, `seed` + 1, ..., that one program trains together."""
    steps: int | None = None
    """Updates of the parameters. None: as many as `epochs` takes."""
    epochs: float | None = None
    """Passes over train, in place of steps."""
    tokens: float | None = None
    """Predictions of the whole run, padding included, in place of steps."""
    batch_size: int | Literal["full"] = DEFAULT_BATCH
    """Rows in a batch; full: all of train at every step."""
    batch_tokens: float | None = None
    """Predictions in a batch, padding included, in place of batch_size: as many whole rows as they hold."""
    run_dir: str | None = None
    """The run directory. None: runs/ and the config file's name."""
    init_from: str | None = None
    """A run whose parameters, tokenizer and constants this one starts from, and needs until its first checkpoint."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """auto: the best that JAX finds."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    """How many devices share the work, and how."""
    distributed: DistributedConfig = dataclasses.field(default_factory=DistributedConfig)
    """Several processes that train one run together."""
    gpu_memory: float = 0.75
    """Share of a GPU's memory that JAX takes at the start; 0: as needed."""
    plots: bool = True
    """Draw the data's pairs and the loss curve, in the run's plots/."""
    tensorboard: bool = False
    """Also write the metrics for TensorBoard, in the run's tensorboard/ (extra `tensorboard`)."""
    wandb: Literal["offline", "online"] | None = None
    """Also log the metrics to Weights & Biases (extra `wandb`). offline: in the run's wandb/, to be sent later."""
    profile: str | None = None
    """FIRST:LAST: write a trace of the steps after FIRST up to LAST, as 20:30, into the run's profile/."""

    def __post_init__(self) -> None:
        check.between("seeds", self.seeds, 1, MOST_SEEDS)
        check.between("seed", self.seed, 0, 2**32 - self.seeds)
        expand_home(self, "run_dir", "init_from")
        for name in ("run_dir", "init_from"):
            if getattr(self, name) == "":
                raise UserError(f"{name} wants a directory, got ''; leave it out if it is not meant")
        if self.steps is not None:
            check.between("steps", self.steps, 1, check.MOST)
        check.more_than("epochs", self.epochs, 0)
        check.between("gpu_memory", self.gpu_memory, 0, 1)
        self._check_batch()
        self._check_tokens()
        self._check_profile()
        if self.batch_size == "full" and self.data.order != "shuffled":
            raise UserError(
                f"data.order wants shuffled with batch_size full, which takes all rows at every step, got "
                f"{self.data.order}: leave it out, or give a number for batch_size"
            )
        self._check_length()
        if self.init_from is not None and not self.model.trained_by_steps:
            raise UserError(
                f"init_from wants a model that is trained by steps, got {self.init_from!r} for a "
                f"{type(self.model).__name__}: leave it out"
            )
        if not self.model.trained_by_steps:
            refuse_unused(
                self.eval, ("patience",), f"a {type(self.model).__name__}", "a model that is trained by steps"
            )
        if self.eval.patience is not None and not self.data.split[1]:
            raise no_dev_split()
        if not self.model.predicts_text:
            names = ("temperature", "max_tokens")  # n is the words in samples.txt
            refuse_unused(self.sample, names, f"a {type(self.model).__name__}", "a language model")
        check_seeds(self)

    @property
    def directory(self) -> Path:
        """The run directory as a path."""
        return Path(self.run_dir or DEFAULT_DIRECTORY)

    def _check_batch(self) -> None:
        if self.batch_tokens is not None:
            check.at_least("batch_tokens", self.batch_tokens, 1)
            if self.batch_size != DEFAULT_BATCH:
                raise UserError(
                    f"batch_size and batch_tokens exclude each other, got batch_size {self.batch_size} and "
                    f"batch_tokens {self.batch_tokens:g}"
                )
            self._check_counts_tokens("batch_tokens", "batch_size")
        elif self.batch_size != "full":
            check.between("batch_size", self.batch_size, 1, 2**24)
            if self.batch_size % self.optim.accumulate:
                raise UserError(
                    f"batch_size wants a multiple of the {self.optim.accumulate} micro-batches (optim.accumulate), got "
                    f"{self.batch_size}"
                )

    def _check_length(self) -> None:
        lengths = {name: getattr(self, name) for name in ("steps", "epochs", "tokens")}
        given = [name for name, length in lengths.items() if length is not None]
        if len(given) > 1:
            got = " and ".join(f"{name} {lengths[name]}" for name in given)
            raise UserError(f"{' and '.join(given)} exclude each other, got {got}")
        if self.model.trained_by_steps and not given:
            raise UserError("steps wants a number of updates (or give epochs or tokens), got none of them")
        if self.tokens is not None:
            check.at_least("tokens", self.tokens, 1)
            self._check_counts_tokens("tokens", "epochs")

    def _check_counts_tokens(self, name: str, instead: str) -> None:
        """Raise UserError for a length in tokens of a model that is counted, or reads words."""
        if not (self.model.trained_by_steps and self.model.predicts_text):
            raise UserError(
                f"{name} wants a language model that is trained by steps, got a {type(self.model).__name__}: leave it "
                f"out, or give {instead}"
            )

    @property
    def profile_steps(self) -> tuple[int, int] | None:
        """The steps between which a trace is written; None without `profile`."""
        if self.profile is None:
            return None
        first, _, last = self.profile.partition(":")
        return int(first), int(last)

    def _check_profile(self) -> None:
        if self.profile is None:
            return
        steps = self.profile_steps if re.fullmatch(r"[0-9]{1,9}:[0-9]{1,9}", self.profile) else None
        if steps is None or steps[0] >= steps[1]:
            raise UserError(f"profile wants two steps, the first below the last, as 20:30, got {self.profile!r}")
        if not self.model.trained_by_steps:
            raise UserError(
                f"profile wants a model that is trained by steps, got {self.profile!r} for a "
                f"{type(self.model).__name__}: leave it out"
            )

    def _check_tokens(self) -> None:
        model, tokens = type(self.model).__name__, type(self.data.tokens).__name__
        if not self.model.predicts_text and not self.data.tokens.are_words:
            raise UserError(
                f"data.tokens wants words for a {model}, got {tokens}(): "
                "write data=DataConfig(tokens=WordsConfig(), ...) in the config"
            )
        if self.model.predicts_text and not self.data.tokens.restores_text:
            raise UserError(
                f"data.tokens wants tokens that give the text back for a {model}, got {tokens}(), which drops what is "
                "no word: write data=DataConfig(tokens=CharactersConfig(), ...) or tokens=ReanTokensConfig()"
            )
        if isinstance(self.model, TableConfig) and self.model.vectors_from and not self.data.tokens.are_words:
            raise UserError(
                f"data.tokens wants words for model.vectors_from, which trains their vectors, got {tokens}(): "
                "write data=DataConfig(tokens=ReanTokensConfig(), ...) in the config"
            )

    def in_rows(self, row_tokens: int, multiple: int) -> "RunConfig":
        """The same with batch_tokens turned into batch_size, a multiple of so many rows of `row_tokens` predictions.

        Raises UserError where batch_tokens holds fewer.
        """
        if self.batch_tokens is None:
            return self
        rows = int(self.batch_tokens // (row_tokens * multiple)) * multiple
        if not rows:
            raise UserError(
                f"batch_tokens wants at least {row_tokens * multiple:,}, those of {multiple:,} rows of {row_tokens:,}, "
                f"got {self.batch_tokens:,.0f}"
            )
        return dataclasses.replace(self, batch_size=rows, batch_tokens=None)

    def in_steps(self, examples: int, per_step: int, row_tokens: int = 1) -> "RunConfig":
        """The same with epochs or tokens turned into steps, of `per_step` of the examples of `row_tokens` predictions.

        Raises UserError where those are more than can be counted.
        """
        if self.epochs is None and self.tokens is None:
            return self
        if self.tokens is not None:
            name, length, steps = "tokens", self.tokens, self.tokens / (per_step * row_tokens)
        else:
            assert self.epochs is not None
            name, length, steps = "epochs", self.epochs, self.epochs * examples / per_step
        if math.ceil(steps) > check.MOST:
            most = check.MOST * length / steps
            raise UserError(f"{name} wants a number up to {most:.3g} for this data and batch_size, got {length}")
        return dataclasses.replace(self, steps=max(1, math.ceil(steps)), epochs=None, tokens=None)

    @property
    def last_step(self) -> int:
        """The step of the last checkpoint, once the length is one in steps; 1 for a model that is counted."""
        return self.steps if self.steps is not None and self.model.trained_by_steps else 1


def no_dev_split() -> UserError:
    """The error for a patience without a dev loss that it could watch."""
    return UserError(
        "eval.patience wants a dev split, whose loss it watches, got none: leave it out, or give dev a share, as in "
        "--data.split 0.8 0.1 0.1"
    )
