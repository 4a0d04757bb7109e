"""Models of tokens whose EOS is not token 0, as GPT-2's: they fill contexts with theirs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.data.corpus import line_ages
from jaxlm.errors import UserError
from jaxlm.models.check import build
from jaxlm.models.counts import AddK, KneserNey

V, EOS = 6, 4
LINE = np.array([1, 2, 1, 3, EOS, 1, 2, EOS, 0, 5, 1, 2, EOS, 2, 2, EOS] * 3, np.int32)
OTHER = np.array([EOS, 1, 2, 3, 0, 5], np.int32)
"""The same tokens by other numbers: EOS is 0."""


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("kind", [KneserNey, lambda **sizes: AddK(**sizes, add_k=0.5)], ids=["kneser-ney", "add-k"])
def test_counts_do_not_depend_on_the_number_of_eos(kind, order):
    model, plain = (kind(context=order - 1, vocab_size=V, eos=eos) for eos in (EOS, 0))
    params, _ = model.fit(LINE, line_ages(LINE, EOS))
    other, _ = plain.fit(OTHER[LINE], line_ages(OTHER[LINE]))
    tok_BT = jnp.asarray(LINE[None, :12])
    p_BTV, q_BTV = model.apply(params, tok_BT), plain.apply(other, jnp.asarray(OTHER)[tok_BT])
    np.testing.assert_allclose(p_BTV, q_BTV[..., OTHER], atol=1e-5)
    nats_BT, _ = model.sequence_nats(params, tok_BT[:, :-1], tok_BT[:, 1:])
    np.testing.assert_allclose(
        nats_BT, -jnp.take_along_axis(p_BTV[:, :-1], tok_BT[:, 1:, None], axis=2)[..., 0], atol=1e-5
    )


@pytest.mark.parametrize(
    "config", [jaxlm.MlpConfig(vocab_size=V), jaxlm.WavenetConfig(vocab_size=V, layers=2)], ids=type
)
def test_contexts_are_filled_with_eos(config):
    model = build(config, eos=EOS)
    tok_BT = jnp.array([[1, 2, 3]])
    params = model.init(jax.random.key(0), tok_BT)
    ctx_BC = jnp.full((1, model.context), EOS).at[0, -1].set(1)
    expected_BV = model.next_logits(params, ctx_BC)
    np.testing.assert_allclose(model.apply(params, tok_BT)[:, 0], expected_BV, atol=1e-5)
    decoded_BTV, _ = model.extend(params, model.init_cache(params, 1, 3), tok_BT, jnp.array([3]))
    np.testing.assert_allclose(decoded_BTV[:, 0], expected_BV, atol=1e-5)
    assert not np.allclose(build(config).apply(params, tok_BT)[:, 0], expected_BV)


def test_it_begins_a_document():
    """What stands before EOS does not change what is predicted after it."""
    config = jaxlm.GptConfig(n_layers=1, n_heads=1, d_model=4, context=8, vocab_size=V, documents=True)
    model, tok_BT = build(config, eos=EOS), jnp.array([[1, 2, EOS, 3, 0, 5], [5, 3, EOS, 3, 0, 5]])
    params = model.init(jax.random.key(0), tok_BT)
    first_TV, second_TV = model.apply(params, tok_BT)
    np.testing.assert_allclose(first_TV[2:], second_TV[2:], atol=1e-6)
    assert not np.allclose(first_TV[:2], second_TV[:2])
    first_TV, second_TV = build(config).apply(params, tok_BT)
    assert not np.allclose(first_TV[2:4], second_TV[2:4])


def test_a_mixture_hands_it_to_its_counts_and_rean_refuses_it():
    network = jaxlm.GptConfig(n_layers=1, n_heads=1, d_model=4, context=8, vocab_size=V)
    model: Any = build(jaxlm.MixtureConfig(network=network, order=2, vocab_size=V), eos=EOS)
    assert model.counts.eos == EOS
    with pytest.raises(UserError, match=r"^data\.tokens wants tokens whose EOS is token 0 for REAN, got token 4"):
        build(jaxlm.ReanConfig(vocab_size=V, context=8), eos=EOS)
