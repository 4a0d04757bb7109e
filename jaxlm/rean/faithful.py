"""REAN as it was published (github.com/marmust/REAN-architecture): its blocks, its mean squared error, its padding."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlm.config.rean import FaithfulReanConfig
from jaxlm.models.attention_block import join_heads, split_heads
from jaxlm.models.base import Axes, needed
from jaxlm.models.transformer import Cache
from jaxlm.ops import along_last, causal_attention, layer_norm, sinusoids
from jaxlm.ops.ragged import places
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
        def attend(i: int, j: int, q_BTNH: jax.Array, k_BTNH: jax.Array, v_BTNH: jax.Array) -> jax.Array:
            return causal_attention(q_BTNH, k_BTNH, v_BTNH)[0]

        return self._stream(self.rows(tok_BT) + self._positions()[None, : tok_BT.shape[1]], attend)

    def init_cache(self, batch: int, length: int) -> Cache:
        S, H, dtype = min(length, self.context), self.d_embed // self.n_heads, self.attend_layers["attend"].dtype
        shape = (self.n_layers, self.attentions, batch, S, self.n_heads, H)
        k, v = (jnp.zeros(shape, dtype) for _ in range(2))
        return {"k": k, "v": v, "position": jnp.zeros(batch, jnp.int32)}

    def rolled_back(self, before: Cache, after: Cache, length_B: jax.Array) -> Cache:
        """Keys and values behind a smaller position are written over before they are seen."""
        return {**after, "position": before["position"] + length_B}

    def extend_emb(self, cache: Cache, tok_BT: jax.Array, length_B: jax.Array) -> tuple[jax.Array, Cache]:
        position_B, k, v = cache["position"], cache["k"], cache["v"]
        row_B1 = jnp.arange(tok_BT.shape[0])[:, None]
        place_BT = places(position_B, length_B, tok_BT.shape[1], k.shape[3])

        def attend(i: int, j: int, q_BTNH: jax.Array, k_BTNH: jax.Array, v_BTNH: jax.Array) -> jax.Array:
            nonlocal k, v
            k = k.at[i, j, row_B1, place_BT].set(k_BTNH.astype(k.dtype), mode="drop")
            v = v.at[i, j, row_B1, place_BT].set(v_BTNH.astype(v.dtype), mode="drop")
            return causal_attention(q_BTNH, k[i, j], v[i, j], position_B)[0]

        x_BTD = self.rows(tok_BT) + self._positions()[jnp.minimum(place_BT, self.context - 1)]
        return self._stream(x_BTD, attend), {"k": k, "v": v, "position": position_B + length_B}

    def _positions(self) -> jax.Array:
        return sinusoids(self.context, self.d_embed)

    def _stream(self, x_BTD: jax.Array, attend: Callable[..., jax.Array]) -> jax.Array:
        """The stream after all blocks; attend(i, j, q, k, v) is attention j of block i."""
        for i in range(self.n_layers):
            for j in range(self.attentions):
                p = {name: stack[i, j] for name, stack in self.attend_layers.items()}
                y_BTNH = attend(i, j, *split_heads(x_BTD, p))
                y_BTD = layer_norm(join_heads(y_BTNH, p), p["inner_scale"], p["inner_bias"])
                x_BTD = layer_norm(x_BTD + y_BTD, p["outer_scale"], p["outer_bias"])
            p = {name: stack[i] for name, stack in self.dense_layers.items()}
            z_BTD = x_BTD @ p["dense"] + along_last(p["dense_bias"], x_BTD)
            z_BTD = jnp.tanh(p["steepness"] * z_BTD) + p["leak"] * z_BTD
            x_BTD = layer_norm(x_BTD + z_BTD, p["norm_scale"], p["norm_bias"])
        return x_BTD

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
