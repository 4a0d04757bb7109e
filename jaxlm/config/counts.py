"""Settings of the count model."""

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxlm.config import check
from jaxlm.config.model import ModelConfig

if TYPE_CHECKING:
    from jaxlm.models.counts import CountModel


@dataclasses.dataclass(frozen=True)
class CountsConfig(ModelConfig):
    """An n-gram table: p(token | the order - 1 tokens before it) from counts."""

    order: int = 2
    """Tokens an n-gram has: 1 unigram, 2 bigram, 3 trigram."""
    smoothing: Literal["add-k", "kneser-ney"] = "add-k"
    """How counts become probabilities. kneser-ney: interpolated, with three discounts for each length."""
    add_k: float = 1.0
    """add-k: added to every count (a "fake count"). With 0 an unseen event has probability 0."""

    trained_by_steps: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check.between("model.order", self.order, 1, 64)
        check.between("model.add_k", self.add_k, 0, 1e30)

    def build(self) -> "CountModel":
        """The model of these settings."""
        from jaxlm.models.base import needed
        from jaxlm.models.counts import AddK, KneserNey

        sizes = {"context": self.order - 1, "vocab_size": needed(self.vocab_size, "CountsConfig.vocab_size")}
        return KneserNey(**sizes) if self.smoothing == "kneser-ney" else AddK(**sizes, add_k=self.add_k)
