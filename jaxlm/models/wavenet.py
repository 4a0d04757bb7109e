"""The WaveNets: pairs fused level by level, or gated dilated convolutions with residuals and skips."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlm.config.models import WavenetConfig
from jaxlm.devices import layout
from jaxlm.models.base import Axes, NatsFromLogits, Params, axes_of, needed
from jaxlm.ops import along_last, layer_norm, project_lookup
from jaxlm.ops.ragged import places, write_rows
from jaxlm.tokenizers import EOS

Layer = dict[str, jax.Array]
Cache = tuple[jax.Array, list[jax.Array]]
"""position_B, how many tokens each row has read, and the last 2 ** i inputs of level i, (batch, 2 ** i, width): that of
token t lies at t mod 2 ** i.
"""


class Levels(nn.Module):
    """Level i joins its inputs at t - 2 ** i and t. A level is a function of the two, the same for a window of 2 ** L
    tokens, of which each level needs half of the places the one below had, and for a sequence, of which it needs all.

    fusion: y = tanh(norm([x_before, x_now] W)); the last level gives the logits (the makemore lecture, part 5, with
    LayerNorm in place of batch norm).
    gated: y = tanh(u) * sigmoid(g) with u, g = [x_before, x_now] W + b; the next level sees x_now + y R, and the logits
    come from the sum over levels of y S, rectified twice (van den Oord et al. 2016, equation 2 and figure 4).
    """

    vocab_size: int
    layers: int
    d_embed: int
    d_hidden: int
    style: str
    eos: int = EOS

    def setup(self) -> None:
        V, E, F = self.vocab_size, self.d_embed, self.d_hidden
        normal, zeros, ones = nn.initializers.normal, nn.initializers.zeros, nn.initializers.ones
        gated = self.style == "gated"
        self.embed_VE = self.param("embed", normal(1.0), (V, E))
        self.out_FV = self.param("out", normal(0.1 * F**-0.5), (F, V))
        self.out_bias_V = self.param("out_bias", zeros, (V,))
        if gated:
            self.enter_EF = self.param("enter", normal(E**-0.5), (E, F))
            self.skip_FF = self.param("skip_out", normal((2 / F) ** 0.5), (F, F))
            self.skip_bias_F = self.param("skip_out_bias", zeros, (F,))
        levels: list[Layer] = []
        for level in range(self.layers):
            width = E if level == 0 and not gated else F

            def own(name: str, init: Any, shape: tuple[int, ...], level: int = level) -> jax.Array:
                return self.param(f"{name}_{level}", init, shape)

            if gated:
                levels.append(
                    {
                        "pair": own("pair", normal((2 * width) ** -0.5), (2 * width, 2 * F)),
                        "bias": own("pair_bias", zeros, (2 * F,)),
                        "residual": own("residual", normal(F**-0.5), (F, F)),
                        "skip": own("skip", normal((self.layers * F) ** -0.5), (F, F)),
                    }
                )
            else:
                levels.append(
                    {
                        "pair": own("pair", normal(5 / 3 * (2 * width) ** -0.5), (2 * width, F)),
                        "scale": own("norm_scale", ones, (F,)),
                        "bias": own("norm_bias", zeros, (F,)),
                    }
                )
        self.levels = levels

    @property
    def axes(self) -> Axes:
        axes: dict[str, tuple[str | None, ...]] = {
            "embed": ("vocab", "embed"),
            "out": ("embed", "vocab"),
            "out_bias": ("vocab",),
        }
        level: dict[str, tuple[str | None, ...]] = {
            "pair": ("embed", "mlp"),
            "norm_scale": ("mlp",),
            "norm_bias": ("mlp",),
        }
        if self.style == "gated":
            axes |= {"enter": ("embed", "mlp"), "skip_out": ("embed", "mlp"), "skip_out_bias": ("mlp",)}
            level = {"pair": ("embed", "mlp"), "pair_bias": ("mlp",)}
            level |= {"residual": ("mlp", "embed"), "skip": ("mlp", "embed")}
        return axes | {f"{name}_{i}": own for i in range(self.layers) for name, own in level.items()}

    def __call__(self, ctx_NC: jax.Array) -> jax.Array:
        """logits_NV after each window of 2 ** L tokens."""
        x_NTF, skips = self._enter(ctx_NC), []
        for level in self.levels:
            x_NTF, skip_NTF = self._join(level, x_NTF[:, 0::2], x_NTF[:, 1::2])
            skips.append(skip_NTF[:, -1])
        return self._logits(x_NTF[:, -1], skips)

    def sequence(self, tok_BT: jax.Array) -> jax.Array:
        """logits_BTV after each token of rows that boundaries precede."""
        T, skips = tok_BT.shape[1], []
        x_BTF, start_BF = self._enter(tok_BT), self._enter(jnp.full((tok_BT.shape[0], 1), self.eos))[:, 0]
        for i, level in enumerate(self.levels):
            before_BTF = jnp.concatenate([jnp.repeat(start_BF[:, None], 2**i, axis=1), x_BTF], axis=1)[:, :T]
            start_BF, _ = self._join(level, start_BF, start_BF)
            x_BTF, skip_BTF = self._join(level, before_BTF, x_BTF)
            skips.append(skip_BTF)
        return self._logits(x_BTF, skips)

    def init_cache(self, batch: int, length: int) -> Cache:
        """Each level's last 2 ** i inputs: of EOS tokens, which fill every place before the start."""
        x_BF, rings = self._enter(jnp.full((batch, 1), self.eos))[:, 0], []
        for i, level in enumerate(self.levels):
            rings.append(jnp.repeat(x_BF[:, None], 2**i, axis=1))
            x_BF, _ = self._join(level, x_BF, x_BF)
        return jnp.zeros(batch, jnp.int32), rings

    def extend(self, cache: Cache, tok_BT: jax.Array, length_B: jax.Array) -> tuple[jax.Array, Cache]:
        """logits_BTV after each new token. A single one writes over the input that its level has just read."""
        position_B, rings = cache
        x_BTF, skips, new = self._enter(tok_BT), [], []
        for i, level in enumerate(self.levels):
            before_BTF, ring_BRF = _through_ring(rings[i], x_BTF, position_B, length_B)
            new.append(ring_BRF)
            x_BTF, skip_BTF = self._join(level, before_BTF, x_BTF)
            skips.append(skip_BTF)
        return self._logits(x_BTF, skips), (position_B + length_B, new)

    def _enter(self, tok: jax.Array) -> jax.Array:
        if self.style == "gated":
            return layout.by_rows(project_lookup(self.embed_VE, self.enter_EF, tok))
        return layout.by_rows(self.embed_VE[tok])

    def _join(self, p: Layer, before: jax.Array, now: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(what the next level sees, what the logits see) at each place.

        Laid by rows: where XLA (jax 0.10.2) splits the stream by its width, numbers on a mesh of 2 x 2 x 2 are wrong.
        """
        u = layout.by_rows(jnp.concatenate([before, now], axis=-1) @ p["pair"])
        if self.style == "fusion":
            y = layout.by_rows(jnp.tanh(layer_norm(u, p["scale"], p["bias"])))
            return y, y
        u, g = jnp.split(u + along_last(p["bias"], u), 2, axis=-1)
        y = jnp.tanh(u) * jax.nn.sigmoid(g)
        return layout.by_rows(now + y @ p["residual"]), layout.by_rows(y @ p["skip"])

    def _logits(self, last: jax.Array, skips: list[jax.Array]) -> jax.Array:
        if self.style == "gated":
            last = jax.nn.relu(
                jax.nn.relu(sum(skips[1:], skips[0])) @ self.skip_FF + along_last(self.skip_bias_F, last)
            )
        logits = last @ self.out_FV
        return logits + along_last(self.out_bias_V, logits)


def _through_ring(
    ring_BRF: jax.Array, x_BTF: jax.Array, position_B: jax.Array, length_B: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The input R tokens before each of some new ones, and the ring with each row's own new inputs in it."""
    R, T = ring_BRF.shape[1], x_BTF.shape[1]
    slot_1R, first_B1 = jnp.arange(R)[None], position_B[:, None]
    if T == 1:
        before_BTF = _at(ring_BRF, first_B1 % R)
        return before_BTF, write_rows(ring_BRF, x_BTF, places(position_B % R, length_B, 1, R))
    all_BSF = jnp.concatenate([_at(ring_BRF, (first_B1 + slot_1R) % R), x_BTF], axis=1)
    end_B1 = first_B1 + length_B[:, None]
    return all_BSF[:, :T], _at(all_BSF, length_B[:, None] + (slot_1R - end_B1) % R)


def _at(x_BSF: jax.Array, place_BT: jax.Array) -> jax.Array:
    """x[b, place[b, t]], (B, T, F)."""
    return jnp.take_along_axis(x_BSF, place_BT[:, :, None], axis=1)


@dataclasses.dataclass(frozen=True)
class Wavenet(NatsFromLogits):
    """A LanguageModel around Levels: windows for single predictions, queues for sequences."""

    module: Levels
    context: int
    vocab_size: int

    @property
    def max_length(self) -> None:
        """None: any number of tokens."""

    @property
    def axes(self) -> Axes:
        """The module's."""
        return axes_of(self.module)

    def with_eos(self, eos: int) -> "Wavenet":
        """The same model for tokens whose EOS is `eos`."""
        return dataclasses.replace(self, module=self.module.clone(eos=eos))

    def init(self, key: jax.Array, tok_BT: jax.Array) -> Params:
        """Untrained parameters."""
        return self.module.init(key, jnp.zeros((1, self.context), jnp.int32))["params"]

    def next_logits(self, params: Params, ctx_BC: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """logits_BV after each window."""
        logits_BV = self.module.apply({"params": params}, ctx_BC)
        assert isinstance(logits_BV, jax.Array)
        return logits_BV

    def apply(self, params: Params, tok_BT: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """logits_BTV after each position; boundaries stand before the row."""
        result: Any = self.module.apply({"params": params}, tok_BT, method="sequence")
        return result

    def init_cache(self, params: Params, batch: int, length: int) -> Any:
        """The queues of a model that has seen nothing but boundaries."""
        return self.module.apply({"params": params}, batch, length, method="init_cache")

    def extend(self, params: Params, cache: Any, tok_BT: jax.Array, length_B: jax.Array) -> tuple[jax.Array, Any]:
        """logits_BTV after each new token, and each row's queues."""
        result: Any = self.module.apply({"params": params}, cache, tok_BT, length_B, method="extend")
        return result


def build(config: WavenetConfig) -> Wavenet:
    """The model of these settings."""
    V = needed(config.vocab_size, "WavenetConfig.vocab_size")
    module = Levels(
        vocab_size=V, layers=config.layers, d_embed=config.d_embed, d_hidden=config.d_hidden, style=config.style
    )
    return Wavenet(module, context=2**config.layers, vocab_size=V)
