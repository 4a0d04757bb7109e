"""Muon for matrices and AdamW for the rest, against a plain NumPy form, layer by layer and on matrices of two axes."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm.config import OptimConfig
from jaxlm.training.optim import transformation

L, D, N, H, F, V = 2, 4, 2, 3, 5, 7
AXES = {
    "q": ("layers", "embed", "heads", "head"),
    "attend": ("layers", "heads", "head", "embed"),
    "up": ("layers", "embed", "mlp"),
    "up_bias": ("layers", "mlp"),
    "embed": ("vocab", "embed"),
    "scale": (),
}
SHAPES = {"q": (L, D, N, H), "attend": (L, N, H, D), "up": (L, D, F), "up_bias": (L, F), "embed": (V, D), "scale": ()}
FLAT = {"q": (D, N * H), "attend": (N * H, D), "up": (D, F)}
"""Inputs and outputs of one layer's matrix."""
BETAS, EPS = (0.8, 0.95), 1e-3


def draws(seed, count):
    random = np.random.default_rng(seed)
    return [{name: random.normal(size=shape) for name, shape in SHAPES.items()} for _ in range(count)]


def newton_schulz(m_IO):
    """Five steps of X <- a X + b X X' X + c X X' X X' X from M / |M| (Jordan et al. 2024)."""
    x_IO = m_IO / np.linalg.norm(m_IO)
    for _ in range(5):
        x_IO = 3.4445 * x_IO - 4.7750 * x_IO @ x_IO.T @ x_IO + 2.0315 * x_IO @ x_IO.T @ x_IO @ x_IO.T @ x_IO
    return x_IO


def muon64(w, grads, rates, momentum, decay, rms):
    """Muon on one matrix: Nesterov's momentum as in NAdam (Dozat 2016), orthogonalised and scaled, decoupled decay."""
    velocity, (inputs, outputs) = np.zeros_like(w), w.shape
    scale = math.sqrt(max(1, outputs / inputs)) if rms is None else rms * math.sqrt(max(inputs, outputs))
    for t, (grad, rate) in enumerate(zip(grads, rates, strict=True), start=1):
        velocity = momentum * velocity + (1 - momentum) * grad
        ahead = momentum * velocity / (1 - momentum ** (t + 1)) + (1 - momentum) * grad / (1 - momentum**t)
        w = w - rate * (scale * newton_schulz(ahead) + decay * w)
    return w


def adamw64(w, grads, rates, decay):
    first, second = np.zeros_like(w), np.zeros_like(w)
    for t, (grad, rate) in enumerate(zip(grads, rates, strict=True), start=1):
        first = BETAS[0] * first + (1 - BETAS[0]) * grad
        second = BETAS[1] * second + (1 - BETAS[1]) * grad**2
        step = first / (1 - BETAS[0] ** t) / (np.sqrt(second / (1 - BETAS[1] ** t)) + EPS)
        w = w - rate * (step + decay * w)
    return w


def trained(config, params, grads, steps):
    optimizer = transformation(config, steps, AXES)
    params = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), params)
    state = optimizer.init(params)

    @jax.jit
    def updated(params, state, grad):
        updates, state = optimizer.update(grad, state, params)
        return optax.apply_updates(params, updates), state

    for grad in grads:
        params, state = updated(params, state, jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), grad))
    return params


@pytest.mark.parametrize(("rms", "decay"), [(None, "all"), (0.2, "matrices")])
def test_each_layers_matrix_is_orthogonalised_alone_and_the_rest_is_adamws(rms, decay):
    """Both rates follow the schedule; decay "matrices" leaves the rest alone."""
    config = OptimConfig(
        "muon",
        lr=0.03,
        muon_lr=0.3,
        muon_momentum=0.9,
        muon_rms=rms,
        schedule="linear",
        end_factor=0.5,
        betas=BETAS,
        eps=EPS,
        weight_decay=0.1,
        decay=decay,
    )
    (params,), grads = draws(0, 1), draws(1, 3)
    factors = np.array([1.0, 0.875, 0.75])
    got = trained(config, params, grads, steps=4)
    for name, w in params.items():
        own = [grad[name] for grad in grads]
        if name not in FLAT:
            want = adamw64(w, own, 0.03 * factors, 0.1 if decay == "all" else 0.0)
            np.testing.assert_allclose(got[name], want, rtol=1e-4, atol=1e-5)
            continue
        for layer in range(L):
            flat = [grad[layer].reshape(FLAT[name]) for grad in own]
            want = muon64(w[layer].reshape(FLAT[name]), flat, 0.3 * factors, 0.9, 0.1, rms)
            np.testing.assert_allclose(got[name][layer].reshape(FLAT[name]), want, rtol=1e-3, atol=2e-4)


def test_consistent_updates_have_one_root_mean_square_whatever_the_shape():
    """Newton and Schulz's five steps leave singular values between about 0.7 and 1.2."""
    config = OptimConfig("muon", muon_lr=1.0, muon_rms=0.2)
    (params,), grads = draws(0, 1), draws(1, 1)
    got = trained(config, params, grads, steps=1)
    for name in FLAT:
        size = float(np.sqrt(np.mean((np.asarray(got[name]) - params[name]) ** 2)))
        assert 0.13 < size < 0.25


def test_clipping_comes_before_both():
    """One norm over all parameters; Muon does not see the gradient's length, and AdamW's first step hardly."""
    (params,), (grad,) = draws(0, 1), draws(1, 1)
    plain, clipped = (
        trained(OptimConfig("muon", lr=0.1, muon_lr=0.1, eps=10.0, clip=clip), params, [grad], 1)
        for clip in (None, 1.0)
    )
    norm = math.sqrt(sum(np.sum(np.square(g)) for g in grad.values()))
    chex.assert_trees_all_close(*({name: tree[name] for name in FLAT} for tree in (plain, clipped)), atol=1e-4)
    small = 0.1 * grad["embed"] / norm / (np.abs(grad["embed"]) / norm + 10.0)
    np.testing.assert_allclose(clipped["embed"], params["embed"] - small, atol=1e-5)
