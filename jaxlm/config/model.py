"""What the settings of every model share."""

import abc
import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from jaxlm.config import check
from jaxlm.config.settings import Settings
from jaxlm.errors import UserError

if TYPE_CHECKING:
    from jaxlm.models.base import LanguageModel


@dataclasses.dataclass(frozen=True)
class ModelConfig(Settings, abc.ABC, group="model."):
    """A model's settings. A subclass adds its sizes and builds the model from them.

    A subclass in a file of your own works with train.py as these do.
    """

    vocab_size: int | None = None
    """Tokens in the vocabulary, boundary included. None: what the data has."""

    trained_by_steps: ClassVar[bool] = True
    """False: `model.fit(tokens, ages)` gives the parameters in one call (counts)."""
    predicts_text: ClassVar[bool] = True
    """False: the parameters are vectors of words; there is no likelihood of a text and nothing to sample (word2vec)."""

    def __post_init__(self) -> None:
        check.at_least("model.vocab_size", self.vocab_size, 1)

    @abc.abstractmethod
    def build(self) -> "LanguageModel[Any]":
        """The model of these settings. Imports JAX; raises ValueError while vocab_size is None."""

    def filled(self, vocab_size: int, longest: int) -> "ModelConfig":
        """These settings with what only the data knows: its vocabulary, and the length of its longest sequence."""
        return dataclasses.replace(self, vocab_size=self.vocab_size or vocab_size)


@dataclasses.dataclass(frozen=True)
class PositionsConfig(ModelConfig):
    """Settings of a model with a table of positions."""

    context: int | None = None
    """Positions in the table, the longest sequence. None: as long as the data's sequences."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context is not None:
            check.between("model.context", self.context, 1, 2**16)

    def filled(self, vocab_size: int, longest: int) -> "PositionsConfig":
        """These settings with the data's vocabulary and its longest sequence."""
        return dataclasses.replace(self, vocab_size=self.vocab_size or vocab_size, context=self.context or longest)


@dataclasses.dataclass(frozen=True)
class TransformerConfig(PositionsConfig):
    """Sizes of GPT-2's blocks."""

    n_layers: int = 4
    """Number of blocks."""
    n_heads: int = 4
    """Attention heads of a block; they divide d_model."""
    d_model: int = 64
    """Width of the residual stream."""
    dropout: float = 0.0
    """Share of embeddings, attention weights and blocks' outputs dropped in training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check.at_least("model.n_layers", self.n_layers, 1)
        check.at_least("model.n_heads", self.n_heads, 1)
        check.at_least("model.d_model", self.d_model, 1)
        check.between("model.dropout", self.dropout, 0, 1)
        if self.d_model % self.n_heads:
            raise UserError(f"model.d_model wants a multiple of the {self.n_heads} heads, got {self.d_model}")
