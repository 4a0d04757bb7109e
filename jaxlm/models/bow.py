"""The bag of words: all tokens so far, averaged."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlm.config.models import BowConfig
from jaxlm.models.base import Axes, SequenceModel, needed
from jaxlm.ops import affine, causal_mean
from jaxlm.ops.ragged import after_length


class Bow(nn.Module):
    """x = embed[tok] + position; y = x + mean of x so far; z = y + tanh(y W + b) W' + b'; logits = z U + c."""

    vocab_size: int
    context: int
    d_embed: int
    d_hidden: int

    def setup(self) -> None:
        V, E, F = self.vocab_size, self.d_embed, self.d_hidden
        normal, zeros = nn.initializers.normal, nn.initializers.zeros
        self.embed_VE = self.param("embed", normal(1.0), (V, E))
        self.position_CE = self.param("position", normal(1.0), (self.context, E))
        self.hidden_EF = self.param("hidden", normal(E**-0.5), (E, F))
        self.hidden_bias_F = self.param("hidden_bias", zeros, (F,))
        self.project_FE = self.param("project", normal(F**-0.5), (F, E))
        self.project_bias_E = self.param("project_bias", zeros, (E,))
        self.out_EV = self.param("out", normal(0.1 * E**-0.5), (E, V))
        self.out_bias_V = self.param("out_bias", zeros, (V,))

    @property
    def axes(self) -> Axes:
        return {
            "embed": ("vocab", "embed"),
            "position": ("length", "embed"),
            "hidden": ("embed", "mlp"),
            "hidden_bias": ("mlp",),
            "project": ("mlp", "embed"),
            "project_bias": ("embed",),
            "out": ("embed", "vocab"),
            "out_bias": ("vocab",),
        }

    def __call__(self, tok_BT: jax.Array) -> jax.Array:
        x_TBE = self.embed_VE[tok_BT.T] + self.position_CE[: tok_BT.shape[1], None]
        return jnp.swapaxes(self._logits(x_TBE, causal_mean(x_TBE)), 0, 1)

    def init_cache(self, batch: int, length: int) -> dict[str, jax.Array]:
        return {"sum": jnp.zeros((batch, self.d_embed)), "position": jnp.zeros(batch, jnp.int32)}

    def extend(
        self, cache: dict[str, jax.Array], tok_BT: jax.Array, length_B: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        before_BE, position_B = cache["sum"], cache["position"]
        place_TB = position_B[None] + jnp.arange(tok_BT.shape[1])[:, None]
        x_TBE = self.embed_VE[tok_BT.T] + self.position_CE[jnp.minimum(place_TB, self.context - 1)]
        sum_TBE = before_BE[None] + jnp.cumsum(x_TBE.astype(jnp.float32), axis=0)
        mean_TBE = (sum_TBE / (place_TB + 1).astype(jnp.float32)[:, :, None]).astype(x_TBE.dtype)
        cache = {"sum": after_length(before_BE, sum_TBE, length_B), "position": position_B + length_B}
        return jnp.swapaxes(self._logits(x_TBE, mean_TBE), 0, 1), cache

    def _logits(self, x: jax.Array, mean: jax.Array) -> jax.Array:
        """The logits at each place of a batch and its positions, in either order."""
        y = x + mean
        h = jnp.tanh(affine(y, self.hidden_EF, self.hidden_bias_F))
        return affine(y + affine(h, self.project_FE, self.project_bias_E), self.out_EV, self.out_bias_V)


def build(config: BowConfig) -> SequenceModel:
    """The model of these settings."""
    V, C = needed(config.vocab_size, "BowConfig.vocab_size"), needed(config.context, "BowConfig.context")
    module = Bow(vocab_size=V, context=C, d_embed=config.d_embed, d_hidden=config.d_hidden)
    return SequenceModel(module, context=C, vocab_size=V)
