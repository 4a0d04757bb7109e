"""Settings of the bag of words."""

import dataclasses
from typing import TYPE_CHECKING

from jaxlm.config import check
from jaxlm.config.model import PositionsConfig

if TYPE_CHECKING:
    from jaxlm.models.base import SequenceModel


@dataclasses.dataclass(frozen=True)
class BowConfig(PositionsConfig):
    """The mean of all embeddings so far, then a tanh layer."""

    d_embed: int = 64
    """Width of a token's embedding."""
    d_hidden: int = 64
    """Number of tanh units."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check.at_least("model.d_embed", self.d_embed, 1)
        check.at_least("model.d_hidden", self.d_hidden, 1)

    def build(self) -> "SequenceModel":
        """The model of these settings."""
        from jaxlm.models.bow import build

        return build(self)
