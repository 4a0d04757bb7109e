"""Settings of the transformer."""

import dataclasses
from typing import TYPE_CHECKING

from jaxlm.config import check
from jaxlm.config.model import PositionsConfig
from jaxlm.errors import UserError

if TYPE_CHECKING:
    from jaxlm.models.base import SequenceModel


@dataclasses.dataclass(frozen=True)
class GptConfig(PositionsConfig):
    """GPT-2's transformer: pre-LayerNorm blocks, learned positions, GELU by tanh."""

    n_layers: int = 4
    """Number of blocks."""
    n_heads: int = 4
    """Attention heads of a block; they divide d_model."""
    d_model: int = 64
    """Width of the residual stream."""
    dropout: float = 0.0
    """Share of embeddings, attention weights and blocks' outputs dropped in training."""
    tied: bool = False
    """Whether the logits use the token embeddings."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check.at_least("model.n_layers", self.n_layers, 1)
        check.at_least("model.n_heads", self.n_heads, 1)
        check.at_least("model.d_model", self.d_model, 1)
        check.between("model.dropout", self.dropout, 0, 1)
        if self.d_model % self.n_heads:
            raise UserError(f"model.d_model wants a multiple of the {self.n_heads} heads, got {self.d_model}")

    def build(self) -> "SequenceModel":
        """The model of these settings."""
        from jaxlm.models.gpt import build

        return build(self)
