"""A transformer between an embedding and an output: blocks of attention and an MLP, of the form that settings say."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlm.config.transformer import TransformerConfig
from jaxlm.devices import layout
from jaxlm.errors import UserError
from jaxlm.models import attention_block, layers, mlp_block, norm_block
from jaxlm.models.attention_block import Layer, join_heads, queries_keys_values
from jaxlm.models.base import Axes, needed
from jaxlm.models.layers import Kind
from jaxlm.models.norm_block import norm
from jaxlm.models.spec import Spec, Specs, axes
from jaxlm.ops import dropout, rms_norm
from jaxlm.ops.attention import AttentionKind, attention, attention_kind, cached_attention
from jaxlm.ops.ragged import places, write_rows

Cache = dict[str, jax.Array]
Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""(q_BTNH, k_BTKH, v_BTKH) -> y_BTNH."""


def attention_of(config: TransformerConfig) -> AttentionKind:
    """The form that attention takes in training, by the settings and the device.

    Raises UserError where model.attention is flash and it cannot be.
    """
    kind = _kind_of(config)
    if config.attention == "flash" and kind.name == "plain":
        raise UserError(
            f"model.attention flash cannot be here: {kind.reason}; leave it out, or give --model.attention plain"
        )
    return kind


def _kind_of(config: TransformerConfig) -> AttentionKind:
    return attention_kind(
        length=needed(config.context, f"{type(config).__name__}.context"),
        head_width=config.head_width,
        dtype=config.dtype,
        dropout=config.dropout > 0,
        softcap=config.attention_softcap is not None,
        documents=getattr(config, "documents", False),
        choice=config.attention,
    )


class Transformer(nn.Module):
    """x += position; L times x += attention(norm(x)), x += mlp(norm(x)); then norm(x). A subclass embeds and reads out.

    The blocks' parameters are stacked along a first axis of L. Products and the stream are in the settings' dtype.
    """

    config: TransformerConfig

    def setup(self) -> None:
        made = {name: self.param(name, spec.init, spec.shape) for name, spec in self.specs.items()}
        self.layers = {name: made[name] for name in self._layer_specs}
        self.value_layers = {name: made[name] for name in attention_block.value_specs(self.config)}
        self.outer = {name: made[name] for name in norm_block.specs(self.config, "norm")}
        position_CD = made.get("position")
        self.position_CD = None if position_CD is None else layout.rounded(position_CD, self.config.dtype)

    @property
    def context(self) -> int:
        """Positions at most."""
        return needed(self.config.context, f"{type(self.config).__name__}.context")

    @property
    def specs(self) -> Specs:
        """The transformer's own parameters, in the order in which they are drawn."""
        made: Specs = {}
        if self.config.positions == "learned":
            made["position"] = Spec((self.context, self.config.d_model), ("length", "embed"))
        last = norm_block.specs(self.config, "norm") | attention_block.value_specs(self.config)
        return made | self._layer_specs | last

    @property
    def _layer_specs(self) -> Specs:
        config, L = self.config, self.config.n_layers
        made = {
            **norm_block.specs(config, "norm1", (L,)),
            **attention_block.specs(config),
            **norm_block.specs(config, "norm2", (L,)),
            **mlp_block.specs(config),
        }
        if config.residual_scalars:
            made["stream_scale"] = Spec((L,), ("layers",), nn.initializers.ones)
            made["embed_scale"] = Spec((L,), ("layers",), nn.initializers.constant(0.1))
        return made

    @property
    def axes(self) -> Axes:
        return axes(self.specs)

    def hidden(
        self, x_BTD: jax.Array, *, value_LBTKH: jax.Array | None = None, begins_BT: jax.Array | None = None
    ) -> jax.Array:
        """h_BTD of embedded tokens from position 0 on, in the settings' dtype.

        value_LBTKH are the tokens' value embeddings for each layer that has them; begins_BT is True for the first token
        of a document, if documents share rows. Raises ValueError for more tokens than there are positions.
        """
        T, config, loop = x_BTD.shape[1], self.config, layers.is_loop(self.config)
        if self.context < T:
            raise ValueError(f"the model has {self.context} positions (its context), got {T} tokens")
        position_1T = jnp.arange(T)[None]
        start_BT = None
        if begins_BT is not None:
            start_BT = jax.lax.cummax(jnp.where(begins_BT, position_1T, 0), axis=1)
        key_L: jax.Array | None = None
        x_BTD = self._entered(x_BTD, None if self.position_CD is None else self.position_CD[None, :T])
        if config.dropout and self.has_rng("dropout"):
            first, *keys = jax.random.split(self.make_rng("dropout"), 1 + config.n_layers)
            x_BTD = self._drop(x_BTD, first)
            key_L = jnp.stack(keys)
        x0_BTD = x_BTD
        is_splash, choice = _kind_of(config).name == "splash", config.attention
        if is_splash and layout.traced_for() is None and jax.device_count() > 1:
            choice = "plain"  # several TPUs run no kernel that is not laid on them, as training and evaluation do

        def block(x_BTD: jax.Array, kind: Kind, own: tuple[Layer, jax.Array | None], value: Layer | None) -> jax.Array:
            p, key = own
            attend_key, first, second = (None, None, None) if key is None else jax.random.split(key, 3)

            def attend(q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array) -> jax.Array:
                drop = None if attend_key is None else lambda w_BNTS: self._drop(w_BNTS, attend_key)
                options: dict[str, Any] = {"window": kind.window, "softcap": config.attention_softcap}
                options |= {"drop": drop, "choice": choice}
                heads = (q_BTNH, k_BTKH, v_BTKH) if start_BT is None else (q_BTNH, k_BTKH, v_BTKH, start_BT)

                def masked(q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, *start: jax.Array) -> jax.Array:
                    return attention(q_BTNH, k_BTKH, v_BTKH, start_BT=start[0] if start else None, **options)

                return layout.by_heads(masked, *heads) if is_splash else masked(*heads)

            return self._block(x_BTD, x0_BTD, p, value, position_1T, attend, (first, second))

        rematerialized = layers.rematerialized(config, block, loop=loop)
        stack, values = (self._cast(self.layers), key_L), self._values(value_LBTKH)
        x_BTD = layers.run(rematerialized, x_BTD, layers.kinds(config), stack, values, loop=loop)
        return norm(config, "norm", x_BTD, dict(self.outer))

    def init_cache(self, batch: int, length: int) -> Cache:
        config, S = self.config, min(length, self.context)
        shape = (config.n_layers, batch, config.kv_heads, S, config.head_width)
        k, v = (jnp.zeros(shape, config.dtype) for _ in range(2))
        return {"k": k, "v": v, "position": jnp.zeros(batch, jnp.int32)}

    def rolled_back(self, before: Cache, after: Cache, length_B: jax.Array) -> Cache:
        """Keys and values behind a smaller position are written over before they are seen."""
        return {**after, "position": before["position"] + length_B}

    def extend_hidden(
        self,
        cache: Cache,
        x_BTD: jax.Array,
        length_B: jax.Array,
        *,
        value_LBTKH: jax.Array | None = None,
        begins_BT: jax.Array | None = None,
    ) -> tuple[jax.Array, Cache]:
        """h_BTD of each row's first length_B[b] embedded tokens, and the cache with them in it.

        The caller must ensure position + length <= S; positions are traced, so it is not checked here. Raises
        ValueError for T > S. A smaller position in a cache takes tokens back: what lies behind it is written over.
        With begins_BT the cache has "start", where the document of each token in it begins.
        """
        config, position_B, T, S = self.config, cache["position"], x_BTD.shape[1], cache["k"].shape[3]
        if T > S:
            raise ValueError(f"the cache has room for {S} tokens, got {T} at once")
        row_B1, place_BT = jnp.arange(x_BTD.shape[0])[:, None], places(position_B, length_B, T, S)
        rest, start_BT = {"position": position_B + length_B}, None
        if begins_BT is not None:
            start_BT = _starts(cache["start"], position_B, begins_BT)
            rest["start"] = write_rows(cache["start"], start_BT, place_BT)
        position_BTD = None
        if self.position_CD is not None:
            position_BTD = self.position_CD[jnp.minimum(place_BT, self.context - 1)]
        x_BTD = x0_BTD = self._entered(x_BTD, position_BTD)
        carry = x_BTD, cache["k"], cache["v"]

        def block(carry: tuple[jax.Array, ...], kind: Kind, own: tuple[Layer, jax.Array], value: Layer | None) -> Any:
            x_BTD, k, v = carry
            p, number = own

            def attend(q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array) -> jax.Array:
                nonlocal k, v
                k = k.at[number, row_B1, :, place_BT].set(k_BTKH.astype(k.dtype), mode="drop")
                v = v.at[number, row_B1, :, place_BT].set(v_BTKH.astype(v.dtype), mode="drop")
                masks: dict[str, Any] = {"window": kind.window, "start_BT": start_BT}
                return cached_attention(
                    q_BTNH, k[number], v[number], position_B, softcap=config.attention_softcap, **masks
                )

            x_BTD = self._block(x_BTD, x0_BTD, p, value, place_BT, attend, (None, None))
            return x_BTD, k, v

        stack, values = (self._cast(self.layers), jnp.arange(config.n_layers)), self._values(value_LBTKH)
        x_BTD, k, v = layers.run(block, carry, layers.kinds(config), stack, values, loop=True)
        return norm(config, "norm", x_BTD, dict(self.outer)), {"k": k, "v": v, **rest}

    def _entered(self, x_BTD: jax.Array, position_BTD: jax.Array | None) -> jax.Array:
        """The stream before the first block, of embedded tokens and their learned positions."""
        if self.config.embed_norm:
            x_BTD = rms_norm(x_BTD, eps=self.config.norm_eps)
        if position_BTD is not None:
            x_BTD = x_BTD + position_BTD
        return layout.lay(x_BTD.astype(self.config.dtype), "batch", "length", None)

    def _block(
        self,
        x_BTD: jax.Array,
        x0_BTD: jax.Array,
        p: Layer,
        value: Layer | None,
        position_BT: jax.Array,
        attend: Attend,
        keys: tuple[jax.Array | None, jax.Array | None],
    ) -> jax.Array:
        config = self.config
        if config.residual_scalars:
            x_BTD = p["stream_scale"] * x_BTD + p["embed_scale"] * x0_BTD
        n_BTD = norm(config, "norm1", x_BTD, p)
        y_BTNH = attend(*queries_keys_values(config, n_BTD, p, position_BT, value))
        x_BTD = layout.lay(x_BTD + self._drop(join_heads(y_BTNH, p), keys[0]), "batch", "length", None)
        x_BTD = x_BTD + self._drop(mlp_block.mlp(config, norm(config, "norm2", x_BTD, p), p), keys[1])
        return layout.lay(x_BTD, "batch", "length", None)

    def _cast(self, p: Layer) -> Layer:
        """Parameters in the dtype that products are computed in; those of norms stay float32."""
        dtype = self.config.dtype
        return layout.exchanged({name: w if name.startswith("norm") else w.astype(dtype) for name, w in p.items()})

    def _values(self, value_LBTKH: jax.Array | None) -> Layer:
        if value_LBTKH is None:
            return {}
        return {"value": value_LBTKH.astype(self.config.dtype), **self._cast(self.value_layers)}

    def _drop(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        return x if key is None else dropout(x, self.config.dropout, key)


def _starts(start_BS: jax.Array, position_B: jax.Array, begins_BT: jax.Array) -> jax.Array:
    """Where the document of each new token begins, start_BT; start_BS has it for the tokens before."""
    before_B1 = jnp.take_along_axis(start_BS, jnp.maximum(position_B - 1, 0)[:, None], axis=1)
    before_B1 = jnp.where(position_B[:, None] > 0, before_B1, 0)
    place_BT = position_B[:, None] + jnp.arange(begins_BT.shape[1])[None]
    return jax.lax.cummax(jnp.where(begins_BT, place_BT, before_B1), axis=1)
