"""The blocks of GPT-2 (Radford et al. 2019): pre-LayerNorm, learned positions, GELU by tanh."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlm.config.models import TransformerConfig
from jaxlm.models.base import Axes, needed
from jaxlm.ops import affine, causal_attention, dropout, layer_norm
from jaxlm.ops.ragged import places

Layer = dict[str, jax.Array]
Decoding = tuple[jax.Array, jax.Array, jax.Array]
"""The stream x_BTD, and the keys and values of all blocks, which are written in place."""
Cache = dict[str, jax.Array]
INIT = 0.02
UNROLLED_BLOCKS = 4


def sizes(config: TransformerConfig) -> dict[str, Any]:
    """The fields of a Transformer."""
    return {
        "context": needed(config.context, f"{type(config).__name__}.context"),
        "n_layers": config.n_layers,
        "n_heads": config.n_heads,
        "d_model": config.d_model,
        "dropout": config.dropout,
    }


def split_heads(x_BTD: jax.Array, p: Layer) -> list[jax.Array]:
    """The queries, keys and values of each head, q_BTNH, k_BTNH and v_BTNH: x W + b with each one's W_DNH and b_NH."""
    return [affine(x_BTD, p[name], p[f"{name}_bias"]) for name in ("q", "k", "v")]


def join_heads(y_BTNH: jax.Array, p: Layer) -> jax.Array:
    """The output of attention: y W + b over all heads at once, W_NHD being `attend`. Returns y_BTD."""
    N, H, D = p["attend"].shape
    return affine(y_BTNH.reshape(*y_BTNH.shape[:-2], N * H), p["attend"].reshape(N * H, D), p["attend_bias"])


class Transformer(nn.Module):
    """x += position; L times x += attention(norm(x)), x += mlp(norm(x)); then norm(x). A subclass embeds and reads out.

    The blocks' parameters are stacked along a first axis of L, and a scan runs over it: one block is compiled, not L.
    A few blocks are compiled one by one nevertheless, which spares a small step the copies into and out of the stack.
    """

    context: int
    n_layers: int
    n_heads: int
    d_model: int
    dropout: float

    def setup(self) -> None:
        C, L, D, N = self.context, self.n_layers, self.d_model, self.n_heads
        H = D // N
        normal, zeros, ones = nn.initializers.normal, nn.initializers.zeros, nn.initializers.ones
        residual = normal(INIT / (2 * L) ** 0.5)
        self.position_CD = self.param("position", normal(INIT), (C, D))
        self.layers = {
            "norm1_scale": self.param("norm1_scale", ones, (L, D)),
            "norm1_bias": self.param("norm1_bias", zeros, (L, D)),
            "q": self.param("q", normal(INIT), (L, D, N, H)),
            "q_bias": self.param("q_bias", zeros, (L, N, H)),
            "k": self.param("k", normal(INIT), (L, D, N, H)),
            "k_bias": self.param("k_bias", zeros, (L, N, H)),
            "v": self.param("v", normal(INIT), (L, D, N, H)),
            "v_bias": self.param("v_bias", zeros, (L, N, H)),
            "attend": self.param("attend", residual, (L, N, H, D)),
            "attend_bias": self.param("attend_bias", zeros, (L, D)),
            "norm2_scale": self.param("norm2_scale", ones, (L, D)),
            "norm2_bias": self.param("norm2_bias", zeros, (L, D)),
            "up": self.param("up", normal(INIT), (L, D, 4 * D)),
            "up_bias": self.param("up_bias", zeros, (L, 4 * D)),
            "down": self.param("down", residual, (L, 4 * D, D)),
            "down_bias": self.param("down_bias", zeros, (L, D)),
        }
        self.norm_scale_D = self.param("norm_scale", ones, (D,))
        self.norm_bias_D = self.param("norm_bias", zeros, (D,))

    @property
    def axes(self) -> Axes:
        width, heads = ("layers", "embed"), ("layers", "heads", "head")
        into_heads = ("layers", "embed", "heads", "head")
        return {
            "position": ("length", "embed"),
            "norm1_scale": width,
            "norm1_bias": width,
            "q": into_heads,
            "q_bias": heads,
            "k": into_heads,
            "k_bias": heads,
            "v": into_heads,
            "v_bias": heads,
            "attend": ("layers", "heads", "head", "embed"),
            "attend_bias": width,
            "norm2_scale": width,
            "norm2_bias": width,
            "up": ("layers", "embed", "mlp"),
            "up_bias": ("layers", "mlp"),
            "down": ("layers", "mlp", "embed"),
            "down_bias": width,
            "norm_scale": ("embed",),
            "norm_bias": ("embed",),
        }

    def hidden(self, x_BTD: jax.Array) -> jax.Array:
        """h_BTD of embedded tokens from position 0 on. Raises ValueError for more than there are positions."""
        if x_BTD.shape[1] > self.context:
            raise ValueError(f"the model has {self.context} positions (its context), got {x_BTD.shape[1]} tokens")
        key_L: jax.Array | None = None
        x_BTD = x_BTD + self.position_CD[None, : x_BTD.shape[1]]
        if self.dropout and self.has_rng("dropout"):
            first, *keys = jax.random.split(self.make_rng("dropout"), 1 + self.n_layers)
            x_BTD = self._drop(x_BTD, first)
            key_L = jnp.stack(keys)

        def block(x_BTD: jax.Array, layer: tuple[Layer, jax.Array | None]) -> tuple[jax.Array, None]:
            return self._block(x_BTD, *layer), None

        unroll = self.n_layers if self.n_layers <= UNROLLED_BLOCKS else 1
        x_BTD, _ = jax.lax.scan(block, x_BTD, (dict(self.layers), key_L), unroll=unroll)
        return layer_norm(x_BTD, self.norm_scale_D, self.norm_bias_D)

    def init_cache(self, batch: int, length: int) -> Cache:
        S = min(length, self.context)
        shape = (self.n_layers, batch, S, self.n_heads, self.d_model // self.n_heads)
        k, v = (jnp.zeros(shape, self.position_CD.dtype) for _ in range(2))
        return {"k": k, "v": v, "position": jnp.zeros(batch, jnp.int32)}

    def extend_hidden(self, cache: Cache, x_BTD: jax.Array, length_B: jax.Array) -> tuple[jax.Array, Cache]:
        """h_BTD of each row's first length_B[b] embedded tokens, and the cache with them in it.

        The caller must ensure position + length <= S; positions are traced, so it is not checked here. Raises
        ValueError for T > S. A smaller position in a cache takes tokens back: what lies behind it is written over.
        """
        position_B, T, S = cache["position"], x_BTD.shape[1], cache["k"].shape[2]
        if T > S:
            raise ValueError(f"the cache has room for {S} tokens, got {T} at once")
        row_B1, place_BT = jnp.arange(x_BTD.shape[0])[:, None], places(position_B, length_B, T, S)
        x_BTD = x_BTD + self.position_CD[jnp.minimum(place_BT, self.context - 1)]

        def block(carry: Decoding, layer: tuple[Layer, jax.Array]) -> tuple[Decoding, None]:
            x_BTD, k, v = carry
            p, number = layer
            q_BTNH, k_BTNH, v_BTNH = self._qkv(x_BTD, p)
            k = k.at[number, row_B1, place_BT].set(k_BTNH.astype(k.dtype), mode="drop")
            v = v.at[number, row_B1, place_BT].set(v_BTNH.astype(v.dtype), mode="drop")
            y_BTNH, _ = causal_attention(q_BTNH, k[number], v[number], position_B)
            x_BTD = x_BTD + join_heads(y_BTNH, p)
            return (x_BTD + self._mlp(x_BTD, p), k, v), None

        layers = dict(self.layers), jnp.arange(self.n_layers)
        (x_BTD, k, v), _ = jax.lax.scan(block, (x_BTD, cache["k"], cache["v"]), layers)
        cache = {"k": k, "v": v, "position": position_B + length_B}
        return layer_norm(x_BTD, self.norm_scale_D, self.norm_bias_D), cache

    def _block(self, x_BTD: jax.Array, p: Layer, key: jax.Array | None) -> jax.Array:
        attend, first, second = (None, None, None) if key is None else jax.random.split(key, 3)
        q_BTNH, k_BTNH, v_BTNH = self._qkv(x_BTD, p)
        y_BTNH = self._attention(q_BTNH, k_BTNH, v_BTNH, attend)
        x_BTD = x_BTD + self._drop(join_heads(y_BTNH, p), first)
        return x_BTD + self._drop(self._mlp(x_BTD, p), second)

    def _qkv(self, x_BTD: jax.Array, p: Layer) -> list[jax.Array]:
        return split_heads(layer_norm(x_BTD, p["norm1_scale"], p["norm1_bias"]), p)

    def _attention(self, q_BTNH: jax.Array, k_BTNH: jax.Array, v_BTNH: jax.Array, key: jax.Array | None) -> jax.Array:
        y_BTNH, w_BNTS = causal_attention(q_BTNH, k_BTNH, v_BTNH)
        return y_BTNH if key is None else jnp.einsum("bnts,bsnh->btnh", self._drop(w_BNTS, key), v_BTNH)

    def _mlp(self, x_BTD: jax.Array, p: Layer) -> jax.Array:
        n_BTD = layer_norm(x_BTD, p["norm2_scale"], p["norm2_bias"])
        up_BTF = jax.nn.gelu(affine(n_BTD, p["up"], p["up_bias"]), approximate=True)
        return affine(up_BTF, p["down"], p["down_bias"])

    def _drop(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        return x if key is None else dropout(x, self.dropout, key)
