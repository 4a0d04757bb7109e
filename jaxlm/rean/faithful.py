"""REAN as it was published (github.com/marmust/REAN-architecture): its blocks, its mean squared error, its padding."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlm.config.rean import FaithfulReanConfig
from jaxlm.models.base import Axes, needed
from jaxlm.models.transformer import Cache, join_heads, split_heads
from jaxlm.ops import causal_attention, layer_norm, sinusoids
from jaxlm.rean.model import ReanModel
from jaxlm.rean.table import VectorModel


class FaithfulRean(VectorModel):
    """x = vector[tok] + sinusoid; L times: K times x = norm(x + norm(attention(x))), then x = norm(x + act(x W + b)).

    act(z) = tanh(s z) + l z, with scalars s and l of each block drawn from U(0, 3). The stream is as wide as the
    vectors, and its end is the predicted vector. Nothing is projected in or out.
    """

    context: int
    n_layers: int
    n_heads: int
    attentions: int

    def setup(self) -> None:
        L, K, D, N = self.n_layers, self.attentions, self.d_embed, self.n_heads
        H = D // N
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        matrix = nn.initializers.lecun_uniform(batch_axis=0)
        into_heads = nn.initializers.lecun_uniform(in_axis=2, out_axis=(3, 4), batch_axis=(0, 1))
        from_heads = nn.initializers.lecun_uniform(in_axis=(2, 3), out_axis=4, batch_axis=(0, 1))
        self.setup_table()
        self.attend_layers = {
            "q": self.param("q", into_heads, (L, K, D, N, H)),
            "q_bias": self.param("q_bias", zeros, (L, K, N, H)),
            "k": self.param("k", into_heads, (L, K, D, N, H)),
            "k_bias": self.param("k_bias", zeros, (L, K, N, H)),
            "v": self.param("v", into_heads, (L, K, D, N, H)),
            "v_bias": self.param("v_bias", zeros, (L, K, N, H)),
            "attend": self.param("attend", from_heads, (L, K, N, H, D)),
            "attend_bias": self.param("attend_bias", zeros, (L, K, D)),
            "inner_scale": self.param("inner_scale", ones, (L, K, D)),
            "inner_bias": self.param("inner_bias", zeros, (L, K, D)),
            "outer_scale": self.param("outer_scale", ones, (L, K, D)),
            "outer_bias": self.param("outer_bias", zeros, (L, K, D)),
        }
        self.dense_layers = {
            "dense": self.param("dense", matrix, (L, D, D)),
            "dense_bias": self.param("dense_bias", zeros, (L, D)),
            "steepness": self.param("steepness", nn.initializers.uniform(3.0), (L,)),
            "leak": self.param("leak", nn.initializers.uniform(3.0), (L,)),
            "norm_scale": self.param("norm_scale", ones, (L, D)),
            "norm_bias": self.param("norm_bias", zeros, (L, D)),
        }

    @property
    def axes(self) -> Axes:
        width = ("layers", "layers", "embed")
        into_heads, heads = ("layers", "layers", "embed", "heads", "head"), ("layers", "layers", "heads", "head")
        return {
            **self.table_axes(),
            "q": into_heads,
            "q_bias": heads,
            "k": into_heads,
            "k_bias": heads,
            "v": into_heads,
            "v_bias": heads,
            "attend": ("layers", "layers", "heads", "head", "embed"),
            "attend_bias": width,
            "inner_scale": width,
            "inner_bias": width,
            "outer_scale": width,
            "outer_bias": width,
            "dense": ("layers", "embed", "mlp"),
            "dense_bias": ("layers", "mlp"),
            "steepness": ("layers",),
            "leak": ("layers",),
            "norm_scale": ("layers", "embed"),
            "norm_bias": ("layers", "embed"),
        }

    def emb(self, tok_BT: jax.Array) -> jax.Array:
        return self.extend_emb(self.init_cache(*tok_BT.shape), tok_BT)[0]

    def init_cache(self, batch: int, length: int) -> Cache:
        S, H = min(length, self.context), self.d_embed // self.n_heads
        shape = (self.n_layers, self.attentions, batch, S, self.n_heads, H)
        return {"k": jnp.zeros(shape), "v": jnp.zeros(shape), "at": jnp.int32(0)}

    def extend_emb(self, cache: Cache, tok_BT: jax.Array) -> tuple[jax.Array, Cache]:
        at, k, v = cache["at"], cache["k"], cache["v"]
        position_CD = sinusoids(self.context, self.d_embed)
        x_BTD = self.rows(tok_BT) + jax.lax.dynamic_slice_in_dim(position_CD, at, tok_BT.shape[1])
        for i in range(self.n_layers):
            for j in range(self.attentions):
                p = {name: stack[i, j] for name, stack in self.attend_layers.items()}
                q_BTNH, k_BTNH, v_BTNH = split_heads(x_BTD, p)
                k = jax.lax.dynamic_update_slice(k, k_BTNH[None, None], (i, j, 0, at, 0, 0))
                v = jax.lax.dynamic_update_slice(v, v_BTNH[None, None], (i, j, 0, at, 0, 0))
                y_BTNH, _ = causal_attention(q_BTNH, k[i, j], v[i, j], at)
                y_BTD = layer_norm(join_heads(y_BTNH, p), p["inner_scale"], p["inner_bias"])
                x_BTD = layer_norm(x_BTD + y_BTD, p["outer_scale"], p["outer_bias"])
            p = {name: stack[i] for name, stack in self.dense_layers.items()}
            z_BTD = x_BTD @ p["dense"] + p["dense_bias"]
            z_BTD = jnp.tanh(p["steepness"] * z_BTD) + p["leak"] * z_BTD
            x_BTD = layer_norm(x_BTD + z_BTD, p["norm_scale"], p["norm_bias"])
        return x_BTD, {"k": k, "v": v, "at": at + tok_BT.shape[1]}

    def objective_of(
        self, emb_NE: jax.Array, target_N: jax.Array, weight_N: jax.Array, negative_M: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Mean squared error to each next vector, pads and tokens without a vector (zeros) counted."""
        square_NE = jnp.square(emb_NE - self.rows(target_N))
        return jnp.sum(jnp.mean(square_NE, axis=-1) * weight_N), jnp.sum(weight_N)


def build(config: FaithfulReanConfig) -> ReanModel:
    """The model of these settings."""
    V = needed(config.vocab_size, "FaithfulReanConfig.vocab_size")
    C = needed(config.context, "FaithfulReanConfig.context")
    module = FaithfulRean(
        vocab_size=V,
        context=C,
        n_layers=config.n_layers,
        n_heads=config.n_heads,
        attentions=config.attentions,
        d_embed=config.d_embed,
        table="frozen" if config.has_vectors else "random",
        objective="mse",
        scale=1.0,
        specials=0,
        unit_rows=False,
        cosine_likelihood=True,
        nearest=False,
        held=None,
    )
    return ReanModel(module, context=C, vocab_size=V, treatment="original", pads_left=True)
