"""Settings of the recurrent networks."""

import dataclasses
from typing import TYPE_CHECKING, Literal

from jaxlm.config import check
from jaxlm.config.model import ModelConfig

if TYPE_CHECKING:
    from jaxlm.models.base import SequenceModel


@dataclasses.dataclass(frozen=True)
class RnnConfig(ModelConfig):
    """A recurrent layer between an embedding and the logits, with a learned start state."""

    cell: Literal["rnn", "gru", "lstm"] = "rnn"
    """rnn: tanh. gru: the reset gate acts on the state before the product. lstm: input, forget and output gates."""
    d_embed: int = 64
    """Width of a token's embedding."""
    d_hidden: int = 64
    """Width of the state."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check.at_least("model.d_embed", self.d_embed, 1)
        check.at_least("model.d_hidden", self.d_hidden, 1)

    def build(self) -> "SequenceModel":
        """The model of these settings."""
        from jaxlm.models.rnn import build

        return build(self)
