"""Our formulas against PyTorch's with the same numbers (extra `peers`)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import MlpConfig
from jaxlm.ops import causal_attention, layer_norm
from jaxlm.ops.losses import cross_entropy
from jaxlm.ops.recurrence import gru, lstm, rnn

torch = pytest.importorskip("torch")


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def close(ours, theirs) -> None:
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_mlps_loss_and_gradients():
    model = MlpConfig(vocab_size=27, init="normal").build()
    params = {name: leaf * 0.3 for name, leaf in model.init(jax.random.key(0), jnp.zeros((1, 3), jnp.int32)).items()}
    ctx_BC = np.random.default_rng(1).integers(0, 27, (32, 3))
    target_B = np.random.default_rng(2).integers(0, 27, 32)

    def loss(params):
        total, count = cross_entropy(model.next_logits(params, jnp.asarray(ctx_BC)), jnp.asarray(target_B))
        return total / count

    value, grads = jax.value_and_grad(loss)(params)
    theirs = {name: torch.tensor(np.array(leaf), requires_grad=True) for name, leaf in params.items()}
    x = theirs["embed"][torch.tensor(ctx_BC)].view(32, -1)
    h = torch.tanh(x @ theirs["hidden"] + theirs["hidden_bias"])
    logits = h @ theirs["out"].T + theirs["out_bias"]
    their_loss = torch.nn.functional.cross_entropy(logits, torch.tensor(target_B))
    their_loss.backward()
    close(value, their_loss)
    for name, grad in grads.items():
        close(grad, theirs[name].grad)


def test_the_lstm_cell():
    """PyTorch has the gates in the order i, f, g, o; ours are i, f, o, g."""
    h_BF, cell_BF, x_BE = normal(4, 5), normal(4, 5, seed=1), normal(4, 3, seed=2)
    cell = torch.nn.LSTMCell(3, 5)
    order = np.concatenate([np.arange(10), np.arange(15, 20), np.arange(10, 15)])
    w_EG, u_FG = (w.detach().numpy()[order].T for w in (cell.weight_ih, cell.weight_hh))
    bias_G = (cell.bias_ih + cell.bias_hh).detach().numpy()[order]
    ours = lstm(jnp.asarray(h_BF), jnp.asarray(cell_BF), jnp.asarray(x_BE @ w_EG + bias_G)[None], jnp.asarray(u_FG))
    theirs = cell(torch.tensor(x_BE), (torch.tensor(h_BF), torch.tensor(cell_BF)))
    for one_TBF, other in zip(ours, theirs, strict=True):
        close(one_TBF[0], other)


def test_the_rnn_cell():
    h_BF, x_BE = normal(4, 5), normal(4, 3, seed=2)
    cell = torch.nn.RNNCell(3, 5)
    in_BF = x_BE @ cell.weight_ih.detach().numpy().T + (cell.bias_ih + cell.bias_hh).detach().numpy()
    ours_TBF = rnn(jnp.asarray(h_BF), jnp.asarray(in_BF)[None], jnp.asarray(cell.weight_hh.detach().numpy().T))
    close(ours_TBF[0], cell(torch.tensor(x_BE), torch.tensor(h_BF)))


def test_the_gru_cell_resets_the_state_before_the_product():
    """PyTorch's own cell resets after the product, so this is the equation in PyTorch's functions."""
    h, x_in, gates, candidate = normal(4, 5), normal(4, 15, seed=1), normal(5, 10, seed=2), normal(5, 5, seed=3)
    th, tx, tg, tc = (torch.tensor(array) for array in (h, x_in, gates, candidate))
    r, z = torch.sigmoid(tx[:, :10] + th @ tg).chunk(2, dim=1)
    c = torch.tanh(tx[:, 10:] + (r * th) @ tc)
    ours_TBF = gru(*(jnp.asarray(array) for array in (h, x_in[None], gates, candidate)))
    close(ours_TBF[0], (1 - z) * th + z * c)


@pytest.mark.parametrize("first", [0, 3])
def test_causal_attention(first):
    """With the queries at the end of the keys, as in decoding, the mask is the lower part of a longer one."""
    q, k, v = normal(2, 6 - first, 3, 8), normal(2, 6, 3, 8, seed=1), normal(2, 6, 3, 8, seed=2)
    ours, _ = causal_attention(jnp.asarray(q), jnp.asarray(k), jnp.asarray(v), first)
    heads = [torch.tensor(array).transpose(1, 2) for array in (q, k, v)]
    mask = torch.tril(torch.ones(6, 6, dtype=torch.bool))[first:]
    close(ours, torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2))


def test_layer_norm_and_gelu():
    x, scale, bias = normal(4, 7) * 3 + 1, normal(7, seed=1), normal(7, seed=2)
    theirs = torch.nn.functional.layer_norm(torch.tensor(x), (7,), torch.tensor(scale), torch.tensor(bias))
    close(layer_norm(jnp.asarray(x), jnp.asarray(scale), jnp.asarray(bias)), theirs)
    close(jax.nn.gelu(x, approximate=True), torch.nn.functional.gelu(torch.tensor(x), approximate="tanh"))
