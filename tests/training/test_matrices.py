"""Which parameters are matrices, by their logical axes."""

import jax.numpy as jnp
import pytest

import jaxlm
from jaxlm.config import OptimConfig
from jaxlm.errors import UserError
from jaxlm.models.base import axes_of
from jaxlm.training.matrices import map_sides, sides
from jaxlm.training.optim import check_matrices


@pytest.mark.parametrize(
    ("axes", "found"),
    [
        (("embed", "mlp"), ((0,), (1,))),
        (("layers", "mlp", "embed"), ((1,), (2,))),
        (("layers", "embed", "heads", "head"), ((1,), (2, 3))),
        (("layers", "embed", "kv", "head"), ((1,), (2, 3))),
        (("layers", "heads", "head", "embed"), ((1, 2), (3,))),
        (("layers", "layers", "heads", "head", "embed"), ((2, 3), (4,))),
        ((None, "embed"), ((0,), (1,))),
        (("vocab", "embed"), None),
        (("layers", "vocab", "kv", "head"), None),
        (("length", "embed"), None),
        (("layers", "heads", "head"), None),
        (("layers", "head"), None),
        (("layers",), None),
        ((), None),
    ],
)
def test_a_matrix_has_inputs_and_outputs_beside_its_layers(axes, found):
    assert sides(axes) == found


@pytest.mark.parametrize(
    ("config", "matrices"),
    [
        (jaxlm.GptConfig(vocab_size=9, context=8), {"q", "k", "v", "attend", "up", "down"}),
        (jaxlm.MlpConfig(vocab_size=9), {"hidden"}),
        (jaxlm.BowConfig(vocab_size=9, context=8), {"hidden", "project"}),
        (jaxlm.RnnConfig(vocab_size=9, cell="gru"), {"input", "gates", "candidate"}),
        (
            jaxlm.ReanConfig(vocab_size=300, context=8, objective="mse"),
            {"q", "k", "v", "attend", "up", "down", "in", "out"},
        ),
        (jaxlm.NgramConfig(vocab_size=9), set()),
    ],
)
def test_embeddings_unembeddings_positions_norms_and_biases_are_no_matrices(config, matrices):
    axes = axes_of(config.build())
    assert {parameter for parameter, own in axes.items() if sides(own)} == matrices


def test_the_parameters_of_a_network_in_a_mixture_are_found_by_their_paths():
    tree = {"network": {"up": 1, "embed": 2}, "share": 3}
    axes = {"network/up": ("embed", "mlp"), "network/embed": ("vocab", "embed"), "share": ()}
    assert map_sides(lambda sides, x: sides, axes, tree) == {
        "network": {"up": ((0,), (1,)), "embed": None},
        "share": None,
    }


@pytest.mark.parametrize("config", [OptimConfig("muon"), OptimConfig("adamw", weight_decay=0.1, decay="matrices")])
def test_a_model_without_axes_or_without_matrices_is_refused(config):
    params = {"Dense_0": {"kernel": jnp.zeros((2, 3))}}
    with pytest.raises(UserError, match=r"want a model that has the logical axes .* none of Dense_0/kernel: give it"):
        check_matrices(config, {}, lambda: params)
    with pytest.raises(UserError, match=r"^optim\.(name muon|decay matrices) wants a model with matrices"):
        check_matrices(config, {"logits": (None, "vocab")}, lambda: {"logits": jnp.zeros((3, 3))})
    check_matrices(config, {"a": ("embed", "mlp")}, lambda: {"a": jnp.zeros((3, 3))})


def test_without_such_settings_no_axes_are_needed():
    check_matrices(OptimConfig("adamw", weight_decay=0.1), {}, lambda: pytest.fail("the shapes are not asked for"))
