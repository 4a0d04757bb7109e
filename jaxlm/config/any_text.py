"""Settings of the recipe for any text, which chooses a model and its training by a look at the file."""

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from jaxlm.config import check
from jaxlm.config.models import ModelConfig
from jaxlm.errors import UserError

if TYPE_CHECKING:
    from jaxlm.models.base import LanguageModel


@dataclasses.dataclass(frozen=True)
class AnyTextConfig(ModelConfig):
    """The recipe for any text: tokens, model, sizes, rate and steps are chosen for the file and this machine."""

    minutes: float = 5.0
    """How long the training may take."""

    trained_by_steps: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check.more_than("minutes", self.minutes, 0)

    def build(self) -> "LanguageModel[Any]":
        """Raises UserError: there is no model before the text has been looked at."""
        raise UserError("AnyTextConfig() chooses a model when it has looked at a text: train with jaxlm.any_text.train")
