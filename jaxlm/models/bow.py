"""The bag of words: all tokens so far, averaged."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlm.config.models import BowConfig
from jaxlm.models.base import Axes, SequenceModel, needed
from jaxlm.ops import affine, causal_mean


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
        return {"sum": jnp.zeros((batch, self.d_embed)), "at": jnp.int32(0)}

    def extend(self, cache: dict[str, jax.Array], tok_BT: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        T = tok_BT.shape[1]
        place_T = jnp.minimum(cache["at"] + jnp.arange(T), self.context - 1)
        x_BTE = self.embed_VE[tok_BT] + self.position_CE[place_T]
        sum_BTE = cache["sum"][:, None] + jnp.cumsum(x_BTE, axis=1)
        count_T1 = (cache["at"] + 1 + jnp.arange(T))[:, None].astype(jnp.float32)
        return self._logits(x_BTE, sum_BTE / count_T1[None]), {"sum": sum_BTE[:, -1], "at": cache["at"] + T}

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
