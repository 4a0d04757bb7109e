"""How a next token is chosen from logits, and the one compiled loop that generates. Takes functions, not models."""

import dataclasses
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxlm.config import check
from jaxlm.ops import log_normalize

InitCache = Callable[[Any, int, int], Any]
"""(params, batch, length) -> cache: see models/base.py."""
Extend = Callable[[Any, Any, jax.Array], tuple[jax.Array, Any]]
"""(params, cache, tok_BT) -> (logits_BTV, cache)."""


SMALL_VOCABULARY = 128
"""Tokens up to which probabilities are cumulated by a single product."""
COLDEST = 1e-30
"""Below this temperature the likeliest token is taken: float32 could not divide by it."""


@dataclasses.dataclass(frozen=True)
class Strategy:
    """What is done to the logits before a token is drawn: temperature first, then each filter on what is left."""

    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token."""
    top_k: int | None = None
    """Only the k likeliest tokens (and those as likely as the last of them)."""
    top_p: float | None = None
    """Only the fewest likeliest tokens whose probabilities reach p together (and those as likely as the last of them;
    Holtzman et al. 2020)."""
    min_p: float | None = None
    """Only tokens at least p times as likely as the likeliest (Nguyen et al. 2024)."""

    def __post_init__(self) -> None:
        check.at_least("temperature", self.temperature, 0)
        check.at_least("top_k", self.top_k, 1)
        check.half_open("top_p", self.top_p, 0, 1)
        check.between("min_p", self.min_p, 0, 1)

    def filtered(self, logits_BV: jax.Array) -> jax.Array:
        """The logits z_BV of what is drawn, -inf for what is not; all alike where no token is possible."""
        hopeless_B1 = jnp.all(jnp.isneginf(logits_BV), axis=-1, keepdims=True)
        z_BV = jnp.where(hopeless_B1, 0.0, logits_BV.astype(jnp.float32))
        if self.temperature < COLDEST:
            best_B1 = jnp.argmax(z_BV, axis=-1, keepdims=True)
            return jnp.where(jnp.arange(z_BV.shape[-1]) == best_B1, 0.0, -jnp.inf)
        if self.temperature != 1:
            z_BV = (z_BV - jnp.max(z_BV, axis=-1, keepdims=True)) / self.temperature
        if self.top_k is not None:
            least_B1 = jax.lax.top_k(z_BV, min(self.top_k, z_BV.shape[-1]))[0][:, -1:]
            z_BV = jnp.where(z_BV >= least_B1, z_BV, -jnp.inf)
        if self.top_p is not None and self.top_p < 1:
            sorted_BV = jnp.sort(log_normalize(z_BV), axis=-1, descending=True)
            before_BV = jnp.cumsum(jnp.exp(sorted_BV), axis=-1) - jnp.exp(sorted_BV)
            needed_BV = (before_BV < self.top_p) | (jnp.arange(z_BV.shape[-1]) == 0)  # float32 may take p for 0
            least_B1 = jnp.min(jnp.where(needed_BV, sorted_BV, jnp.inf), axis=-1, keepdims=True)
            z_BV = jnp.where(log_normalize(z_BV) >= least_B1, z_BV, -jnp.inf)
        if self.min_p is not None:
            least_B1 = jnp.max(z_BV, axis=-1, keepdims=True) + jnp.log(self.min_p)
            z_BV = jnp.where(z_BV >= least_B1, z_BV, -jnp.inf)
        return z_BV


def draw(key_B: jax.Array, logits_BV: jax.Array) -> jax.Array:
    """A token of each row, by its logits and a key of its own: the first whose cumulated probability is above a uniform
    number. Returns tok_B, int32.

    One random number a row, not one a token. It has 23 bits: tokens far less likely than 1e-7 are drawn too rarely;
    those of probability 0 never. Probabilities are not normalised; the number is scaled instead, which leaves a single
    exp to each logit.
    """
    V = logits_BV.shape[1]
    u_B1 = jax.vmap(lambda key: jax.random.uniform(key, (1,)))(key_B)
    p_BV = jnp.exp(logits_BV - jnp.max(logits_BV, axis=-1, keepdims=True))
    reached_BV = p_BV @ jnp.triu(jnp.ones((V, V))) if V <= SMALL_VOCABULARY else jnp.cumsum(p_BV, axis=-1)
    reached_BV = jnp.where(p_BV > 0, reached_BV, -1.0)
    top_B1 = jnp.max(reached_BV, axis=-1, keepdims=True)
    token_V = jnp.arange(V, dtype=jnp.int32)
    return jnp.min(jnp.where(reached_BV > u_B1 * top_B1, token_V, V - 1), axis=-1)


@cache
def compiled(**options: int | bool) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """`generate` as one program, made with the given options of the compiler; one for each set of options."""
    static = ("init_cache", "extend", "strategy", "max_tokens", "end", "stop")
    return jax.jit(generate, static_argnames=static, compiler_options=options)


def generate(
    init_cache: InitCache,
    extend: Extend,
    params: Any,
    prompt_BP: jax.Array,
    length_B: jax.Array,
    limit_B: jax.Array,
    key_K: tuple[jax.Array, ...],
    which_B: jax.Array,
    *,
    strategy: Strategy,
    max_tokens: int,
    end: int | None = None,
    allowed_V: jax.Array | None = None,
    stop: tuple[int, ...] = (),
) -> tuple[jax.Array, jax.Array]:
    """Continue prompt b by at most limit_B[b] <= max_tokens tokens. To be called through `compiled`.

    Row b's prompt is prompt_BP[b, :length_B[b]], at least one token; prompts may differ in length. A row ends after the
    token `end` or once its last tokens are `stop`; only tokens that allowed_V holds true for are drawn.
    Row b's randomness depends on key_K[which_B[b]] and b alone: more rows or longer prompts beside it change nothing.
    Returns new_BN, the tokens after the prompt (0 where there are none), and how many there are, count_B.
    """
    B, P = prompt_BP.shape
    total = P + max_tokens
    tok_BT = jnp.zeros((B, total), jnp.int32).at[:, :P].set(prompt_BP)
    key_B = jax.vmap(jax.random.fold_in)(jnp.stack(key_K)[which_B], jnp.arange(B))

    def unfinished(carry: tuple[Any, ...]) -> jax.Array:
        t, _, _, _, done_B = carry
        return (t < total - 1) & ~jnp.all(done_B)

    def one_token(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        t, cache, tok_BT, count_B, done_B = carry
        logits_B1V, cache = extend(params, cache, jax.lax.dynamic_slice_in_dim(tok_BT, t, 1, axis=1))
        logits_BV = logits_B1V[:, 0]
        if allowed_V is not None:
            logits_BV = _only(logits_BV, allowed_V)
        drawn_B = draw(jax.vmap(jax.random.fold_in)(key_B, count_B), strategy.filtered(logits_BV))
        writes_B = (t + 1 >= length_B) & ~done_B
        old_B = jax.lax.dynamic_slice_in_dim(tok_BT, t + 1, 1, axis=1)[:, 0]
        new_B = jnp.where(writes_B, drawn_B, old_B)
        tok_BT = jax.lax.dynamic_update_slice_in_dim(tok_BT, new_B[:, None], t + 1, axis=1)
        count_B = count_B + writes_B
        done_B = done_B | (count_B >= limit_B)
        if end is not None:
            done_B = done_B | (writes_B & (new_B == end))
        if 0 < len(stop) <= total:
            last_BS = jax.lax.dynamic_slice_in_dim(tok_BT, t + 2 - len(stop), len(stop), axis=1)
            found_B = jnp.all(last_BS == jnp.array(stop), axis=-1) & (count_B >= len(stop))
            done_B = done_B | found_B
        return t + 1, cache, tok_BT, count_B, done_B

    cache = init_cache(params, B, total - 1)
    start = (jnp.int32(0), cache, tok_BT, jnp.zeros(B, jnp.int32), limit_B < 1)
    _, _, tok_BT, count_B, _ = jax.lax.while_loop(unfinished, one_token, start)
    place_BN = length_B[:, None] + jnp.arange(max_tokens)
    new_BN = jnp.take_along_axis(tok_BT, jnp.minimum(place_BN, total - 1), axis=1)
    return jnp.where(jnp.arange(max_tokens) < count_B[:, None], new_BN, 0), count_B


@partial(jax.jit, static_argnames=("extend", "strategy"))
def next_token(
    extend: Extend,
    params: Any,
    cache: Any,
    tok_BT: jax.Array,
    key: jax.Array,
    *,
    strategy: Strategy,
    allowed_V: jax.Array,
) -> tuple[jax.Array, Any]:
    """Read some tokens and draw the one after them, of those that allowed_V holds true for: drawn_B and the memory."""
    logits_BTV, cache = extend(params, cache, tok_BT)
    return jax.random.categorical(key, strategy.filtered(_only(logits_BTV[:, -1], allowed_V))), cache


def _only(logits_BV: jax.Array, allowed_V: jax.Array) -> jax.Array:
    """Logits without what is not allowed; all that is allowed is equal where none of it is possible."""
    hopeless_B1 = jnp.all(jnp.isneginf(logits_BV) | ~allowed_V, axis=-1, keepdims=True)
    return jnp.where(allowed_V, jnp.where(hopeless_B1, 0.0, logits_BV), -jnp.inf)
