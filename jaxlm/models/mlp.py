"""The multilayer perceptron of Bengio et al., "A neural probabilistic language model", JMLR 3 (2003), equation 1."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlm.config.models import MlpConfig
from jaxlm.models.base import Axes, WindowModel, needed
from jaxlm.ops import dense, unembed


class Mlp(nn.Module):
    """logits = tanh(concat(embed[ctx]) @ W + b) @ U.T + c.

    Without the paper's optional direct connections from the embeddings to the logits. U has one row for each token, as
    an embedding does.
    """

    vocab_size: int
    d_embed: int
    d_hidden: int
    init_style: str
    gain: float
    out_gain: float

    @property
    def axes(self) -> Axes:
        return {
            "embed": ("vocab", "embed"),
            "hidden": ("embed", "mlp"),
            "hidden_bias": ("mlp",),
            "out": ("vocab", "embed"),
            "out_bias": ("vocab",),
        }

    @nn.compact
    def __call__(self, ctx_NC: jax.Array) -> jax.Array:
        N, C = ctx_NC.shape
        V, E, F, I = self.vocab_size, self.d_embed, self.d_hidden, C * self.d_embed
        normal = nn.initializers.normal
        if self.init_style == "normal":
            hidden_scale, out_scale, bias = 1.0, 1.0, normal(1.0)
        else:
            hidden_scale, out_scale, bias = self.gain / I**0.5, self.out_gain / F**0.5, nn.initializers.zeros
        embed_VE = self.param("embed", normal(1.0), (V, E))
        hidden_IF = self.param("hidden", normal(hidden_scale), (I, F))
        hidden_bias_F = self.param("hidden_bias", bias, (F,))
        out_VF = self.param("out", normal(out_scale), (V, F))
        out_bias_V = self.param("out_bias", bias, (V,))
        if V * (N + E) < N * E:  # fewer operations by a table of what each token adds at each place
            one_hot_NCV = (ctx_NC[:, :, None] == jnp.arange(V)[None, None]).astype(embed_VE.dtype)
            table_CVF = jnp.einsum("ve,cef->cvf", embed_VE, hidden_IF.reshape(C, E, F))
            sum_NF = one_hot_NCV.reshape(N, C * V) @ table_CVF.reshape(C * V, F)
        else:
            sum_NF = dense(embed_VE[ctx_NC].reshape(N, I), hidden_IF)
        return unembed(jnp.tanh(sum_NF + hidden_bias_F[None]), out_VF) + out_bias_V[None]


def build(config: MlpConfig) -> WindowModel:
    """The model of these settings."""
    V = needed(config.vocab_size, "MlpConfig.vocab_size")
    module = Mlp(
        vocab_size=V,
        d_embed=config.d_embed,
        d_hidden=config.d_hidden,
        init_style=config.init,
        gain=config.gain,
        out_gain=config.out_gain,
    )
    return WindowModel(context=config.context, vocab_size=V, module=module)
