"""A trace of some steps: where it lies, how chunks are cut for it, and that it changes no number."""

import dataclasses

import jax
import numpy as np
import pytest

import jaxlm
from jaxlm.errors import UserError
from jaxlm.training.cadence import Cadence
from tests import loops


def steps_of(cadence):
    step, sizes = 0, []
    while step < cadence.steps:
        sizes.append(cadence.size_at(step))
        step += sizes[-1]
    return sizes


@pytest.mark.parametrize(
    ("traced", "sizes"),
    [
        (None, [10, 10, 10, 10]),
        ((20, 30), [10, *[1] * 20, 10]),
        ((24, 26), [10, 10, *[1] * 10, 10]),
        ((21, 23), [10, 10, *[1] * 10, 10]),
        ((0, 2), [*[1] * 10, 10, 10, 10]),
        ((38, 99), [10, 10, 10, *[1] * 10]),
    ],
)
def test_chunks_are_cut_into_steps_round_the_trace(traced, sizes):
    """The step before it too, which compiles the program of a single step."""
    cadence = Cadence(steps=40, chunk=10, log_every=10, eval_every=20, save_every=20, traced=traced)
    assert steps_of(cadence) == sizes


def test_a_trace_changes_no_number_and_is_written_once(make_run):
    plain, profiled = (make_run(name=name, profile=profile) for name, profile in (("a", None), ("b", "5:7")))
    first, second = jaxlm.load_run(plain), jaxlm.load_run(profiled)
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)
    dev = [[loss for _, split, loss in loops.lines(run) if split == "dev"] for run in (plain, profiled)]
    assert dev[0] == dev[1] and len(dev[0]) == 2
    (trace,) = profiled.rglob("perfetto_trace.json.gz")
    assert trace.is_relative_to(profiled / "profile")
    assert not (plain / "profile").exists()
    make_run(name="b", profile="15:17")  # is done: a trace is no other setting
    assert len(list(profiled.rglob("perfetto_trace.json.gz"))) == 1


def test_the_trace_has_the_steps_and_the_log_says_where_it_is(tmp_path):
    job = loops.FakeJob(tmp_path / "run", dataclasses.replace(loops.CADENCE, traced=(4, 6)), profile="4:6")
    said = [line for line in loops.fitted(job) if line.startswith("profile: ")]
    assert len(said) == 1 and "steps after 4 up to 6" in said[0] and str(tmp_path / "run" / "profile") in said[0]
    assert [step for name, step in job.events if name == "chunk"][:5] == [0, 2, 3, 4, 5]


@pytest.mark.parametrize("profile", ["20", "30:20", "20:20", "a:b", "-1:5", ":"])
def test_a_trace_wants_two_steps(profile):
    with pytest.raises(UserError, match=r"^profile wants two steps, the first below the last, as 20:30, got "):
        jaxlm.RunConfig(model=jaxlm.MlpConfig(), steps=40, profile=profile)


def test_a_trace_wants_steps_of_the_run(make_run):
    with pytest.raises(UserError, match=r"^profile wants steps of the run's 20, got '20:30'$"):
        make_run(profile="20:30")
    with pytest.raises(UserError, match=r"^profile wants a model that is trained by steps, got '2:3' for a Counts"):
        jaxlm.RunConfig(model=jaxlm.CountsConfig(), profile="2:3")
