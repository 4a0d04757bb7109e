"""Operations counted in a jaxpr, against counts by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

import jaxlm
from jaxlm.data.rows import Batch
from jaxlm.devices.flops import flops
from jaxlm.devices.mesh import make_mesh
from jaxlm.training.step import language_loss


def array(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def layers(x, w_LDD):
    """6 products of (3, 4) and (4, 4) in the test: 96 each."""
    return jnp.sum(jax.lax.scan(lambda x, w_DD: (jnp.tanh(x @ w_DD), None), x, w_LDD)[0])


def squared_until(x):
    return jax.lax.while_loop(lambda x: x[0, 0] < 1, lambda x: x @ x, x)


def one_or_two(x):
    return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x, lambda x: x @ x @ x, x)


def by_platform(x):
    return jax.lax.platform_dependent(x, cpu=lambda x: x @ x @ x, default=lambda x: x @ x)


def convolved(groups):
    return lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", feature_group_count=groups)


def over_devices(x):
    return jax.shard_map(lambda x: x @ x.T, mesh=make_mesh(), in_specs=P(), out_specs=P(), check_vma=False)(x)


@pytest.mark.parametrize(
    ("function", "args", "by_hand"),
    [
        (jnp.matmul, (array(3, 4), array(4, 5)), 2 * 3 * 4 * 5),
        (lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (array(7, 3, 4), array(7, 4, 5)), 7 * 2 * 3 * 4 * 5),
        (layers, (array(3, 4), array(6, 4, 4)), 6 * 96),
        (jax.grad(layers, (0, 1)), (array(3, 4), array(6, 4, 4)), 3 * 6 * 96),
        (jax.grad(jax.checkpoint(layers), (0, 1)), (array(3, 4), array(6, 4, 4)), 4 * 6 * 96),
        (squared_until, (array(4, 4),), 128),
        (one_or_two, (array(4, 4),), 256),
        (by_platform, (array(4, 4),), 256),
        (convolved(1), (array(2, 3, 8, 8), array(5, 3, 3, 3)), 2 * (2 * 5 * 64) * 27),
        (convolved(3), (array(2, 3, 8, 8), array(6, 1, 3, 3)), 2 * (2 * 6 * 64) * 9),
        (over_devices, (array(4, 4),), 128),
        (jnp.sin, (array(4, 4),), 0),
    ],
    ids=[
        "product",
        "batch",
        "scan",
        "gradient",
        "recomputed",
        "while",
        "cond",
        "platform",
        "conv",
        "groups",
        "map",
        "no",
    ],
)
def test_products_count_as_by_hand(function, args, by_hand):
    assert flops(function, *args) == by_hand


def test_a_gpt_takes_six_a_parameter_and_token_and_twelve_for_attention():
    """6 N tokens + 12 L D T^2 B, N being the parameters of products (Chowdhery et al. 2022, appendix B)."""
    B, T, D, L, V = 4, 16, 32, 3, 50
    model = jaxlm.GptConfig(context=T, n_layers=L, n_heads=4, d_model=D, vocab_size=V, tied=True).build()
    tok = jax.ShapeDtypeStruct((B, T), jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), tok)

    def loss(params, tok):
        return language_loss(model, params, Batch(tok, tok, None), None)[0]

    by_formula = 6 * (12 * L * D**2 + V * D) * B * T + 12 * L * D * T**2 * B
    assert 3 * flops(loss, params, tok) == flops(jax.grad(loss), params, tok) == by_formula


def test_attention_by_a_pallas_kernel_counts_as_its_products():
    """4 B N T S H forward; the kernels of the gradient compute the weights anew, twice: 7 products after 2."""
    from jax.experimental.pallas.ops.tpu.flash_attention import flash_attention

    B, N, T, H = 2, 4, 256, 64
    x = jax.ShapeDtypeStruct((B, N, T, H), jnp.bfloat16)

    def summed(q, k, v):
        return jnp.sum(flash_attention(q, k, v, causal=True).astype(jnp.float32))

    assert flops(summed, x, x, x) == 4 * B * N * T * T * H
    assert flops(jax.grad(summed, (0, 1, 2)), x, x, x) == 9 * 2 * B * N * T * T * H
