"""The published REAN against PyTorch's nn.MultiheadAttention and nn.LayerNorm with the same numbers (extra `peers`)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import FaithfulReanConfig
from jaxlm.models.base import BUFFERS, with_buffers

torch = pytest.importorskip("torch")
V, E, T = 20, 16, 7


@pytest.mark.slow
@pytest.mark.parametrize("attentions", [1, 3])
def test_the_forward_values_are_those_of_torch(attentions):
    config = FaithfulReanConfig(vocab_size=V, context=9, d_embed=E, n_layers=2, attentions=attentions)
    model = config.build()
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, T), jnp.int32))
    rng = np.random.default_rng(0)
    params = {name: 0.3 * rng.standard_normal(leaf.shape).astype(np.float32) for name, leaf in shapes.items()}
    params = with_buffers(params, model.buffers([f"w{i}" for i in range(V - 1)], np.ones(V, int), None, 0))
    tok_BT = rng.integers(0, V, (3, T))
    p = {name: torch.tensor(np.asarray(leaf)) for name, leaf in params.items() if name != BUFFERS}

    def norm(x, scale, bias):
        return torch.nn.functional.layer_norm(x, (E,), scale, bias)

    table = torch.tensor(params[BUFFERS]["vectors"])
    assert not table[0].any()
    angle = torch.arange(T)[:, None] / 10000 ** (torch.arange(0, E, 2) / E)
    x = table[torch.tensor(tok_BT)] + torch.stack([angle.sin(), angle.cos()], -1).reshape(T, E)
    future = torch.triu(torch.ones(T, T, dtype=torch.bool), 1)
    for i in range(2):
        for j in range(attentions):
            attention = torch.nn.MultiheadAttention(E, 8, batch_first=True)
            with torch.no_grad():
                into = [p[name][i, j].reshape(E, E).T for name in ("q", "k", "v")]
                attention.in_proj_weight.copy_(torch.cat(into))
                attention.in_proj_bias.copy_(
                    torch.cat([p[f"{name}_bias"][i, j].reshape(E) for name in ("q", "k", "v")])
                )
                attention.out_proj.weight.copy_(p["attend"][i, j].reshape(E, E).T)
                attention.out_proj.bias.copy_(p["attend_bias"][i, j])
            y, _ = attention(x, x, x, attn_mask=future, need_weights=False)
            y = norm(y, p["inner_scale"][i, j], p["inner_bias"][i, j])
            x = norm(x + y, p["outer_scale"][i, j], p["outer_bias"][i, j])
        z = x @ p["dense"][i] + p["dense_bias"][i]
        x = norm(x + torch.tanh(p["steepness"][i] * z) + p["leak"][i] * z, p["norm_scale"][i], p["norm_bias"][i])
    np.testing.assert_allclose(
        jax.jit(model.embed)(params, jnp.asarray(tok_BT)), x.detach().numpy(), rtol=1e-4, atol=1e-5
    )
    loss = torch.nn.functional.mse_loss(x[:, :-1], table[torch.tensor(tok_BT)][:, 1:])
    full = FaithfulReanConfig(vocab_size=V, context=T - 1, d_embed=E, n_layers=2, attentions=attentions).build()
    tok, target = jnp.asarray(tok_BT[:, :-1]), jnp.asarray(tok_BT[:, 1:])
    total, count = jax.jit(full.train_loss)(params, tok, target, None, jax.random.key(0))
    assert float(total / count) == pytest.approx(loss.item(), rel=1e-5)


def test_matrices_are_drawn_by_their_own_width_however_many_blocks_there_are():
    """lecun_uniform: U(-sqrt(3 / E), sqrt(3 / E)), whose deviation is E ** -0.5."""
    model = FaithfulReanConfig(vocab_size=V, context=9, d_embed=64, n_layers=2, attentions=3).build()
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, T), jnp.int32))
    for name in ("q", "k", "v", "attend", "dense"):
        assert float(params[name].std()) == pytest.approx(64**-0.5, rel=0.03), name
        assert float(jnp.abs(params[name]).max()) == pytest.approx((3 / 64) ** 0.5, rel=0.01), name
