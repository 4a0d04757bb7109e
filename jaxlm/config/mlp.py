"""Settings of the multilayer perceptron."""

import dataclasses
from typing import TYPE_CHECKING, Literal

from jaxlm.config import check
from jaxlm.config.model import ModelConfig

if TYPE_CHECKING:
    from jaxlm.models.base import WindowModel


@dataclasses.dataclass(frozen=True)
class MlpConfig(ModelConfig):
    """Bengio et al. (2003): embeddings of the last tokens, one tanh layer, logits."""

    context: int = 3
    """Tokens the model sees."""
    d_embed: int = 10
    """Width of a token's embedding."""
    d_hidden: int = 200
    """Number of tanh units."""
    init: Literal["normal", "scaled"] = "scaled"
    """normal: every parameter from N(0, 1). scaled: standard deviation gain / sqrt(inputs), and zero biases."""
    gain: float = 5 / 3
    """scaled: 5/3 keeps a tanh layer's variance; a wide window learns slower but generalises better with less."""
    out_gain: float = 1 / 60
    """scaled: of the output layer; so small, the first loss is near ln(vocab_size). AdamW learns faster with more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check.between("model.context", self.context, 1, 2**16 - 1)
        check.at_least("model.d_embed", self.d_embed, 1)
        check.at_least("model.d_hidden", self.d_hidden, 1)
        check.at_least("model.gain", self.gain, 0)
        check.at_least("model.out_gain", self.out_gain, 0)

    def build(self) -> "WindowModel":
        """The model of these settings."""
        from jaxlm.models.mlp import build

        return build(self)
