"""Cached decoding of rows that bring unequal numbers of tokens: each row as if it were alone and read in full."""

import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import BowConfig, FaithfulReanConfig, GptConfig, WavenetConfig
from jaxlm.models.base import rolled_back
from tests.models.test_models import MODELS as OTHERS
from tests.models.test_models import V, apply, model_and_params, tokens

FAITHFUL = FaithfulReanConfig(context=12, n_layers=2, n_heads=2, attentions=2, d_embed=8, vocab_size=V)
WIDE = WavenetConfig(layers=6, d_embed=4, d_hidden=8, vocab_size=V)
"""Its rings have more places than are written by a select."""
MODELS = [*(name for name in OTHERS if not name.endswith("-normal")), "rean-faithful", "wavenet-wide"]
"""An MLP is the same function whatever its initialisation."""
B, T = 5, 12
LENGTHS = (7, 1, 12, 0, 4)

all_models = pytest.mark.parametrize("name", MODELS)


@functools.cache
def made(name: str) -> tuple[Any, Any]:
    """The model with parameters that tell contexts apart."""
    if name in OTHERS:
        return model_and_params(name)
    if name == "wavenet-wide":
        wavenet: Any = WIDE.build()
        return wavenet, jax.jit(wavenet.init)(jax.random.key(1), jnp.zeros((1, 8), jnp.int32))
    model: Any = FAITHFUL.build()
    params = jax.jit(model.init)(jax.random.key(1), jnp.zeros((1, 8), jnp.int32))
    counts_V, words = np.arange(V) + 1, [f"word{i}" for i in range(V - 1)]
    return model, {**params, "buffers": model.buffers(words, counts_V, None, 0)}


@functools.partial(jax.jit, static_argnums=0)
def extend(model: Any, params: Any, cache: Any, tok_BT: jax.Array, length_B: jax.Array) -> tuple[jax.Array, Any]:
    return model.extend(params, cache, tok_BT, length_B)


@functools.partial(jax.jit, static_argnums=0)
def empty(model: Any, params: Any) -> Any:
    return model.init_cache(params, B, T)


def read(name: str, tok_BT: Any, *pieces: Any) -> tuple[list[np.ndarray], Any]:
    """Each row's logits, (its tokens, V), and the cache after reading pieces of unequal length_B.

    What a row does not bring is filled with a token that must not matter. Pieces have one of three widths, since each
    is compiled.
    """
    model, params = made(name)
    cache, logits = empty(model, params), [np.zeros((0, V))] * B
    at = np.zeros(B, int)
    for length_B in pieces:
        width = next(width for width in (1, 3, T) if width >= max(length_B))
        part_BT = np.full((B, width), 5, np.int32)
        for b, length in enumerate(length_B):
            part_BT[b, :length] = tok_BT[b, at[b] : at[b] + length]
        new_BTV, cache = extend(model, params, cache, part_BT, np.asarray(length_B, np.int32))
        new = np.asarray(new_BTV)
        logits = [np.concatenate([old, row[:n]]) for old, row, n in zip(logits, new, length_B, strict=True)]
        at += np.array(length_B)
    return logits, cache


def close_to_full(name: str, logits: list[np.ndarray], tok_BT: Any) -> None:
    full_BTV = np.asarray(apply(*made(name), tok_BT))
    for row, full in zip(logits, full_BTV, strict=True):
        np.testing.assert_allclose(row, full[: len(row)], atol=2e-5)


@pytest.mark.slow
@all_models
def test_unequal_rows_in_one_pass_are_read_as_in_full(name):
    tok_BT = tokens(B, T)
    logits, _ = read(name, tok_BT, LENGTHS)
    assert tuple(map(len, logits)) == LENGTHS
    close_to_full(name, logits, tok_BT)


@pytest.mark.slow
@all_models
@pytest.mark.parametrize("seed", [0, 1])
def test_unequal_pieces_give_what_one_pass_gives(name, seed):
    """Pieces of 0 to 3 tokens, and single steps of some rows, until each row has read its own number."""
    rng, left = np.random.default_rng(seed), np.array(LENGTHS) + (np.array(LENGTHS) < T)
    pieces = []
    while left.any():
        most = rng.choice([1, 3])
        pieces.append(np.minimum(left, rng.integers(0, most + 1, B)))
        left = left - pieces[-1]
    assert any((piece == 0).any() and (piece > 0).any() for piece in pieces)
    tok_BT = tokens(B, T, seed)
    logits, cache = read(name, tok_BT, *pieces)
    assert max(map(len, logits)) == T
    close_to_full(name, logits, tok_BT)
    chex.assert_trees_all_equal_shapes_and_dtypes(cache, empty(*made(name)))


@pytest.mark.slow
@all_models
def test_a_row_without_tokens_keeps_its_cache(name):
    model, params = made(name)
    _, cache = read(name, tokens(B, T), (3, 2, 3, 0, 1))
    for width in (1, 3):
        _, same = extend(model, params, cache, np.full((B, width), 2, np.int32), np.zeros(B, np.int32))
        chex.assert_trees_all_equal(cache, same)


@pytest.mark.slow
@all_models
def test_other_rows_change_nothing(name):
    tok_BT = np.asarray(tokens(B, T))
    other_BT = np.where(np.arange(B)[:, None] == 1, tok_BT, (tok_BT + 1) % V)
    one, _ = read(name, tok_BT, (2, 3, 0, 1, 3), (1, 1, 1, 0, 1), (0, 3, 1, 3, 2))
    other, _ = read(name, other_BT, (3, 3, 3, 2, 0), (0, 1, 0, 1, 1), (3, 3, 0, 0, 1))
    np.testing.assert_allclose(one[1], other[1], atol=1e-6)


@pytest.mark.parametrize("name", ["gpt", "gpt-tied", "rean", "rean-faithful"])
def test_a_smaller_position_takes_tokens_back(name):
    """As speculative decoding wants it: what lies behind the position is written over before it is seen."""
    model, params = made(name)
    tok_BT = np.asarray(tokens(B, T))
    _, cache = read(name, tok_BT, LENGTHS)
    back_B = np.array([3, 1, 9, 0, 2], np.int32)
    rest_BT = np.stack([row[back : back + 3] for row, back in zip(tok_BT, back_B, strict=True)])
    three_B = np.full(B, 3, np.int32)
    got_BTV, _ = extend(model, params, cache | {"position": jnp.asarray(back_B)}, rest_BT, three_B)
    full_BTV = apply(model, params, tok_BT)
    for got_TV, full_TV, back in zip(got_BTV, full_BTV, back_B, strict=True):
        np.testing.assert_allclose(got_TV, full_TV[back : back + 3], atol=2e-5)


@pytest.mark.slow
@all_models
def test_a_cache_that_is_rolled_back_goes_on_as_one_that_has_read_less(name):
    """Of three tokens, rows keep none, some or all; the cache has what they kept and no more."""
    model, params = made(name)
    tok_BT = np.asarray(tokens(B, T))
    _, before = read(name, tok_BT, (2, 0, 3, 1, 3))
    start_B, kept_B = np.array([2, 0, 3, 1, 3]), np.array([0, 1, 3, 2, 0], np.int32)

    def part(first_B: np.ndarray) -> np.ndarray:
        return np.stack([row[first : first + 3] for row, first in zip(tok_BT, first_B, strict=True)])

    three_BT, three_B = part(start_B), np.full(B, 3, np.int32)
    _, after = extend(model, params, before, three_BT, three_B)
    cache = jax.jit(functools.partial(rolled_back, model))(params, before, after, three_BT, kept_B)
    chex.assert_trees_all_equal_shapes_and_dtypes(cache, after)
    got_BTV, _ = extend(model, params, cache, part(start_B + kept_B), three_B)
    full_BTV = np.asarray(apply(model, params, tok_BT))
    for got_TV, full_TV, first in zip(got_BTV, full_BTV, start_B + kept_B, strict=True):
        np.testing.assert_allclose(got_TV, full_TV[first : first + 3], atol=2e-5)


@pytest.mark.parametrize("name", ["gpt", "rean"])
def test_keys_are_kept_in_the_dtype_of_products(name):
    model, params = made(name)
    assert jax.eval_shape(lambda p: model.init_cache(p, 2, 8), params)["k"].dtype == jnp.float32
    config = dataclasses.replace(model.module.config, dtype="bfloat16")
    half = dataclasses.replace(model, module=model.module.clone(config=config))
    cache = jax.eval_shape(lambda p: half.init_cache(p, 2, 8), params)
    assert cache["k"].dtype == cache["v"].dtype == jnp.bfloat16


@pytest.mark.parametrize("config", [BowConfig(d_embed=4, d_hidden=4), GptConfig(n_layers=1, n_heads=1, d_model=4)])
def test_more_tokens_than_positions_are_refused_with_both_numbers(config):
    model: Any = config.filled(V, 6).build()
    assert model.max_length == 6
    params = jax.eval_shape(model.init, jax.random.key(0), tokens(1, 1))
    assert jax.eval_shape(model.apply, params, tokens(1, 6)).shape == (1, 6, V)
    for method in (model.apply, model.next_logits):
        with pytest.raises(ValueError, match=r"has 6 positions \(its context\), got 7 tokens"):
            jax.eval_shape(method, params, tokens(1, 7))
