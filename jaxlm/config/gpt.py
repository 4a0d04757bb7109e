"""Settings of the transformer."""

import dataclasses
from typing import TYPE_CHECKING

from jaxlm.config.model import TransformerConfig

if TYPE_CHECKING:
    from jaxlm.models.base import SequenceModel


@dataclasses.dataclass(frozen=True)
class GptConfig(TransformerConfig):
    """GPT-2's transformer: pre-LayerNorm blocks, learned positions, GELU by tanh."""

    tied: bool = False
    """Whether the logits use the token embeddings."""

    def build(self) -> "SequenceModel":
        """The model of these settings."""
        from jaxlm.models.gpt import build

        return build(self)
