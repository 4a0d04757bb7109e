"""Settings of a mixture of a network and counts."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from jaxlm.config import check
from jaxlm.config.models import ModelConfig
from jaxlm.config.transformer import GptConfig
from jaxlm.errors import UserError

if TYPE_CHECKING:
    from jaxlm.config.run import RunConfig
    from jaxlm.models.mixture import Mixture
    from jaxlm.training.job import Job


@dataclasses.dataclass(frozen=True)
class MixtureConfig(ModelConfig):
    """A network and Kneser-Ney counts of the same text, whose probabilities are mixed by a share fitted on dev."""

    network: ModelConfig = dataclasses.field(default_factory=GptConfig)
    """A model of sequences: GptConfig(...), RnnConfig(...), BowConfig(...)."""
    order: int = 6
    """Tokens of the longest n-gram that is counted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check.between("model.order", self.order, 1, 64)
        if not (self.network.trained_by_steps and self.network.predicts_text) or isinstance(self.network, type(self)):
            raise UserError(
                f"model.network wants a network of sequences such as GptConfig(...), got {type(self.network).__name__}"
            )

    def build(self) -> "Mixture":
        """The model of these settings."""
        from jaxlm.models.mixture import build

        return build(self)

    def prepare(self, config: "RunConfig", *, restart: bool, dry_run: bool, log: Callable[[str], None]) -> "Job":
        """The job that counts train and trains the network."""
        from jaxlm.training.mixture import prepare

        return prepare(config, restart=restart, dry_run=dry_run, log=log)

    def filled(self, vocab_size: int, longest: int) -> "MixtureConfig":
        """These settings with the data's vocabulary and its longest sequence, those of the network too."""
        V = self.vocab_size or vocab_size
        return dataclasses.replace(self, vocab_size=V, network=self.network.filled(V, longest))
