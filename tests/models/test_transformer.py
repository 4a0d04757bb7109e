"""The transformer's blocks: where and how often dropout drops, and what the parameters are drawn from."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm

SIZES: dict[str, Any] = {"n_heads": 2, "d_model": 8, "vocab_size": 8}


@pytest.mark.slow
def test_each_place_of_dropout_drops_on_its_own_and_makes_up_for_it(monkeypatch):
    """In a stream of biases alone: e, then for each block a w + b and c, where w is the weight of the only token.

    What is kept is doubled, w before the sum with b is, so a logit is 2 (e + (2 a + b) + c + (2 a + b) + c), of which
    each term is there or not. They are powers of two: its digits tell what was kept.
    """
    monkeypatch.setattr("jaxlm.models.norm_block.layer_norm", lambda x, scale, bias, eps: x)
    model = jaxlm.GptConfig(context=1, n_layers=2, dropout=0.5, **SIZES).build()
    tok_BT = jnp.zeros((512, 1), jnp.int32)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), jax.eval_shape(model.init, jax.random.key(0), tok_BT))
    unit_L1, eye_DD = jnp.array([[1.0], [8.0]]), jnp.eye(8)
    values: dict[str, Any] = {
        "v_bias": 1.0,
        "attend": (unit_L1[..., None] * 2 * eye_DD[None]).reshape(2, 2, 4, 8),
        "attend_bias": unit_L1 * 2,
    }
    values |= {"embed": 1.0, "down_bias": unit_L1 * 8, "out": eye_DD}
    params = zeros | {name: jnp.broadcast_to(value, zeros[name].shape) for name, value in values.items()}
    np.testing.assert_array_equal(model.apply(params, tok_BT), 1 + (2 + 2 + 8) + (16 + 16 + 64))
    one, same, other = (np.asarray(model.apply(params, tok_BT, key=jax.random.key(seed))) / 2 for seed in (0, 0, 1))
    chex.assert_trees_all_equal(one, same)
    assert (one != other).any()
    of_block = [0, 1, 3, 4, 5, 7]
    assert set(one.ravel().tolist()) == {e + 2 * x + 16 * y for e in (0, 1) for x in of_block for y in of_block}
    share = [float((one.astype(int) >> digit & 1).mean()) for digit in range(7)]
    assert share == pytest.approx([1 / 2, 1 / 2, 1 / 4, 1 / 2, 1 / 2, 1 / 4, 1 / 2], abs=0.04)


@pytest.mark.parametrize("n_layers", [1, 6])
@pytest.mark.parametrize("config", [jaxlm.GptConfig, jaxlm.ReanConfig])
def test_the_more_blocks_the_less_each_adds_at_first(config, n_layers):
    """GPT-2's N(0, 0.02), on what a block adds to the stream divided by the root of their number, two of each block."""
    model = config(context=64, n_layers=n_layers, n_heads=2, d_model=64, vocab_size=64).build()
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    added = 0.02 / (2 * n_layers) ** 0.5
    drawn = {"position": 0.02, "q": 0.02, "k": 0.02, "v": 0.02, "attend": added, "up": 0.02, "down": added, "out": 0.02}
    for name, scale in drawn.items():
        assert float(params[name].std()) == pytest.approx(scale, rel=0.04), name
        assert float(params[name].mean()) == pytest.approx(0, abs=0.05 * scale), name
    for name in (
        "q_bias",
        "k_bias",
        "v_bias",
        "attend_bias",
        "up_bias",
        "down_bias",
        "norm1_bias",
        "norm2_bias",
        "norm_bias",
    ):
        chex.assert_trees_all_equal(params[name], jnp.zeros_like(params[name]))
    for name in ("norm1_scale", "norm2_scale", "norm_scale"):
        chex.assert_trees_all_equal(params[name], jnp.ones_like(params[name]))


@pytest.mark.slow
def test_more_tokens_than_positions_or_room_are_refused():
    """A table of one position would be taken for all of them, and a memory be written over."""
    for context, T in ((1, 2), (8, 9)):
        model = jaxlm.GptConfig(context=context, **SIZES).build()
        params = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
        with pytest.raises(ValueError, match=rf"has {context} positions \(its context\), got {T} tokens"):
            model.apply(params, jnp.zeros((1, T), jnp.int32))
    with pytest.raises(ValueError, match="cache has room for 4 tokens, got 5 at once"):
        model.extend(params, model.init_cache(params, 1, 4), jnp.zeros((1, 5), jnp.int32), jnp.array([5]))
