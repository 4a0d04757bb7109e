"""A mixture of a network and counts is what its formula says, and its share is the most likely one."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.models.base import BUFFERS
from jaxlm.models.initialization import by_name

V = 7


@pytest.fixture(scope="module")
def mixture():
    """A model with parameters, counts of a random text included."""
    config = jaxlm.MixtureConfig(network=jaxlm.RnnConfig(d_embed=4, d_hidden=6), order=3)
    model = config.filled(V, 12).build()
    rng = np.random.default_rng(0)
    token_N = rng.integers(0, V, 300).astype(np.int32)
    counts = model.counts.fit(token_N, np.minimum(np.arange(300), 9).astype(np.uint16))[0]
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    return model, {**params, "share": jnp.float32(0.3), BUFFERS: counts}, jnp.asarray(rng.integers(1, V, (3, 9)))


@pytest.mark.slow
def test_a_mixture_is_its_formula(mixture):
    model, params, tok_BT = mixture
    got = model.apply(params, tok_BT)
    network = jax.nn.softmax(model.network.apply(params["network"], tok_BT), axis=-1)
    counts = jnp.exp(model.counts.apply(params[BUFFERS], tok_BT))
    chex.assert_shape(got, (3, 9, V))
    chex.assert_trees_all_close(jnp.exp(got), 0.3 * network + 0.7 * counts, rtol=1e-5)
    chex.assert_trees_all_close(jnp.sum(jnp.exp(got), axis=-1), jnp.ones((3, 9)), rtol=1e-5)


def test_nats_of_targets_are_those_of_all_logits(mixture):
    model, params, tok_BT = mixture
    nats, _ = model.sequence_nats(params, tok_BT, tok_BT[:, ::-1])
    logits = model.apply(params, tok_BT)
    chex.assert_trees_all_close(nats, -jnp.take_along_axis(logits, tok_BT[:, ::-1, None], axis=-1)[..., 0], rtol=1e-5)


def test_decoding_token_by_token_gives_what_one_pass_gives(mixture):
    model, params, tok_BT = mixture
    cache, made, extend = model.init_cache(params, 3, 9), [], jax.jit(model.extend)
    for t in range(9):
        logits, cache = extend(params, cache, tok_BT[:, t : t + 1], jnp.ones(3, jnp.int32))
        made.append(logits[:, 0])
    chex.assert_trees_all_close(jnp.stack(made, axis=1), model.apply(params, tok_BT), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "network", [jaxlm.RnnConfig(d_embed=4, d_hidden=6), jaxlm.GptConfig(n_layers=1, n_heads=1, d_model=8)]
)
def test_both_caches_are_rolled_back(mixture, network):
    _, params, tok_BT = mixture
    model = jaxlm.MixtureConfig(network=network, order=3).filled(V, 12).build()
    params = params | {"network": jax.jit(model.network.init)(jax.random.key(0), tok_BT)}
    empty, extend = model.init_cache(params, 3, 9), jax.jit(model.extend)
    four_B, kept_B = jnp.full(3, 4), jnp.array([0, 1, 4])
    _, before = extend(params, empty, tok_BT[:, :4], four_B)
    _, after = extend(params, before, tok_BT[:, 4:8], four_B)
    cache = model.rolled_back(params, before, after, tok_BT[:, 4:8], kept_B)
    logits, _ = extend(params, cache, jnp.take_along_axis(tok_BT, 4 + kept_B[:, None], axis=1), jnp.ones(3, jnp.int32))
    full = jnp.take_along_axis(model.apply(params, tok_BT), 4 + kept_B[:, None, None], axis=1)
    chex.assert_trees_all_close(logits, full, rtol=1e-4, atol=1e-5)


def test_the_calibrated_share_is_the_most_likely_one(mixture):
    model, params, tok_BT = mixture
    target_BT, weight_BT = jnp.roll(tok_BT, -1, axis=1), jnp.ones((3, 9)).at[0, 4:].set(0)

    @jax.jit
    def loss(share):
        return jnp.sum(weight_BT * model.sequence_nats({**params, "share": share}, tok_BT, target_BT)[0])

    best = jax.jit(model.calibrated)(params, tok_BT, target_BT, weight_BT)["share"]
    grid = [float(loss(jnp.float32(share))) for share in np.linspace(0.001, 0.999, 50)]
    assert float(loss(best)) <= min(grid) + 1e-4


def test_every_parameter_has_its_axes(mixture):
    model, params, _ = mixture
    trained = by_name({name: value for name, value in params.items() if name != BUFFERS})
    assert {name: len(model.axes[name]) for name in trained} == {name: leaf.ndim for name, leaf in trained.items()}


@pytest.mark.parametrize("network", [jaxlm.CountsConfig(), jaxlm.MlpConfig()])
def test_only_networks_of_sequences_are_mixed(network):
    with pytest.raises(jaxlm.UserError, match=r"model\.network"):
        jaxlm.MixtureConfig(network=network).filled(V, 12).build()
