"""The count models: n-gram probabilities from a trie in compressed rows, fitted with NumPy, read inside jit.

Parameters are the trie's levels 1 ... order, `token_i` and `start_i` (see trie.py), and what the smoothing adds. Memory
is proportional to the distinct n-grams. Logits are log-probabilities.
"""

import abc
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.models import trie
from jaxlm.models.base import Axes, ContextModel, Params
from jaxlm.ops import windows


@dataclasses.dataclass(frozen=True)
class CountModel(ContextModel):
    """The part that the smoothings share: finding nodes by bisection within their parent's children."""

    @property
    def order(self) -> int:
        """Tokens an n-gram has."""
        return self.context + 1

    @property
    def axes(self) -> Axes:
        """Every array is replicated: a lookup may end anywhere in it."""
        return {f"{name}_{length}": (None,) for name in ("token", "start") for length in range(1, self.order + 1)}

    def init(self, key: jax.Array, tok_BT: jax.Array) -> Params:
        """The table of no text at all."""
        return self.fit(np.zeros(0, np.int32), np.zeros(0, np.uint16))[0]

    @abc.abstractmethod
    def fit(self, tokens_N: np.ndarray, age_N: np.ndarray) -> tuple[Params, list[str]]:
        """Parameters from all tokens of a text and their places in their lines, and notes for the user."""

    @abc.abstractmethod
    def next_nats(self, params: Params, ctx_BC: jax.Array, target_B: jax.Array) -> jax.Array:
        """-log p(target | context), nats_B, without the other tokens' probabilities."""

    def sequence_nats(
        self, params: Params, tok_BT: jax.Array, target_BT: jax.Array, *, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """-log p of the target after each position, without the other tokens' probabilities, and log_z_BT of zeros."""
        ctx_NC = windows(tok_BT, self.context, self.eos).reshape(tok_BT.size, self.context)
        nats_N = self.next_nats(params, ctx_NC, target_BT.reshape(-1))
        return nats_N.reshape(target_BT.shape), jnp.zeros(target_BT.shape)

    def _context_nodes(self, params: Params, ctx_BC: jax.Array, length: int) -> jax.Array:
        """The node of each context's last `length` tokens, -1 where they do not occur."""
        node_B = jnp.zeros(ctx_BC.shape[0], jnp.int32)
        for level in range(1, length + 1):
            node_B = self._child(params, level, node_B, ctx_BC[:, self.context - length + level - 1])
        return node_B

    def _child(self, params: Params, level: int, parent_B: jax.Array, token_B: jax.Array) -> jax.Array:
        """The node of parent and token, -1 where there is none."""
        token_U = params[f"token_{level}"]
        start_B, end_B = self._children(params, level, parent_B)

        def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            low_B, high_B = bounds
            middle_B = (low_B + high_B) // 2
            open_B = low_B < high_B
            right_B = open_B & (token_U[jnp.minimum(middle_B, token_U.shape[0] - 1)] < token_B)
            return jnp.where(right_B, middle_B + 1, low_B), jnp.where(open_B & ~right_B, middle_B, high_B)

        # a loop, not unrolled: XLA fuses what is unrolled into one expression that computes each step over and over
        low_B, _ = jax.lax.fori_loop(0, math.ceil(math.log2(self.vocab_size + 1)), halve, (start_B, end_B))
        found_B = (low_B < end_B) & (token_U[jnp.minimum(low_B, token_U.shape[0] - 1)] == token_B)
        return jnp.where(found_B, low_B, -1)

    def _children(self, params: Params, level: int, parent_B: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The range of each parent's nodes, empty for parent -1."""
        start, known_B = params[f"start_{level}"], parent_B >= 0
        return jnp.where(known_B, start[parent_B], 0), jnp.where(known_B, start[parent_B + 1], 0)

    def _spread(self, params: Params, level: int, parent_B: jax.Array, value_U: jax.Array) -> jax.Array:
        """A value of each child, laid out over the vocabulary, 0 where there is no child. Returns value_BV."""
        V, token_U = self.vocab_size, params[f"token_{level}"]
        low_B, end_B = self._children(params, level, parent_B)
        place_BV = low_B[:, None] + jnp.arange(V)[None]
        inside_BV = place_BV < end_B[:, None]
        place_BV = jnp.minimum(place_BV, token_U.shape[0] - 1)
        token_BV = jnp.where(inside_BV, token_U[place_BV], V)
        row_B1 = jnp.arange(parent_B.shape[0])[:, None]
        empty_BV = jnp.zeros((parent_B.shape[0], V))
        return empty_BV.at[row_B1, token_BV].add(value_U[place_BV].astype(jnp.float32), mode="drop")


@dataclasses.dataclass(frozen=True)
class AddK(CountModel):
    """p(v | c) = (count(c, v) + k) / (count(c) + k V), Lidstone's estimate.

    Adds `count` of the longest n-grams, and `total` of their contexts. Where k = 0, an unseen event has -inf,
    and an unseen context -inf throughout.
    """

    add_k: float

    @property
    def axes(self) -> Axes:
        """Every array is replicated."""
        return {**super().axes, "count": (None,), "total": (None,)}

    def fit(self, tokens_N: np.ndarray, age_N: np.ndarray) -> tuple[Params, list[str]]:
        """Count the n-grams."""
        levels = trie.count(tokens_N, age_N, self.order, self.vocab_size, self.eos)
        count_U, parent_U, parents = levels[-1].count, levels[-1].parent, len(levels[-1].start) - 1
        total_P = np.bincount(parent_U, weights=count_U, minlength=parents)
        own = {"count": jnp.asarray(count_U.astype(np.int32)), "total": jnp.asarray(total_P.astype(np.int32))}
        return _structure(levels) | own, []

    def next_logits(self, params: Params, ctx_BC: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """The log-probabilities log p_BV after each context."""
        node_B = self._context_nodes(params, ctx_BC, self.context)
        count_BV = self._spread(params, self.order, node_B, params["count"])
        total_B = self._total(params, node_B)
        return jnp.log(count_BV + self.add_k) - self._log_total(total_B)[:, None]

    def next_nats(self, params: Params, ctx_BC: jax.Array, target_B: jax.Array) -> jax.Array:
        """-log p(target | context)."""
        node_B = self._context_nodes(params, ctx_BC, self.context)
        child_B = self._child(params, self.order, node_B, target_B)
        count_B = jnp.where(child_B >= 0, params["count"][child_B], 0).astype(jnp.float32)
        return self._log_total(self._total(params, node_B)) - jnp.log(count_B + self.add_k)

    def _total(self, params: Params, node_B: jax.Array) -> jax.Array:
        return jnp.where(node_B >= 0, params["total"][node_B], 0).astype(jnp.float32)

    def _log_total(self, total_B: jax.Array) -> jax.Array:
        total_B = total_B + self.add_k * self.vocab_size
        return jnp.log(jnp.where(total_B > 0, total_B, 1.0))


@dataclasses.dataclass(frozen=True)
class KneserNey(CountModel):
    """Interpolated modified Kneser-Ney (Chen and Goodman 1999, section 3.1 and equations 26 to 27).

    p_i(v | c) = (a(c v) - D(a(c v))) / a(c .) + backoff(c) p_(i - 1)(v | c without its oldest token), where a is the
    count at the longest length and else the number of distinct tokens before, D one of three discounts of each length
    for a = 1, 2, 3 and more, and backoff(c) the mass that the discounts free. Below the single tokens stands 1 / V.

    Adds `p_i`, the discounted share of each node, and `backoff_i`, one number for each context of length i.
    """

    @property
    def axes(self) -> Axes:
        """Every array is replicated."""
        own = {f"{name}_{length}": (None,) for name in ("p", "backoff") for length in range(1, self.order + 1)}
        return {**super().axes, **own}

    def fit(self, tokens_N: np.ndarray, age_N: np.ndarray) -> tuple[Params, list[str]]:
        """Count, discount, normalise. The notes tell where the counts of counts do not allow three discounts."""
        levels = trie.count(tokens_N, age_N, self.order, self.vocab_size, self.eos)
        params, notes = _structure(levels), []
        for length, level in enumerate(levels, start=1):
            count_U = level.count if length == self.order else level.preceded
            discount_4, note = discounts(count_U)
            if note:
                notes.append(f"Kneser-Ney, {length}-grams: {note}")
            discount_U = discount_4[np.minimum(count_U, 3)]
            parents = len(level.start) - 1
            total_P = np.bincount(level.parent, weights=count_U, minlength=parents)
            freed_P = np.bincount(level.parent, weights=discount_U, minlength=parents)
            p_U = (count_U - discount_U) / np.maximum(total_P, 1)[level.parent]
            backoff_P = np.where(total_P > 0, freed_P / np.maximum(total_P, 1), 1.0)
            params[f"p_{length}"] = jnp.asarray(p_U.astype(np.float32))
            params[f"backoff_{length}"] = jnp.asarray(backoff_P.astype(np.float32))
        return params, notes

    def next_logits(self, params: Params, ctx_BC: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """The log-probabilities log p_BV after each context."""
        p_BV = jnp.full((ctx_BC.shape[0], self.vocab_size), 1 / self.vocab_size)
        for length in range(1, self.order + 1):
            node_B = self._context_nodes(params, ctx_BC, length - 1)
            own_BV = self._spread(params, length, node_B, params[f"p_{length}"])
            p_BV = own_BV + self._backoff(params, length, node_B)[:, None] * p_BV
        return jnp.log(p_BV)

    def next_nats(self, params: Params, ctx_BC: jax.Array, target_B: jax.Array) -> jax.Array:
        """-log p(target | context)."""
        p_B = jnp.full(ctx_BC.shape[0], 1 / self.vocab_size)
        for length in range(1, self.order + 1):
            node_B = self._context_nodes(params, ctx_BC, length - 1)
            child_B = self._child(params, length, node_B, target_B)
            own_B = jnp.where(child_B >= 0, params[f"p_{length}"][child_B], 0.0)
            p_B = own_B + self._backoff(params, length, node_B) * p_B
        return -jnp.log(p_B)

    def _backoff(self, params: Params, length: int, node_B: jax.Array) -> jax.Array:
        return jnp.where(node_B >= 0, params[f"backoff_{length}"][node_B], 1.0)


def discounts(count_U: np.ndarray) -> tuple[np.ndarray, str]:
    """The discounts of counts 0, 1, 2, 3 and more, and a note where the usual estimate does not exist.

    With n_k the number of n-grams that occur k times and Y = n_1 / (n_1 + 2 n_2): k - (k + 1) Y n_(k + 1) / n_k (Chen
    and Goodman, equation 17). Where one of n_1 ... n_4 is 0 or a discount leaves (0, k], one discount serves all: Y, or
    1 / 2 where there is no Y.
    """
    n = np.bincount(np.minimum(count_U, 5), minlength=6).astype(float)
    if n[1:5].all():
        share = n[1] / (n[1] + 2 * n[2])
        three = np.array([k - (k + 1) * share * n[k + 1] / n[k] for k in (1, 2, 3)])
        if (three > 0).all() and (three <= (1, 2, 3)).all():
            return np.concatenate([[0.0], three]), ""
    one = n[1] / (n[1] + 2 * n[2]) if n[1] and n[2] else 0.5
    seen = ", ".join(f"{int(n[k])} occur {k}x" for k in (1, 2, 3, 4))
    return np.array([0.0, one, one, one]), f"one discount {one:.3f} in place of three ({seen})"


def _structure(levels: list[trie.Level]) -> Params:
    params: Params = {}
    for length, level in enumerate(levels, start=1):
        params[f"token_{length}"] = jnp.asarray(level.token)
        params[f"start_{length}"] = jnp.asarray(level.start)
    return params
