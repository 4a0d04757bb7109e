"""Settings of REAN: the one that works, and the faithful one."""

import dataclasses
from typing import TYPE_CHECKING, Literal

from jaxlm.config import check
from jaxlm.config.model import PositionsConfig
from jaxlm.errors import UserError

if TYPE_CHECKING:
    from jaxlm.models.rean import ReanModel


@dataclasses.dataclass(frozen=True)
class ReanConfig(PositionsConfig):
    """A transformer between two projections that predicts the vector of the next token."""

    objective: Literal["softmax", "contrastive", "vmf", "cosine", "mse"] = "softmax"
    """softmax: cross-entropy over s cos(e, v) + b. contrastive: the same among the batch's targets and sampled words,
    at a cost that the vocabulary is not in. vmf: von Mises-Fisher. cosine, mse: distance to the next vector."""
    table: Literal["frozen", "tuned", "random", "learned"] = "learned"
    """Where the tokens' vectors come from. frozen: `vectors`, as they are. tuned: `vectors` and a learned difference.
    random: drawn once. learned: from scratch."""
    vectors: str | None = None
    """frozen, tuned: a file of words and their vectors."""
    rows: Literal["centered", "unit", "raw"] = "centered"
    """frozen, tuned: what is done to the vectors. raw: a common scale. unit: length 1 each. centered: their mean taken
    away before that."""
    d_embed: int = 64
    """Width of the vectors. That of the file where there is one."""
    n_layers: int = 4
    """Number of blocks."""
    n_heads: int = 4
    """Attention heads of a block; they divide d_model."""
    d_model: int = 64
    """Width of the residual stream."""
    dropout: float = 0.0
    """Share of embeddings, attention weights and blocks' outputs dropped in training."""
    scale: float = 10.0
    """softmax, contrastive: the first value of s, which is learned: an inverse temperature."""
    negatives: int = 1024
    """contrastive: words drawn by their frequency for each step, beside the batch's own targets."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_sizes(self.d_embed, self.n_layers, self.n_heads)
        check.at_least("model.d_model", self.d_model, 1)
        check.between("model.dropout", self.dropout, 0, 1)
        check.more_than("model.scale", self.scale, 0)
        check.at_least("model.negatives", self.negatives, 0)
        if self.d_model % self.n_heads:
            raise UserError(f"model.d_model wants a multiple of the {self.n_heads} heads, got {self.d_model}")
        if (self.table in ("frozen", "tuned")) != (self.vectors is not None):
            raise UserError(
                f"model.vectors wants a file for model.table frozen or tuned and none else, got {self.vectors!r} for "
                f"{self.table}"
            )

    @property
    def vectors_file(self) -> str | None:
        """`vectors`."""
        return self.vectors

    def build(self) -> "ReanModel":
        """The model of these settings."""
        from jaxlm.models.rean import build

        return build(self)


@dataclasses.dataclass(frozen=True)
class FaithfulReanConfig(PositionsConfig):
    """REAN as it was published: post-LayerNorm blocks on raw vectors, mean squared error, no projections."""

    vectors: str | None = None
    """A file of words and their vectors. None: vectors drawn once."""
    d_embed: int = 64
    """Width of the vectors and of the stream, a multiple of the heads. That of the file where there is one."""
    n_layers: int = 4
    """Number of blocks."""
    n_heads: int = 8
    """Attention heads."""
    attentions: int = 1
    """Attentions of a block, one after the other: 1 and 3 were published."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_sizes(self.d_embed, self.n_layers, self.n_heads)
        check.at_least("model.attentions", self.attentions, 1)
        if self.d_embed % self.n_heads or self.d_embed % 2:
            raise UserError(f"model.d_embed wants an even multiple of the {self.n_heads} heads, got {self.d_embed}")

    @property
    def vectors_file(self) -> str | None:
        """`vectors`."""
        return self.vectors

    def build(self) -> "ReanModel":
        """The model of these settings."""
        from jaxlm.models.rean_faithful import build

        return build(self)


def _check_sizes(d_embed: int, n_layers: int, n_heads: int) -> None:
    check.at_least("model.d_embed", d_embed, 1)
    check.at_least("model.n_layers", n_layers, 1)
    check.at_least("model.n_heads", n_heads, 1)
