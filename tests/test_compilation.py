"""Compile options: those that XLA has are taken, others left out."""

import jax
import pytest

from jaxlm import compilation

pytestmark = pytest.mark.usefixtures("users_options")


def test_options_that_xla_has_are_all_taken():
    few_flops, many_flops = compilation.TINY_FLOPS / 2, compilation.TINY_FLOPS
    tiny = compilation.step_options(few_flops)
    assert tiny.items() - compilation.step_options(many_flops).items() == {
        ("xla_cpu_copy_insertion_use_region_analysis", True)
    }
    assert compilation.step_options(many_flops) == {"xla_backend_optimization_level": 2}
    assert "xla_cpu_parallel_codegen_split_count" in compilation.drawing_options([jax.numpy.zeros(3)])


def test_options_that_a_release_has_dropped_are_left_out():
    known = {"xla_backend_optimization_level": 1, "xla_cpu_parallel_codegen_split_count": 1}
    assert compilation._known(**known) == known
    assert compilation._known(xla_cpu_gone=True, **known, xla_cpu_also_gone=3) == known
    assert compilation._known(xla_cpu_gone=True) == {}


def test_an_option_of_a_wrong_value_is_a_mistake_of_ours():
    with pytest.raises(jax.errors.JaxRuntimeError):
        compilation._known(xla_cpu_parallel_codegen_split_count="many")
