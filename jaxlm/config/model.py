"""What the settings of every model share."""

import abc
import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from jaxlm.config import check

if TYPE_CHECKING:
    from jaxlm.models.base import LanguageModel


@dataclasses.dataclass(frozen=True)
class ModelConfig(abc.ABC):
    """A model's settings. A subclass adds its sizes and builds the model from them.

    A subclass in a file of your own works with train.py as these do.
    """

    vocab_size: int | None = None
    """Tokens in the vocabulary, boundary included. None: what the data has."""

    trained_by_steps: ClassVar[bool] = True
    """False: `model.fit(tokens)` gives the parameters in one call (counts)."""
    predicts_text: ClassVar[bool] = True
    """False: the parameters are vectors of words; there is no likelihood of a text and nothing to sample (word2vec)."""

    def __post_init__(self) -> None:
        check.at_least("model.vocab_size", self.vocab_size, 1)

    @abc.abstractmethod
    def build(self) -> "LanguageModel[Any]":
        """The model of these settings. Imports JAX; raises UserError while vocab_size is None."""

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
        filled = dataclasses.replace(self, vocab_size=self.vocab_size or vocab_size, context=self.context or longest)
        return filled
