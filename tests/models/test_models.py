"""What every language model owes: causality, purity, checked names, cached decoding, and that it can learn."""

import functools
import math
from collections import Counter, defaultdict
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm.config import (
    BowConfig,
    CountsConfig,
    GptConfig,
    MlpConfig,
    ModelConfig,
    NgramConfig,
    ReanConfig,
    RnnConfig,
    WavenetConfig,
)
from jaxlm.ops.losses import cross_entropy

V = 7
SMALL_GPT: Any = {"context": 12, "n_layers": 2, "n_heads": 2, "d_model": 16, "vocab_size": V}
MODELS: dict[str, tuple[ModelConfig, int | None]] = {
    "counts-1": (CountsConfig(order=1, vocab_size=V), 0),
    "counts-2": (CountsConfig(order=2, vocab_size=V), 1),
    "counts-3": (CountsConfig(order=3, vocab_size=V), 2),
    "kneser-ney-4": (CountsConfig(order=4, smoothing="kneser-ney", vocab_size=V), 3),
    "ngram-2": (NgramConfig(order=2, vocab_size=V), 1),
    "ngram-3": (NgramConfig(order=3, vocab_size=V), 2),
    "bow": (BowConfig(context=12, d_embed=8, d_hidden=16, vocab_size=V), 12),
    "rnn": (RnnConfig(cell="rnn", d_embed=8, d_hidden=16, vocab_size=V), None),
    "gru": (RnnConfig(cell="gru", d_embed=8, d_hidden=16, vocab_size=V), None),
    "lstm": (RnnConfig(cell="lstm", d_embed=8, d_hidden=16, vocab_size=V), None),
    "wavenet-fusion": (WavenetConfig(layers=3, d_embed=8, d_hidden=16, vocab_size=V), 8),
    "wavenet-gated": (WavenetConfig(layers=3, d_embed=8, d_hidden=16, style="gated", vocab_size=V), 8),
    "gpt": (GptConfig(context=12, n_layers=2, n_heads=2, d_model=16, vocab_size=V), 12),
    "gpt-tied": (GptConfig(context=12, n_layers=1, n_heads=2, d_model=16, tied=True, vocab_size=V), 12),
    "gpt-llama": (GptConfig.llama(**SMALL_GPT | {"n_heads": 4, "n_kv_heads": 2}), 12),
    "gpt-modern": (GptConfig.modern(zero_init=False, embed_norm=False, window_pattern="SL", **SMALL_GPT), 12),
    "rean": (ReanConfig(context=12, n_layers=1, n_heads=2, d_model=16, d_embed=8, vocab_size=V), 12),
    "mlp-1-scaled": (MlpConfig(context=1, d_embed=4, d_hidden=16, init="scaled", vocab_size=V), 1),
    "mlp-3-scaled": (MlpConfig(context=3, d_embed=4, d_hidden=16, init="scaled", vocab_size=V), 3),
    "mlp-1-normal": (MlpConfig(context=1, d_embed=4, d_hidden=16, init="normal", vocab_size=V), 1),
    "mlp-3-normal": (MlpConfig(context=3, d_embed=4, d_hidden=16, init="normal", vocab_size=V), 3),
}
"""Name -> (settings, context tokens)."""
WINDOWED = [name for name in MODELS if name not in ("bow", "rnn", "gru", "lstm", "rean") and "gpt" not in name]
"""Models that see as many tokens at every place, boundaries before the first; the others see all since the start."""
RELATIVE = ("gpt-llama", "gpt-modern")
"""Models without absolute positions: a token repeated from the start is one context, however often it stands there."""
TRAINED = [name for name, (config, _) in MODELS.items() if config.trained_by_steps]

windowed_models = pytest.mark.parametrize("name", WINDOWED)
all_models = pytest.mark.parametrize("name", MODELS)
trained_models = pytest.mark.parametrize("name", TRAINED)


@functools.cache
def model_and_params(name: str) -> tuple[Any, Any]:
    """The model with parameters that tell all contexts apart: initial ones, or counts of random tokens."""
    config, _ = MODELS[name]
    model: Any = config.build()
    if config.trained_by_steps:
        return model, init(model, jax.random.key(1))
    stream = np.random.default_rng(0).integers(0, V, 5000)
    return model, model.fit(stream, np.arange(len(stream)))[0]


@functools.partial(jax.jit, static_argnums=0)
def apply(model: Any, params: Any, tok_BT: jax.Array) -> jax.Array:
    """The model's own apply, compiled; test_models_are_values_and_their_functions_pure compares the two."""
    return model.apply(params, tok_BT)


@functools.partial(jax.jit, static_argnums=0)
def next_logits(model: Any, params: Any, ctx_BC: jax.Array) -> jax.Array:
    return model.next_logits(params, ctx_BC)


@functools.partial(jax.jit, static_argnums=0)
def init(model: Any, key: jax.Array) -> Any:
    return model.init(key, jnp.zeros((1, 8), jnp.int32))


def tokens(batch: int = 2, time: int = 10, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).integers(0, V, (batch, time)), jnp.int32)


@all_models
def test_context_and_vocabulary_are_told(name):
    model, _ = model_and_params(name)
    assert (model.context, model.vocab_size) == (MODELS[name][1], V)


@all_models
def test_a_logit_for_each_token_at_each_position(name):
    model, params = model_and_params(name)
    for batch, time in ((1, 1), (3, 2), (2, 8)):
        logits_BTV = jax.eval_shape(model.apply, params, tokens(batch, time))
        chex.assert_shape(logits_BTV, (batch, time, V))
        chex.assert_type(logits_BTV, jnp.float32)
    chex.assert_tree_all_finite(apply(model, params, tokens()))


@all_models
def test_a_token_changes_the_predictions_within_its_context_and_no_others(name):
    model, params = model_and_params(name)
    tok_BT, t, C = tokens(), 4, 10 if model.context is None else model.context
    changed_BT = tok_BT.at[:, t].set((tok_BT[:, t] + 1) % V)
    a_BTV, b_BTV = apply(model, params, tok_BT), apply(model, params, changed_BT)
    chex.assert_trees_all_close(a_BTV[:, :t], b_BTV[:, :t], atol=1e-6)
    chex.assert_trees_all_close(a_BTV[:, t + C :], b_BTV[:, t + C :], atol=1e-6)
    for place in range(t, min(t + C, 10)):
        assert np.all(np.abs(a_BTV[:, place] - b_BTV[:, place]).max(-1) > 5e-5), place


@windowed_models
def test_before_the_first_token_stands_the_boundary(name):
    model, params = model_and_params(name)
    tok_BT, C = tokens(), model.context
    padded_BT = jnp.pad(tok_BT, ((0, 0), (C, 0)))[:, :10]
    a_BTV, b_BTV = apply(model, params, tok_BT), apply(model, params, padded_BT)
    chex.assert_trees_all_close(a_BTV[:, : 10 - C], b_BTV[:, C:], atol=1e-6)


@all_models
def test_next_logits_are_the_last_of_apply(name):
    model, params = model_and_params(name)
    tok_BT = tokens()
    first = 10 - model.context if name in WINDOWED else 0
    last_BV = next_logits(model, params, tok_BT[:, first:])
    chex.assert_trees_all_close(last_BV, apply(model, params, tok_BT)[:, -1], atol=1e-5)


@pytest.mark.slow
@all_models
def test_models_are_values_and_their_functions_pure(name):
    model, params = model_and_params(name)
    again = MODELS[name][0].build()
    assert model == again
    assert hash(model) == hash(again)
    tok_BT = tokens()
    first_BTV = model.apply(params, tok_BT)
    chex.assert_trees_all_close(apply(again, params, tok_BT), first_BTV, atol=1e-6)
    chex.assert_trees_all_equal(model.apply(params, tok_BT), first_BTV)
    chex.assert_trees_all_equal(model.apply(params, tok_BT, key=jax.random.key(3)), first_BTV)


@trained_models
def test_parameters_are_a_function_of_the_key(name):
    model = MODELS[name][0].build()
    one, same, other = (init(model, jax.random.key(seed)) for seed in (0, 0, 1))
    chex.assert_trees_all_equal(one, same)
    assert any(bool(np.any(a != b)) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
    longer = jax.eval_shape(model.init, jax.random.key(0), tokens(3, 8))
    chex.assert_trees_all_equal_shapes_and_dtypes(one, longer)


@all_models
def test_a_wrong_name_is_refused(name):
    model, params = model_and_params(name)
    assert isinstance(params, dict)
    for right in params:
        renamed = {("wrong" if key == right else key): value for key, value in params.items()}
        with pytest.raises(Exception, match=rf"{right}\b"):
            jax.eval_shape(model.apply, renamed, tokens(1, 3))


@trained_models
def test_a_wrong_shape_is_refused(name):
    model, params = model_and_params(name)
    for right in params:
        wrong = {**params, right: jnp.zeros((*params[right].shape, 2))}
        with pytest.raises(Exception, match="shape"):
            jax.eval_shape(model.apply, wrong, tokens(1, 3))


WIDE: Any = {"context": 16, "n_layers": 2, "n_heads": 2, "d_model": 64}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "spread"),
    [
        (NgramConfig(order=3, init_scale=0.01), 0.01),
        (NgramConfig(order=2, init_scale=0.0), 0.0),
        (MlpConfig(context=3), 1 / 60),
        (MlpConfig(context=8, d_embed=24, d_hidden=50), 1 / 60),
        (BowConfig(context=16), 0.1 * 9**0.5),  # a token and its position, twice, and at most 1 of the tanh units
        *((RnnConfig(cell=cell), 0.1) for cell in ("rnn", "gru", "lstm")),
        (WavenetConfig(style="fusion"), 0.1),
        (WavenetConfig(style="gated"), 0.1),
        (GptConfig(**WIDE), 0.02 * 64**0.5),
        (GptConfig(tied=True, **WIDE), 0.02 * (64 + 64**2 / 2 / 27) ** 0.5),  # one token of 27 is half the stream
    ],
)
def test_the_first_loss_is_that_of_the_uniform_distribution(config, spread):
    """And at most spread ** 2 / 2 above it, where spread is the logits' standard deviation, by the last layer's scale
    and the most that enters it; a tenth more for what this key draws. Over all targets, no chance is in them.
    """
    model = config.filled(27, 16).build()
    tok_BT = jax.random.randint(jax.random.key(5), (64, 16), 0, 27)
    logits_BTV = apply(model, init(model, jax.random.key(0)), tok_BT)
    logits_NV, target_N = jnp.repeat(logits_BTV.reshape(-1, 27), 27, axis=0), jnp.tile(jnp.arange(27), 64 * 16)
    total, count = jax.jit(cross_entropy)(logits_NV, target_N)
    excess = float(total / count) - math.log(27)
    assert -1e-5 < excess < 1.1 * spread**2 / 2 + 1e-5


def test_scaled_layers_keep_the_tanh_units_alive():
    model = MlpConfig(context=3, d_embed=10, d_hidden=200, vocab_size=27).build()
    params = init(model, jax.random.key(0))
    assert float(params["hidden"].std()) == pytest.approx(5 / 3 / 30**0.5, rel=0.05)
    assert float(params["out"].std()) == pytest.approx(0.01 * 5 / 3 / 200**0.5, rel=0.05)
    chex.assert_trees_all_equal(params["hidden_bias"], jnp.zeros(200))


def test_normal_parameters_all_have_variance_one():
    model = MlpConfig(context=3, d_embed=10, d_hidden=200, vocab_size=64, init="normal").build()
    params = init(model, jax.random.key(0))
    assert {name: leaf.shape for name, leaf in params.items()} == {
        "embed": (64, 10),
        "hidden": (30, 200),
        "hidden_bias": (200,),
        "out": (64, 200),
        "out_bias": (64,),
    }
    for leaf in params.values():
        assert float(leaf.std()) == pytest.approx(1, abs=0.3 if leaf.ndim == 1 else 0.1)


def test_the_mlp_is_its_equation():
    model, params = model_and_params("mlp-3-normal")
    p = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    for ctx in ([0, 0, 3], [1, 2, 6], [4, 4, 0]):
        x = np.concatenate([p["embed"][token] for token in ctx])
        logits = p["out"] @ np.tanh(p["hidden"].T @ x + p["hidden_bias"]) + p["out_bias"]
        np.testing.assert_allclose(next_logits(model, params, jnp.array([ctx]))[0], logits, atol=1e-5)


def test_the_neural_ngram_has_a_row_for_each_context_oldest_token_first():
    model, params = model_and_params("ngram-3")
    table = np.asarray(params["logits"])
    assert table.shape == (V * V, V)
    np.testing.assert_array_equal(model.next_logits(params, jnp.array([[2, 5]]))[0], table[2 * V + 5])


@pytest.mark.slow
@trained_models
def test_a_batch_is_learned_as_far_as_its_contexts_can_be_told_apart(name):
    """The least mean loss of a batch is the entropy of its targets given their contexts: neither more nor less."""
    model, params = model_and_params(name)
    tok_BT = tokens(6, 9, seed=11)
    targets: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for row in np.asarray(tok_BT).tolist():
        for t in range(8):
            padded = [0] * (model.context or 0) + row[: t + 1]
            seen = padded[len(padded) - model.context :] if name in WINDOWED else row[: t + 1]
            if name in RELATIVE and len(set(seen)) == 1:
                seen = seen[:1]
            targets[tuple(seen)][row[t + 1]] += 1
    reachable = sum(n * math.log(c.total() / n) for c in targets.values() for n in c.values()) / 48
    assert 0 < reachable < 0.9 * math.log(V)

    def loss(params):
        total, count = cross_entropy(model.apply(params, tok_BT[:, :-1]).reshape(-1, V), tok_BT[:, 1:].reshape(-1))
        return total / count

    optimizer = optax.adam(optax.cosine_decay_schedule(0.03, 2000))  # a constant rate may jump off again

    @jax.jit
    def learn(params):
        def one(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(one, (params, optimizer.init(params)), length=2000)[0][0]

    assert loss(params) > reachable + 0.1
    learned = float(loss(learn(params)))
    assert reachable - 1e-5 < learned < reachable + 0.01
