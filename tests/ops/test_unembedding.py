"""Losses over the vocabulary in chunks of rows: the numbers and gradients of the whole form, without its memory."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.ops import unembedding
from jaxlm.ops.unembedding import chunked_nats, project_logits, target_nats

N, D, V = 37, 8, 50


def inputs(dtype=jnp.float32) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    h_ND, out_VD = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in ((N, D), (V, D)))
    weight_N = jnp.asarray(rng.integers(0, 2, N), jnp.float32)
    return h_ND.astype(dtype), out_VD, jnp.asarray(rng.integers(0, V, N), jnp.int32), weight_N


def loss(h_ND, out_VD, softcap, rows):
    """Weighted nats and squared normalizers; rows None: all at once, by logits."""
    _, _, target_N, weight_N = inputs()
    if rows is None:
        logp_NV = jax.nn.log_softmax(project_logits(h_ND, out_VD, softcap))
        nats_N = -jnp.take_along_axis(logp_NV, target_N[:, None], axis=1)[:, 0]
        log_z_N = jax.nn.logsumexp(project_logits(h_ND, out_VD, softcap), axis=1)
    else:
        nats_N, log_z_N = chunked_nats(h_ND, out_VD, target_N, rows, softcap)
    return jnp.sum(weight_N * (nats_N + 0.1 * log_z_N**2)) / jnp.sum(weight_N)


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("rows", [1, 8, 37, 64])
def test_chunks_give_the_loss_and_gradients_of_the_whole(rows, softcap):
    h_ND, out_VD, _, _ = inputs()
    value_and_grad = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), static_argnums=(2, 3))
    whole, chunked = (value_and_grad(h_ND, out_VD, softcap, r) for r in (None, rows))
    chex.assert_trees_all_close(chunked, whole, rtol=2e-6, atol=1e-6)


def test_bfloat16_rows_are_summed_in_float32():
    h_ND, out_VD, _, _ = inputs(jnp.bfloat16)
    value, (dh_ND, dout_VD) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), static_argnums=(2, 3))(
        h_ND, out_VD, None, 1
    )
    assert (value.dtype, dh_ND.dtype, dout_VD.dtype) == (jnp.float32, jnp.bfloat16, jnp.float32)
    exact, (_, exact_VD) = jax.value_and_grad(loss, argnums=(0, 1))(h_ND.astype(jnp.float32), out_VD, None, None)
    np.testing.assert_allclose(value, exact, rtol=0.01)
    np.testing.assert_allclose(dout_VD, exact_VD, atol=0.01 * float(jnp.abs(exact_VD).max()))


def test_all_logits_never_exist_at_once(monkeypatch):
    """The program's temporaries, with a bound of 2 ** 14 logits in place of 2 ** 25: 4 MB of logits as a whole."""
    monkeypatch.setattr(unembedding, "MOST_LOGITS", 2**14)
    h, out, target = jnp.ones((2048, 16)), jnp.ones((512, 16)), jnp.zeros(2048, jnp.int32)

    def total(h_ND, out_VD):
        return jnp.sum(target_nats(h_ND, out_VD, target)[0])

    compiled: Any = jax.jit(jax.value_and_grad(total, argnums=(0, 1))).lower(h, out).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2**20
    nats_N, log_z_N = target_nats(h, out, target)
    np.testing.assert_allclose(nats_N, np.full(2048, np.log(512)), rtol=1e-6)
    np.testing.assert_allclose(log_z_N, np.full(2048, 16 + np.log(512)), rtol=1e-6)
