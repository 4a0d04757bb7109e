"""The transformer of GPT-2 (Radford et al. 2019): pre-LayerNorm, learned positions, GELU by tanh."""

import flax.linen as nn
import jax

from jaxlm.config.models import GptConfig
from jaxlm.models.base import Axes, SequenceModel, needed
from jaxlm.models.transformer import INIT, Cache, Transformer, sizes
from jaxlm.ops import affine


class Gpt(Transformer):
    """x = embed[tok]; the transformer; logits = h U, where U is the embedding or a matrix of its own."""

    vocab_size: int
    tied: bool

    def setup(self) -> None:
        normal, V, D = nn.initializers.normal(INIT), self.vocab_size, self.d_model
        self.embed_VD = self.param("embed", normal, (V, D))
        super().setup()
        self.out_VD = self.embed_VD if self.tied else self.param("out", normal, (V, D))

    @property
    def axes(self) -> Axes:
        own: Axes = {"embed": ("vocab", "embed")} | ({} if self.tied else {"out": ("vocab", "embed")})
        return {**super().axes, **own}

    def __call__(self, tok_BT: jax.Array) -> jax.Array:
        return affine(self.hidden(self.embed_VD[tok_BT]), self.out_VD.T)

    def extend(self, cache: Cache, tok_BT: jax.Array, length_B: jax.Array) -> tuple[jax.Array, Cache]:
        h_BTD, cache = self.extend_hidden(cache, self.embed_VD[tok_BT], length_B)
        return affine(h_BTD, self.out_VD.T), cache


def build(config: GptConfig) -> SequenceModel:
    """The model of these settings."""
    module = Gpt(**sizes(config), vocab_size=needed(config.vocab_size, "GptConfig.vocab_size"), tied=config.tied)
    return SequenceModel(module, context=module.context, vocab_size=module.vocab_size)
