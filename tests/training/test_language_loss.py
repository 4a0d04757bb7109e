"""The loss of a language model: with a penalty on its normalizers, in chunks of rows, over padding."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.data.rows import Batch
from jaxlm.ops import unembedding
from jaxlm.training.step import language_loss

V = 11


@pytest.mark.parametrize("most_logits", [2**25, 50], ids=["whole", "chunks"])
def test_z_loss_is_in_the_gradient_and_not_in_the_value(monkeypatch, most_logits):
    monkeypatch.setattr(unembedding, "MOST_LOGITS", most_logits)
    model = jaxlm.GptConfig(context=6, n_layers=1, n_heads=1, d_model=4, logit_softcap=2.0, vocab_size=V).build()
    rng = np.random.default_rng(0)
    tok_BT, target_BT = jnp.asarray(rng.integers(0, V, (2, 3, 6)), jnp.int32)
    weight_BT = jnp.asarray(rng.integers(0, 2, (3, 6)), jnp.float32)
    params = jax.tree.map(lambda leaf: leaf + 0.3, model.init(jax.random.key(0), tok_BT))

    def ours(params):
        return language_loss(model, params, Batch(tok_BT, target_BT, weight_BT), None, z_loss=0.1)

    def by_hand(params, z_loss=0.1):
        logits_BTV = model.apply(params, tok_BT)
        log_z_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
        own_BT = jnp.take_along_axis(logits_BTV, target_BT[..., None], axis=-1)[..., 0]
        return jnp.sum(weight_BT * (log_z_BT - own_BT + z_loss * log_z_BT**2))

    (total, count), grads = jax.jit(lambda p: (ours(p), jax.grad(lambda p: ours(p)[0])(p)))(params)
    expected, theirs = jax.jit(lambda p: (by_hand(p, 0.0), jax.grad(by_hand)(p)))(params)
    assert float(count) == float(weight_BT.sum())
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    chex.assert_trees_all_close(grads, theirs, rtol=1e-4, atol=1e-5)
