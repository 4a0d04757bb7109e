"""Compile options: those that XLA has are taken, others left out."""

import jax
import pytest

from jaxlm.devices import compilation

pytestmark = pytest.mark.usefixtures("users_options")


def all_options() -> list[compilation.Options]:
    """For every kind of program there is on a CPU."""
    few = [jax.numpy.zeros(3)]
    steps = [compilation.step_options(flops) for flops in (compilation.TINY_FLOPS / 2, compilation.TINY_FLOPS)]
    samples = [compilation.sampling_options(few, compilation.FEW_SAMPLES + more) for more in (0, 1)]
    return [*steps, compilation.drawing_options(few), *samples]


def test_xla_takes_every_option_of_every_program():
    options = all_options()
    assert all("xla_backend_optimization_level" in one for one in options)
    assert len({tuple(one.items()) for one in options}) == 4
    assert [compilation._accepted(**one) for one in options] == options


def test_options_that_a_release_has_dropped_are_left_out(monkeypatch):
    monkeypatch.setattr(jax, "__version_info__", (0, 11, 0))
    before = all_options()
    monkeypatch.setattr(jax, "__version_info__", (0, 11, 1))
    for name in compilation.DROPPED:
        assert any(name in one for one in before) and not any(name in one for one in all_options())


def test_a_newer_xla_is_asked_for_its_options(monkeypatch):
    known = {"xla_backend_optimization_level": 1, "xla_cpu_parallel_codegen_split_count": 1}
    unknown = {"xla_cpu_gone": True, **known, "xla_cpu_also_gone": 3}
    assert compilation._known(**unknown) == unknown
    monkeypatch.setattr(jax, "__version_info__", compilation.UNTESTED)
    assert compilation._known(**unknown) == compilation._known(**known) == known
    assert compilation._known(xla_cpu_gone=True) == {}


def test_an_option_of_a_wrong_value_is_a_mistake_of_ours():
    with pytest.raises(jax.errors.JaxRuntimeError):
        compilation._accepted(xla_cpu_parallel_codegen_split_count="many")
