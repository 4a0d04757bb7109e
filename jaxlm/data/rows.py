"""Rows of a corpus as pure functions: windows and sequences gathered from positions, and the table of sequences."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import DataConfig
from jaxlm.data.corpus import Corpus


class Batch(NamedTuple):
    """Rows to predict. Windows: a context and one target. Sequences: a target at every position, padding weighs 0."""

    tok: jax.Array
    """tok_BC of windows, tok_BT of sequences, int32."""
    target: jax.Array
    """target_B of windows, target_BT of sequences, int32."""
    weight: jax.Array | None
    """1 where the target counts, else 0, in the target's shape, float32. None: all count."""


class Tokens(NamedTuple):
    """A corpus as gathering reads it (see Corpus), and the table of its sequences: R rows that cover it once."""

    tokens_N: jax.Array
    age_N: jax.Array
    first_R: jax.Array
    """Position of a row's first prediction."""
    length_R: jax.Array
    """Predictions in a row."""
    skip_R: jax.Array
    """Leading predictions of a row that an earlier row counts (a long line's overlap)."""
    bos: jax.Array | int = 0
    """The token before the start of a line."""


def windows_at(tokens: Tokens, place_B: jax.Array, context: int) -> Batch:
    """The `context` tokens before each position, EOS where its line has none, and the token at it."""
    back_1C = jnp.arange(context, 0, -1)[None]
    tok_BC = tokens.tokens_N[jnp.maximum(place_B[:, None] - back_1C, 0)].astype(jnp.int32)
    known_BC = tokens.age_N[place_B][:, None].astype(jnp.int32) >= back_1C
    return Batch(jnp.where(known_BC, tok_BC, tokens.bos), tokens.tokens_N[place_B].astype(jnp.int32), None)


def sequences_at(tokens: Tokens, first_B: jax.Array, length_B: jax.Array, skip_B: jax.Array, width: int) -> Batch:
    """`width` predictions from each first position on: inputs, targets, and weight 1 from skip to length."""
    offset_1T = jnp.arange(width)[None]
    place_BT = jnp.minimum(first_B[:, None] + offset_1T, tokens.tokens_N.shape[0] - 1)
    inside_BT = offset_1T < length_B[:, None]
    counts_BT = inside_BT & (offset_1T >= skip_B[:, None])
    before_BT = jnp.where(tokens.age_N[place_BT] >= 1, tokens.tokens_N[jnp.maximum(place_BT - 1, 0)], tokens.bos)
    return Batch(
        jnp.where(inside_BT, before_BT, tokens.bos).astype(jnp.int32),
        jnp.where(inside_BT, tokens.tokens_N[place_BT], tokens.bos).astype(jnp.int32),
        counts_BT.astype(jnp.float32),
    )


def row_table(corpus: Corpus, width: int, *, step: int) -> tuple[dict[str, np.ndarray], dict[str, tuple[int, int]]]:
    """Sequences of at most `width` predictions that cover every prediction of every split once.

    A line (or a split of a stream) that is longer is cut into rows that begin `step` predictions apart, of which each
    counts what the one before it did not; at step = width they lie side by side. Returns the columns first, length,
    skip (int32) and each split's range of rows.
    """
    starts_L = np.flatnonzero(corpus.age_N == 0)
    ends_L = np.append(starts_L[1:], len(corpus.tokens_N))
    extra_L = -(-np.maximum(ends_L - starts_L - width, 0) // step)
    line_R = np.repeat(np.arange(len(starts_L)), extra_L + 1)
    nth_R = np.arange(len(line_R)) - np.repeat(np.cumsum(extra_L + 1) - (extra_L + 1), extra_L + 1)
    first_R = starts_L[line_R] + nth_R * step
    columns = {
        "first": first_R,
        "length": np.minimum(ends_L[line_R] - first_R, width),
        "skip": np.where(nth_R > 0, width - step, 0),
    }
    ranges = {}
    for split, (start, end) in corpus.bounds.items():
        low, high = np.searchsorted(first_R, [start, end])
        ranges[split] = (int(low), int(high))
    return {name: column.astype(np.int32) for name, column in columns.items()}, ranges


def sequence_length(config: DataConfig, corpus: Corpus) -> int:
    """Predictions in a sequence: those of the longest line or dialogue, or of a stream data.max_length, the most."""
    return config.max_length if config.kind == "stream" else min(config.max_length, corpus.longest)
