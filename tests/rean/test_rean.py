"""REAN: likelihoods that are normalised and calibrated, losses that leave out what they should, costs without V."""

import functools
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm import FaithfulReanConfig, ReanConfig, UserError
from jaxlm.data.rows import Batch
from jaxlm.models.base import BUFFERS, with_buffers, without_buffers
from jaxlm.ops import unit
from jaxlm.ops.losses import nats_per_target
from jaxlm.rean.model import WordVectors, treated
from jaxlm.rean.table import TOUCHED
from jaxlm.rean.training import objective_of
from jaxlm.training.state import TrainState

V, E, WORDS = 300, 8, 43
SIZES: dict[str, Any] = {"vocab_size": V, "context": 6, "d_embed": E, "n_layers": 1, "n_heads": 2}
SPELLED = [f"w{i} " for i in range(WORDS)]
FILE = WordVectors(
    [*SPELLED[:-3], "elsewhere"], np.random.default_rng(3).standard_normal((WORDS - 2, E)).astype(np.float32)
)
COUNT_V = np.random.default_rng(4).integers(0, 50, V)
COUNT_V[:257] //= 20
OBJECTIVES: Any = ("softmax", "contrastive", "vmf", "cosine", "mse")
MODELS: dict[str, Any] = {
    **{f"{one}-random": ReanConfig(objective=one, table="random", d_model=16, **SIZES) for one in OBJECTIVES},
    "softmax-frozen": ReanConfig(table="frozen", vectors="f", d_model=16, **SIZES),
    "contrastive-tuned": ReanConfig(
        objective="contrastive", negatives=3, table="tuned", vectors="f", d_model=16, **SIZES
    ),
    "contrastive-learned": ReanConfig(objective="contrastive", negatives=0, d_model=16, **SIZES),
    "faithful-1": FaithfulReanConfig(vectors="f", **SIZES),
    "faithful-3": FaithfulReanConfig(vectors="f", attentions=3, **SIZES),
}
ROWWISE = ("contrastive-tuned", "contrastive-learned")
all_models = pytest.mark.parametrize("name", MODELS)
decoders = pytest.mark.parametrize("name", ["contrastive-tuned", "faithful-3"])
calibrated_models = pytest.mark.parametrize("name", ["contrastive-tuned", "mse-random"])


@functools.cache
def model_and_params(name: str) -> tuple[Any, Any]:
    config = MODELS[name]
    model = config.build()
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), tokens())
    params = {key: jnp.asarray(0.4 * rng.standard_normal(leaf.shape), jnp.float32) for key, leaf in shapes.items()}
    first = {"log_scale": math.log(10.0), "theta": 10.0 if "contrastive" in name else 1.0}
    params |= {key: jnp.float32(value) for key, value in first.items() if key in params}
    buffers = model.buffers(SPELLED, COUNT_V, FILE if config.vectors else None, 0)
    return model, with_buffers(params, jax.tree.map(jnp.asarray, buffers))


def tokens(batch: int = 2, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).integers(0, V, (batch, 6)), jnp.int32)


@functools.partial(jax.jit, static_argnums=(0, 1))
def call(model: Any, method: str, *args: Any) -> Any:
    """A function of the model, compiled."""
    return getattr(model, method)(*args)


def table_of(name: str) -> np.ndarray:
    """The vectors of all tokens, from the parameters' own names."""
    params = model_and_params(name)[1]
    if "vectors" in params:
        return np.asarray(params["vectors"])
    buffers = params[BUFFERS]["vectors"] + params.get("delta", 0.0)
    return np.concatenate([params["special"], buffers]) if "special" in params else np.asarray(buffers)


@pytest.mark.slow
@all_models
def test_the_likelihood_is_its_formula_and_sums_to_one_over_the_table(name):
    model, params = model_and_params(name)
    emb_BE = np.random.default_rng(5).standard_normal((3, E)).astype(np.float32)
    row_VE = table_of(name).astype(np.float64)
    length_V = np.linalg.norm(row_VE, axis=1)
    direction_VE = row_VE / np.where(length_V > 0, length_V, 1)[:, None]
    cosine_BV = emb_BE / np.linalg.norm(emb_BE, axis=1, keepdims=True) @ direction_VE.T
    prior_V = (COUNT_V + 1) / (COUNT_V + 1).sum()
    if name.startswith("softmax"):
        weight_BV = np.exp(10 * cosine_BV + np.asarray(params["bias"]))
    elif name.startswith("vmf"):
        weight_BV = prior_V * np.exp(emb_BE @ direction_VE.T)
    elif name.startswith("mse"):
        weight_BV = prior_V * np.exp(-np.square(emb_BE[:, None] - row_VE).mean(-1))
    else:
        weight_BV = prior_V * np.exp((10 if "contrastive" in name else 1) * cosine_BV)
    p_BV = weight_BV / weight_BV.sum(1, keepdims=True)
    logits_NV = jnp.repeat(model.unembed(params, jnp.asarray(emb_BE)), V, axis=0)
    nats_BV = np.asarray(nats_per_target(logits_NV, jnp.tile(jnp.arange(V), 3)), np.float64).reshape(3, V)
    np.testing.assert_allclose(np.exp(-nats_BV), p_BV, rtol=2e-4)
    np.testing.assert_allclose(np.exp(-nats_BV).sum(1), 1, rtol=1e-5)


@decoders
def test_the_future_does_not_change_the_past_and_cached_decoding_is_full_decoding(name):
    model, params = model_and_params(name)
    tok_BT = tokens().at[:, 3].set(260)
    full_BTV = call(model, "apply", params, tok_BT)
    changed_BTV = call(model, "apply", params, tok_BT.at[:, 3].set(270))
    chex.assert_trees_all_close(full_BTV[:, :3], changed_BTV[:, :3], atol=1e-5)
    assert np.all(np.abs(full_BTV[:, 3:] - changed_BTV[:, 3:]).max(-1) > 1e-5)
    cache, parts = model.init_cache(params, 2, 6), []
    for start, end in ((0, 4), (4, 5), (5, 6)):
        length_B = jnp.full(2, end - start, jnp.int32)
        logits_BTV, cache = call(model, "extend", params, cache, tok_BT[:, start:end], length_B)
        parts.append(logits_BTV)
    chex.assert_trees_all_close(jnp.concatenate(parts, axis=1), full_BTV, atol=2e-5)


@pytest.mark.slow
@calibrated_models
def test_theta_is_where_train_is_most_likely(name):
    model, params = model_and_params(name)
    tok_BT = tokens(8, seed=1)
    emb_BTE = call(model, "embed", params, tok_BT)
    best_BT = jnp.argmax(model.unembed({**params, "theta": jnp.float32(20.0)}, emb_BTE), axis=-1)
    target_BT = jnp.where(jnp.arange(6) % 2 == 0, best_BT, tokens(8, seed=2))
    weight_BT = jnp.ones((8, 6)).at[:, -1].set(0.0)
    calibrated = call(model, "calibrated", params, tok_BT, target_BT, weight_BT)

    def nats(theta: Any) -> float:
        logp_BTV = jax.nn.log_softmax(model.unembed({**params, "theta": theta}, emb_BTE))
        got_BT = jnp.take_along_axis(logp_BTV, target_BT[..., None], axis=-1)[..., 0]
        return -float(jnp.sum(got_BT * weight_BT))

    theta = calibrated["theta"]
    assert nats(theta) < min(nats(theta * 1.2), nats(theta / 1.2))
    again = call(model, "calibrated", {**params, "theta": jnp.float32(123.0)}, tok_BT, target_BT, weight_BT)
    assert float(again["theta"]) == float(theta)
    chex.assert_trees_all_equal({**calibrated, "theta": 0}, {**params, "theta": 0})


def stepped(name: str) -> tuple[Any, Any, TrainState, Batch, jax.Array, Any]:
    """A model, its optimiser, a first state, a batch, a key and constants."""
    model, params = model_and_params(name)
    optimizer, trained = optax.adamw(0.01), without_buffers(params)
    state = TrainState(jnp.int32(0), trained, jax.eval_shape(optimizer.init, trained))
    batch = Batch(tokens(), tokens(seed=1), jnp.ones((2, 6)))
    return model, optimizer, state, batch, jax.random.key(0), params[BUFFERS]


@pytest.mark.parametrize("name", ["mse-random", "faithful-1", "contrastive-random", *ROWWISE])
def test_no_operation_of_a_step_has_the_size_of_the_vocabulary_but_putting_rows_back(name):
    model, optimizer, state, batch, key, buffers = stepped(name)
    assert V not in (257, E, 16)

    def made(jaxpr: Any) -> Any:
        for equation in jaxpr.eqns:
            inner = [getattr(value, "jaxpr", value) for value in equation.params.values()]
            inner = [value for value in inner if hasattr(value, "eqns")]
            for value in inner:
                yield from made(value)
            if not inner:
                sizes = {size for var in equation.outvars for size in getattr(var.aval, "shape", ())}
                yield equation.primitive.name, bool(sizes & {V, WORDS})

    objective = objective_of(model)
    step = objective.make_step(model, objective.loss, optimizer, 0.0)
    found = set(made(jax.make_jaxpr(step)(state, batch, key, buffers).jaxpr))
    assert ("dot_general", False) in found
    assert {operation for operation, large in found if large} == ({"scatter"} if name in ROWWISE else set())


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWWISE)
def test_the_rows_of_a_step_are_all_that_its_loss_reads(name):
    model, _, state, batch, key, buffers = stepped(name)
    table, rows = model.row_table, V - model.module.specials
    row_U = model.touched(buffers, batch.tok, batch.target, key)
    own = np.concatenate([batch.tok, batch.target]).reshape(-1) - model.module.specials
    assert {*own[own >= 0].tolist(), rows} <= set(np.asarray(row_U).tolist())
    assert len(np.unique(row_U)) - len(np.unique(own[own >= 0])) in (1, 2, 3, 4)
    part = {**state.params, table: state.params[table].at[row_U].get(mode="fill", fill_value=0)}
    on_rows = with_buffers(part, {**buffers, TOUCHED: row_U})
    chex.assert_trees_all_close(
        call(model.on_rows(row_U.size), "train_loss", on_rows, *batch, key),
        call(model, "train_loss", with_buffers(state.params, buffers), *batch, key),
        rtol=1e-6,
    )


def test_each_key_draws_other_negatives():
    model, params = model_and_params("contrastive-random")
    batch = Batch(tokens(), tokens(seed=1), None)
    one, same, other = (float(call(model, "train_loss", params, *batch, jax.random.key(seed))[0]) for seed in (0, 0, 1))
    assert one == same != other
    model, params = model_and_params("contrastive-tuned")
    one, other = (call(model, "touched", params[BUFFERS], *batch[:2], jax.random.key(seed)) for seed in (0, 1))
    assert set(one.tolist()) != set(other.tolist())


@pytest.mark.parametrize("name", ["softmax-random", "contrastive-random", "mse-random"])
def test_padding_does_not_count(name):
    model, params = model_and_params(name)
    tok_BT, target_BT = tokens(), tokens(seed=1)
    weight_BT = jnp.ones((2, 6)).at[:, 4:].set(0.0)
    key = jax.random.key(0)
    one = call(model, "train_loss", params, tok_BT, target_BT, weight_BT, key)
    other = call(model, "train_loss", params, tok_BT.at[:, 4:].set(1), target_BT.at[:, 4:].set(2), weight_BT, key)
    chex.assert_trees_all_close(one, other, rtol=1e-5)
    assert float(one[1]) == 8


def test_distances_leave_out_words_without_a_vector_and_the_faithful_model_does_not():
    config = ReanConfig(objective="mse", table="frozen", vectors="f", d_model=16, **SIZES)
    model = config.build()
    buffers = model.buffers(SPELLED, COUNT_V, FILE, 0)
    assert not buffers["vectors"][-3:].any()
    trained = {key: value for key, value in model_and_params("mse-random")[1].items() if key != BUFFERS}
    params = with_buffers(trained, buffers)
    target_BT = tokens().at[:, 2].set(V - 1)
    assert float(call(model, "train_loss", params, tokens(), target_BT, None, jax.random.key(0))[1]) == 10
    model, params = model_and_params("faithful-1")
    assert float(call(model, "train_loss", params, tokens(), target_BT, None, jax.random.key(0))[1]) == 12
    assert not params[BUFFERS]["vectors"][:257].any()


def test_the_faithful_model_pads_from_the_left_and_learns_the_pads_too():
    model, params = model_and_params("faithful-1")
    tok_BT, target_BT = tokens(1), tokens(1, seed=1)
    weight_BT = jnp.array([[1.0, 1, 1, 1, 0, 0]])
    total, count = call(model, "train_loss", params, tok_BT, target_BT, weight_BT, jax.random.key(0))
    moved_BT = jnp.concatenate([jnp.zeros((1, 2), jnp.int32), tok_BT[:, :4]], axis=1)
    wanted_BT = jnp.concatenate([jnp.zeros((1, 2), jnp.int32), target_BT[:, :4]], axis=1)
    square_BTE = np.square(call(model, "embed", params, moved_BT) - table_of("faithful-1")[wanted_BT])
    assert float(total / count) == pytest.approx(float(square_BTE.mean()), rel=1e-5)
    window = call(model, "train_loss", params, moved_BT, wanted_BT[:, -1], None, jax.random.key(0))
    last_BT = jnp.concatenate([moved_BT[:, 1:], wanted_BT[:, -1:]], axis=1)
    chex.assert_trees_all_close(
        window, call(model, "train_loss", params, moved_BT, last_BT, None, jax.random.key(0)), rtol=1e-6
    )


def test_windows_train_on_their_one_target():
    model, params = model_and_params("cosine-random")
    target_B = jnp.array([260, 270])
    total, count = call(model, "train_loss", params, tokens(), target_B, None, jax.random.key(0))
    emb_BE = unit(call(model, "embed", params, tokens())[:, -1])
    want = 2 - float(jnp.sum(emb_BE * unit(jnp.asarray(table_of("cosine-random"))[target_B])))
    assert float(total) == pytest.approx(want, rel=1e-5)
    assert float(count) == 2


def test_the_published_activation_has_its_scalars_between_0_and_3():
    many = jax.jit(FaithfulReanConfig(**{**SIZES, "n_layers": 12}).build().init)(jax.random.key(0), tokens())
    for drawn in (many["steepness"], many["leak"]):
        assert drawn.shape == (12,)
        assert 0 <= float(drawn.min()) < 1
        assert 2 < float(drawn.max()) <= 3


@pytest.mark.slow
def test_nearest_decoding_takes_the_nearest_vector_or_none():
    model, params = model_and_params("faithful-1")
    emb_BE = jnp.asarray(np.random.default_rng(0).standard_normal((50, E)), jnp.float32)
    cosine_BV = np.asarray(unit(emb_BE) @ unit(jnp.asarray(table_of("faithful-1"))).T)
    nearest_BV = model.nearest().unembed(params, emb_BE)
    assert (nearest_BV == 0).sum() == 50
    np.testing.assert_array_equal(nearest_BV.argmax(-1), cosine_BV.argmax(-1))
    assert (np.asarray(model.unembed(params, emb_BE)).argmax(-1) != cosine_BV.argmax(-1)).any()
    inverse_V = params[BUFFERS]["inverse_norm"]
    ahead_E = unit(emb_BE[0])
    aside_E = unit(emb_BE[1] - jnp.dot(emb_BE[1], ahead_E) * ahead_E)
    away_VE = jnp.where(inverse_V[:, None] > 0, -ahead_E, 0.0)
    for cosine, token in ((0.005, 0), (0.02, 260)):
        near_E = (cosine * ahead_E + (1 - cosine**2) ** 0.5 * aside_E) / inverse_V[260]
        lost = {**params, BUFFERS: {**params[BUFFERS], "vectors": away_VE.at[260].set(near_E)}}
        assert model.nearest().unembed(lost, emb_BE[:1])[0].argmax() == token


def test_vectors_are_treated_as_asked():
    row_VE = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32) + 2
    np.testing.assert_allclose(np.linalg.norm(treated(row_VE, "unit"), axis=1), 1, rtol=1e-5)
    centered = treated(row_VE, "centered")
    np.testing.assert_allclose(np.linalg.norm(centered, axis=1), 1, rtol=1e-5)
    assert np.abs(centered.mean(0)).max() < 0.2 < np.abs(treated(row_VE, "unit").mean(0)).max()
    raw = treated(row_VE, "raw")
    np.testing.assert_allclose(raw / raw[0, 0], row_VE / row_VE[0, 0], rtol=1e-5)
    assert np.square(raw).sum(1).mean() == pytest.approx(1, rel=1e-5)
    np.testing.assert_array_equal(treated(row_VE, "original"), row_VE)


def test_a_vectors_file_of_another_width_or_other_words_is_refused():
    model = MODELS["softmax-frozen"].build()
    with pytest.raises(UserError, match=r"model\.d_embed wants 5, the width of model\.vectors, got 8"):
        model.buffers(SPELLED, COUNT_V, WordVectors(SPELLED, np.ones((WORDS, 5), np.float32)), 0)
    with pytest.raises(UserError, match="words of the data, got none of them"):
        model.buffers(SPELLED, COUNT_V, WordVectors(["x"], np.ones((1, 8), np.float32)), 0)
