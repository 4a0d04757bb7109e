"""How a next token is chosen from logits: settings of each row, filters, and the draw. Array mathematics, no models."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import check

SMALL_VOCABULARY = 128
"""Tokens up to which probabilities are cumulated by a single product."""
COLDEST = 1e-30
"""Below this temperature the most likely token is taken: float32 could not divide by it."""
INFINITY_BITS = 0x7F800000
"""The float32 infinity as a whole number; those of smaller numbers are smaller."""


class RowSettings(NamedTuple):
    """Settings of each row, as arrays, so that a compiled program serves all their values."""

    temperature_B: np.ndarray | jax.Array
    top_k_B: np.ndarray | jax.Array
    """int32; the size of the vocabulary or more keeps every token."""
    top_p_B: np.ndarray | jax.Array
    """1 keeps every token."""
    min_p_B: np.ndarray | jax.Array
    """0 keeps every token."""
    repetition_penalty_B: np.ndarray | jax.Array
    """1 changes nothing."""


@dataclasses.dataclass(frozen=True)
class Strategy:
    """Settings by which a token is drawn, in the order in which they act on the logits.

    1. repetition_penalty on the model's own logits, 2. temperature, then filters, each on what the one before it left:
    3. top_k, 4. top_p, 5. min_p. Raises UserError for a setting out of its range.
    """

    temperature: float = 1.0
    """Divides the logits; 0 takes the most likely token."""
    top_k: int | None = None
    """Only the k most likely tokens (and those as likely as the last of them)."""
    top_p: float | None = None
    """Only the fewest most likely tokens whose probabilities reach p together (and those as likely as the last of them;
    Holtzman et al. 2020)."""
    min_p: float | None = None
    """Only tokens at least p times as likely as the most likely one (Nguyen et al. 2024)."""
    repetition_penalty: float = 1.0
    """Logits of tokens that the prompt or the answer has are divided by it where positive, multiplied where negative
    (Keskar et al. 2019, section 4.1); the end of a line or turn is never counted. 1 changes nothing."""

    def __post_init__(self) -> None:
        check.at_least("temperature", self.temperature, 0)
        check.at_least("top_k", self.top_k, 1)
        check.half_open("top_p", self.top_p, 0, 1)
        check.between("min_p", self.min_p, 0, 1)
        check.more_than("repetition_penalty", self.repetition_penalty, 0)

    def rows(self, count: int) -> RowSettings:
        """The same settings for each of `count` rows."""
        return RowSettings(
            np.full(count, self.temperature, np.float32),
            np.full(count, self.top_k or np.iinfo(np.int32).max, np.int32),
            np.full(count, 1.0 if self.top_p is None else self.top_p, np.float32),
            np.full(count, self.min_p or 0.0, np.float32),
            np.full(count, self.repetition_penalty, np.float32),
        )


def filtered(
    logits_BV: jax.Array,
    settings: RowSettings,
    allowed_V: jax.Array | None = None,
    seen_BV: jax.Array | None = None,
) -> jax.Array:
    """Logits z_BV, in float32, of the distribution that each row draws from: -inf for what is not drawn, 0 for the most
    likely token.

    Only tokens that allowed_V holds true for (None: all) are drawn, equally likely where none of them is possible. At a
    temperature below COLDEST the most likely tokens are left: `draw` takes the first. seen_BV, the tokens that are
    penalised; None: none. Only rows with top_k or top_p cost a search.
    """
    z_BV = logits_BV.astype(jnp.float32)
    if seen_BV is not None:
        penalty_B1 = settings.repetition_penalty_B[:, None]
        z_BV = jnp.where(seen_BV, jnp.where(z_BV > 0, z_BV / penalty_B1, z_BV * penalty_B1), z_BV)
    floor_1V = jnp.zeros((1, z_BV.shape[1])) if allowed_V is None else jnp.where(allowed_V, 0.0, -jnp.inf)[None]
    z_BV = z_BV + floor_1V
    most_B1 = jnp.max(z_BV, axis=-1, keepdims=True)
    cold_B1 = settings.temperature_B[:, None] < COLDEST
    z_BV = (z_BV - most_B1) / jnp.where(cold_B1, 1.0, settings.temperature_B[:, None])
    z_BV = jnp.where(jnp.isneginf(most_B1), floor_1V, z_BV)
    cuts = jnp.any((settings.top_k_B < z_BV.shape[-1]) | (settings.top_p_B < 1))
    z_BV = jax.lax.cond(cuts, _top, lambda z_BV, *_: z_BV, z_BV, settings.top_k_B, settings.top_p_B)
    least_B1 = jnp.where(cold_B1, 0.0, jnp.log(settings.min_p_B[:, None]))
    return jnp.where(z_BV >= least_B1, z_BV, -jnp.inf)


def draw(u_B: jax.Array, z_BV: jax.Array) -> jax.Array:
    """Token of each row of `filtered` logits, tok_B: `draw_weighted` of exp(z)."""
    return draw_weighted(u_B, jnp.exp(z_BV))


def draw_weighted(u_B: jax.Array, p_BV: jax.Array) -> jax.Array:
    """Token of each row: the first whose cumulated weight is above u of all. tok_B, int32.

    u_B is uniform on [0, 1); 0 gives the first possible token. It has 23 bits: tokens far less likely than 1e-7 are
    drawn too rarely; those of weight 0 never. Weights need not be normalised; u is scaled instead, which leaves a
    single exp to each logit.
    """
    V = p_BV.shape[1]
    if V <= SMALL_VOCABULARY:
        reached_BV = jnp.matmul(p_BV, jnp.triu(jnp.ones((V, V))), precision=jax.lax.Precision.HIGHEST)
    else:
        reached_BV = jnp.cumsum(p_BV, axis=-1)
    reached_BV = jnp.where(p_BV > 0, reached_BV, -1.0)
    top_B1 = jnp.max(reached_BV, axis=-1, keepdims=True)
    token_1V = jnp.arange(V, dtype=jnp.int32)[None]
    return jnp.min(jnp.where(reached_BV > u_B[:, None] * top_B1, token_1V, V - 1), axis=-1)


def probabilities(z_BV: jax.Array, settings: RowSettings) -> jax.Array:
    """p_BV by which `draw` takes tokens of `filtered` logits: all of it on the first most likely one where temperature
    is below COLDEST.
    """
    first_BV = jax.nn.one_hot(jnp.argmax(z_BV, axis=-1), z_BV.shape[1])
    return jnp.where(settings.temperature_B[:, None] < COLDEST, first_BV, jax.nn.softmax(z_BV))


def uniform(key_B: jax.Array, count_B: jax.Array, settings: RowSettings) -> jax.Array:
    """u_B in [0, 1) for the token number count_B of each row's key; 0 where the most likely token is taken."""

    def one(key: jax.Array, count: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(key, count))

    return jnp.where(settings.temperature_B < COLDEST, 0.0, jax.vmap(one)(key_B, count_B))


def with_seen(seen_BV: jax.Array, tok_B: jax.Array, eos: jax.Array | int = 0) -> jax.Array:
    """The tokens seen and each row's token, but EOS, which ends a text and repeats nothing."""
    return seen_BV | ((jnp.arange(seen_BV.shape[1])[None] == tok_B[:, None]) & (tok_B != eos)[:, None])


def _top(z_BV: jax.Array, top_k_B: jax.Array, top_p_B: jax.Array) -> jax.Array:
    """The z without what top_k and then top_p leave out; z is at most 0, and reaches it.

    The least z that is kept is found by halving the range of its bits, which grow with -z: exact in 31 passes. A sort
    takes a CPU longer to compile than all the rest of a small model's loop.
    """
    bits_BV = jax.lax.bitcast_convert_type(jnp.abs(z_BV), jnp.int32)
    zero_B, p_BV = jnp.zeros_like(top_k_B), jnp.exp(z_BV)

    def enough_tokens(most_B: jax.Array) -> jax.Array:
        return jnp.sum(bits_BV <= most_B[:, None], axis=-1) >= jnp.minimum(top_k_B, z_BV.shape[1])

    kth_B = _least(enough_tokens, zero_B)
    p_BV = jnp.where(bits_BV <= kth_B[:, None], p_BV, 0.0)
    wanted_B = top_p_B * jnp.sum(p_BV, axis=-1)

    def enough_mass(most_B: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(bits_BV <= most_B[:, None], p_BV, 0.0), axis=-1) >= wanted_B

    last_B = jnp.where(top_p_B < 1, jnp.minimum(kth_B, _least(enough_mass, zero_B)), kth_B)
    return jnp.where(bits_BV <= last_B[:, None], z_BV, -jnp.inf)


def _least(holds: Callable[[jax.Array], jax.Array], zero_B: jax.Array) -> jax.Array:
    """The least whole number from 0 to the bits of infinity for which a monotone condition of each row holds."""

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low_B, high_B = bounds
        middle_B = low_B + (high_B - low_B) // 2
        holds_B = holds(middle_B)
        return jnp.where(holds_B, low_B, middle_B + 1), jnp.where(holds_B, middle_B, high_B)

    return jax.lax.fori_loop(0, 31, halve, (zero_B, zero_B + INFINITY_BITS))[1]
