"""Settings of REAN: the one that works, the faithful one, and where their vectors come from."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from jaxlm.config import check
from jaxlm.config.models import PositionsConfig
from jaxlm.config.optim import OptimConfig
from jaxlm.config.settings import Settings, expand_home, refuse_unused
from jaxlm.config.transformer import TransformerConfig
from jaxlm.config.word2vec import Word2vecConfig
from jaxlm.errors import UserError

if TYPE_CHECKING:
    from jaxlm.config.run import RunConfig
    from jaxlm.rean.model import ReanModel
    from jaxlm.training.job import Job


@dataclasses.dataclass(frozen=True)
class VectorsConfig(Settings, group="model.vectors_from."):
    """A word2vec training on the run's own tokens, of train alone, before the run itself."""

    model: Word2vecConfig = dataclasses.field(default_factory=lambda: Word2vecConfig(subsample=1e-4))
    """Its settings; the width is the model's d_embed, the words are the data's tokens."""
    optim: OptimConfig = dataclasses.field(
        default_factory=lambda: OptimConfig(lr=0.025, schedule="linear", end_factor=0.004)
    )
    """Its learning rate."""
    epochs: float = 3.0
    """Passes over train."""
    batch_size: int = 65_536
    """Tokens of a step."""

    def __post_init__(self) -> None:
        check.more_than("model.vectors_from.epochs", self.epochs, 0)
        check.between("model.vectors_from.batch_size", self.batch_size, 1, 2**24)


@dataclasses.dataclass(frozen=True)
class TableConfig(PositionsConfig):
    """Settings of a model that stands on vectors of words."""

    vectors: str | None = None
    """Words and their vectors: a file in word2vec's or GloVe's formats, or a run directory of word2vec.
    On the command line it takes the place of the config file's `vectors_from`."""
    vectors_from: VectorsConfig | None = None
    """In place of `vectors`: how they are trained first, in the directory beside the run's that ends in _vectors."""
    d_embed: int = 64
    """Width of the vectors. That of the file where there is one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        expand_home(self, "vectors")
        check.at_least("model.d_embed", self.d_embed, 1)
        if self.vectors is not None and self.vectors_from is not None:
            raise UserError(
                f"model.vectors and model.vectors_from exclude each other: give one of them, got {self.vectors!r} and "
                "settings of a training"
            )

    def prepare(self, config: "RunConfig", *, restart: bool, dry_run: bool, log: Callable[[str], None]) -> "Job":
        """The job that trains this model, and its vectors before it where they come from a training."""
        from jaxlm.rean.training import prepare

        return prepare(config, restart=restart, dry_run=dry_run, log=log)

    @property
    def has_vectors(self) -> bool:
        """True if vectors are given or trained first."""
        return self.vectors is not None or self.vectors_from is not None


@dataclasses.dataclass(frozen=True)
class ReanConfig(TableConfig, TransformerConfig):
    """A transformer between two projections that predicts the vector of the next token."""

    objective: Literal["softmax", "contrastive", "vmf", "cosine", "mse"] = "softmax"
    """softmax: cross-entropy over s cos(e, v) + b.
    contrastive: the same among the batch's targets and sampled words, at a cost that the vocabulary is not in.
    Of a table that is trained its steps move the rows that they read, no others (training.state.row_step).
    vmf: von Mises-Fisher. cosine, mse: distance to the next vector."""
    table: Literal["frozen", "tuned", "random", "learned"] = "learned"
    """Where the tokens' vectors come from. frozen: those given, as they are.
    tuned: those and a learned difference. random: drawn once. learned: from scratch."""
    rows: Literal["centered", "unit", "raw"] = "centered"
    """frozen, tuned: how the given vectors are scaled.
    raw: a common scale. unit: length 1 each. centered: their mean is subtracted before that."""
    scale: float = 10.0
    """softmax, contrastive: the first value of s, which is learned: an inverse temperature."""
    negatives: int = 1024
    """contrastive: words drawn by their frequency for each step, beside the batch's own targets."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check.more_than("model.scale", self.scale, 0)
        check.at_least("model.negatives", self.negatives, 0)
        if (self.table in ("frozen", "tuned")) != self.has_vectors:
            raise UserError(
                "model.vectors (or model.vectors_from) wants to be set for model.table frozen or tuned and for none "
                f"else, got {self.vectors!r} for {self.table}"
            )
        objective = f"model.objective {self.objective}"
        if self.objective != "contrastive":
            refuse_unused(self, ("negatives",), objective, "model.objective contrastive")
        if self.objective not in ("softmax", "contrastive"):
            refuse_unused(self, ("scale",), objective, "model.objective softmax or contrastive")
        if self.table not in ("frozen", "tuned"):
            refuse_unused(self, ("rows",), f"model.table {self.table}", "model.table frozen or tuned")

    def build(self) -> "ReanModel":
        """The model of these settings."""
        from jaxlm.rean.model import build

        return build(self)


@dataclasses.dataclass(frozen=True)
class FaithfulReanConfig(TableConfig):
    """REAN as it was published: post-LayerNorm blocks on raw vectors, mean squared error, no projections.

    d_embed is the width of the stream too, a multiple of the heads. Without vectors the table is drawn once.
    """

    n_layers: int = 4
    """Number of blocks."""
    n_heads: int = 8
    """Attention heads."""
    attentions: int = 1
    """Attentions of a block, one after the other: 1 and 3 were published."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check.at_least("model.n_layers", self.n_layers, 1)
        check.at_least("model.n_heads", self.n_heads, 1)
        check.at_least("model.attentions", self.attentions, 1)
        if self.d_embed % self.n_heads or self.d_embed % 2:
            raise UserError(
                f"model.d_embed wants an even number that the {self.n_heads} heads divide, got {self.d_embed}"
            )

    def build(self) -> "ReanModel":
        """The model of these settings."""
        from jaxlm.rean.faithful import build

        return build(self)
