"""RunConfig and what it holds: data, optimiser, evaluation, checkpoints, samples."""

import dataclasses
import math
from typing import Literal

from jaxlm.config import check
from jaxlm.config.model import ModelConfig
from jaxlm.config.settings import Settings
from jaxlm.errors import UserError

MOST_SAMPLES = 2**20
"""Samples at once, and tokens of one."""


@dataclasses.dataclass(frozen=True)
class DataConfig(Settings, group="data."):
    """Where the text comes from and how it becomes examples."""

    path: str | None = None
    """A UTF-8 text file. None: the named set."""
    name: Literal["ssa_2017", "makemore", "tinyshakespeare"] = "ssa_2017"
    """A named set: ssa_2017 comes with the package, the others are downloaded once."""
    kind: Literal["lines", "stream", "dialogues"] = "lines"
    """lines: one example a line. stream: running text.
    dialogues: one example for all lines up to a blank one, each a turn that begins with its speaker's label."""
    labels: tuple[str, str] = ("human", "network")
    """dialogues: the labels of who asks and who answers; ": " follows them."""
    tokens: Literal["characters", "rean"] = "characters"
    """characters: one token each.
    rean: words with the white space after them, other characters alone, unknown words in bytes.
    word2vec finds its words by model.words with characters; with rean these tokens are its words."""
    min_count: int = 2
    """rean: how often train has a word at least; the rarer ones are spelled in bytes."""
    vocab_limit: int | None = None
    """rean: words at most, the most frequent. None: any number."""
    example: Literal["window", "sequence"] = "window"
    """What one row of a batch is. window: a context and its next token.
    sequence: a whole line, or a stretch of a stream, with a prediction at every position."""
    max_length: int = 256
    """Predictions in a sequence at most.
    A longer line is cut into overlapping sequences; a stream's sequences have this length."""
    split: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Shares of train, dev and test. Lines and dialogues are shuffled first, a stream is cut by position."""
    split_seed: int = 42
    """Seed of that shuffle, by Python's random.Random."""

    def __post_init__(self) -> None:
        check.at_least("data.max_length", self.max_length, 1)
        check.at_least("data.min_count", self.min_count, 1)
        check.at_least("data.vocab_limit", self.vocab_limit, 1)
        if not all(label.strip() and "\n" not in label for label in self.labels) or len(set(self.labels)) < 2:
            raise UserError(f"data.labels wants two different labels of one line, got {self.labels}")
        if any(not 0 <= share <= 1 for share in self.split) or abs(sum(self.split) - 1) > 1e-6:
            shares = " ".join(map(str, self.split))
            raise UserError(f"data.split wants three shares from 0 to 1 that add up to 1, got {shares}")
        if self.split[0] == 0:
            raise UserError("data.split wants a share above 0 for train, got 0")


@dataclasses.dataclass(frozen=True)
class OptimConfig(Settings, group="optim."):
    """The optimiser and its learning-rate schedule."""

    name: Literal["sgd", "adamw"] = "sgd"
    """The update rule."""
    lr: float = 0.1
    """Learning rate before the schedule's factors."""
    schedule: Literal["constant", "piecewise", "cosine", "linear"] = "constant"
    """piecewise: lr times each factor whose boundary has passed. cosine, linear: down to end_factor * lr."""
    boundaries: tuple[float, ...] = ()
    """piecewise: where each factor sets in; below 1 a fraction of the run, else a step."""
    factors: tuple[float, ...] = ()
    """piecewise: one factor for each boundary."""
    warmup: float = 0.0
    """cosine: linear rise from 0; below 1 a fraction of the run, else steps."""
    end_factor: float = 0.0
    """cosine, linear: the last learning rate as a share of lr."""
    momentum: float = 0.0
    """sgd: decay of the velocity; 0 is plain descent."""
    betas: tuple[float, float] = (0.9, 0.999)
    """adamw: decay of the first and second moments."""
    eps: float = 1e-8
    """adamw: added to the root of the second moment."""
    weight_decay: float = 0.0
    """adamw: decoupled decay of every parameter, as a share of the learning rate."""
    clip: float | None = None
    """Largest global norm of a gradient. None: no clipping."""
    l2: float = 0.0
    """Adds l2 * mean(w ** 2) of each parameter array to the loss."""

    def __post_init__(self) -> None:
        check.more_than("optim.lr", self.lr, 0)
        check.between("optim.momentum", self.momentum, 0, 1)
        for beta in self.betas:
            check.below("optim.betas", beta, 0, 1)
        check.more_than("optim.eps", self.eps, 0)
        check.at_least("optim.weight_decay", self.weight_decay, 0)
        check.more_than("optim.clip", self.clip, 0)
        check.at_least("optim.l2", self.l2, 0)
        check.at_least("optim.warmup", self.warmup, 0)
        check.between("optim.end_factor", self.end_factor, 0, 1)
        if len(self.boundaries) != len(self.factors):
            raise UserError(
                f"optim.factors wants one factor for each of the {len(self.boundaries)} boundaries, "
                f"got {len(self.factors)}"
            )
        if self.schedule == "piecewise" and not self.boundaries:
            raise UserError("optim.boundaries wants at least one boundary for schedule piecewise, got none")
        for boundary in self.boundaries:
            check.between("optim.boundaries", boundary, 0, check.MOST)
        for factor in self.factors:
            check.between("optim.factors", factor, 0, check.LARGEST)


@dataclasses.dataclass(frozen=True)
class EvalConfig(Settings, group="eval."):
    """When losses are taken, and how much of a split they read."""

    every: int | None = None
    """Steps between dev losses. None: a tenth of the run."""
    log_every: int | None = None
    """Steps between train lines in metrics.jsonl. None: a hundredth of the run."""
    max_tokens: int = 1_000_000
    """Predictions of train read for eval.json at most; dev and test are always read whole."""

    def __post_init__(self) -> None:
        check.at_least("eval.every", self.every, 1)
        check.at_least("eval.log_every", self.log_every, 1)
        check.at_least("eval.max_tokens", self.max_tokens, 1)


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
    """Divides the logits; 0 takes the likeliest token."""
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
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    sample: SampleConfig = SampleConfig()
    seed: int = 0
    """Of parameters, batches and samples."""
    steps: int | None = None
    """Updates of the parameters. None: as many as `epochs` takes."""
    epochs: float | None = None
    """Passes over train, in place of steps."""
    batch_size: int | Literal["full"] = 32
    """Rows in a batch; full: all of train at every step."""
    run_dir: str | None = None
    """The run directory. None: runs/ and the config file's name."""
    init_from: str | None = None
    """A run whose parameters, tokenizer and constants this one starts from, and needs until its first checkpoint."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """auto: the best that JAX finds."""
    gpu_memory: float = 0.75
    """Share of a GPU's memory that JAX takes at the start; 0: as needed."""
    plots: bool = True
    """Draw the data's pairs and the loss curve, in the run's plots/."""
    tensorboard: bool = False
    """Also write the metrics for TensorBoard, in the run's tensorboard/ (extra `tensorboard`)."""

    def __post_init__(self) -> None:
        check.between("seed", self.seed, 0, 2**32 - 1)
        for name in ("run_dir", "init_from"):
            if getattr(self, name) == "":
                raise UserError(f"{name} wants a directory, got ''; leave it out if it is not meant")
        if self.steps is not None:
            check.between("steps", self.steps, 1, check.MOST)
        check.more_than("epochs", self.epochs, 0)
        check.between("gpu_memory", self.gpu_memory, 0, 1)
        if self.batch_size != "full":
            check.between("batch_size", self.batch_size, 1, 2**24)
        if self.steps is not None and self.epochs is not None:
            raise UserError(f"steps and epochs exclude each other, got steps {self.steps} and epochs {self.epochs}")
        if self.model.trained_by_steps and self.steps is None and self.epochs is None:
            raise UserError("steps wants a number of updates (or give epochs), got neither")
        if self.init_from is not None and not self.model.trained_by_steps:
            raise UserError(
                f"init_from wants a model that is trained by steps, got {self.init_from!r} for a "
                f"{type(self.model).__name__}: leave it out"
            )

    def in_steps(self, examples: int, per_step: int) -> "RunConfig":
        """The same with epochs turned into steps. Raises UserError where those are more than can be counted."""
        if self.epochs is None:
            return self
        steps = max(1, math.ceil(self.epochs * examples / per_step))
        if steps > check.MOST:
            most = check.MOST * per_step / examples
            raise UserError(f"epochs wants a number up to {most:.3g} for this data and batch_size, got {self.epochs}")
        return dataclasses.replace(self, steps=steps, epochs=None)

    @property
    def last_step(self) -> int:
        """The step of the last checkpoint, once epochs are turned into steps; 1 for a model that is counted."""
        return self.steps if self.steps is not None and self.model.trained_by_steps else 1
