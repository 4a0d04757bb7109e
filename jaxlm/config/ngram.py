"""Settings of the neural n-gram."""

import dataclasses
from typing import TYPE_CHECKING

from jaxlm.config import check
from jaxlm.config.model import ModelConfig

if TYPE_CHECKING:
    from jaxlm.models.base import WindowModel


MAX_ENTRIES = 2**28
"""Of the table."""
MOST_ORDER = MAX_ENTRIES.bit_length() - 1
"""Beyond it even two tokens have more entries."""


@dataclasses.dataclass(frozen=True)
class NgramConfig(ModelConfig):
    """One row of logits for each context of order - 1 tokens, learned by descent."""

    order: int = 2
    """Tokens an n-gram has: 2 bigram, 3 trigram. The table has vocab_size ** (order - 1) rows."""
    init_scale: float = 1.0
    """Standard deviation of the logits at the start; 0 starts from the uniform distribution."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check.between("model.order", self.order, 2, MOST_ORDER)
        check.at_least("model.init_scale", self.init_scale, 0)

    def build(self) -> "WindowModel":
        """The model of these settings."""
        from jaxlm.models.ngram import build

        return build(self)
