"""Settings of the WaveNets."""

import dataclasses
from typing import TYPE_CHECKING, Literal

from jaxlm.config import check
from jaxlm.config.model import ModelConfig

if TYPE_CHECKING:
    from jaxlm.models.wavenet import Wavenet


@dataclasses.dataclass(frozen=True)
class WavenetConfig(ModelConfig):
    """Layers with dilations 1, 2, 4, ..., each joining two positions of the layer below."""

    layers: int = 3
    """Number of layers; the context is 2 ** layers tokens."""
    d_embed: int = 24
    """Width of a token's embedding."""
    d_hidden: int = 128
    """Width of each layer."""
    style: Literal["fusion", "gated"] = "fusion"
    """fusion: tanh of the normalised pair, as in the makemore lecture.
    gated: tanh times sigmoid, with residuals and skips, as in the paper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check.between("model.layers", self.layers, 1, 15)
        check.at_least("model.d_embed", self.d_embed, 1)
        check.at_least("model.d_hidden", self.d_hidden, 1)

    def build(self) -> "Wavenet":
        """The model of these settings."""
        from jaxlm.models.wavenet import build

        return build(self)
