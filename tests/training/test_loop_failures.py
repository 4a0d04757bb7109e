"""What is no number ends the training: no such state is saved. What the disk does not take is reported."""

import dataclasses
import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxlm.config import OptimConfig
from jaxlm.errors import NonFiniteLoss, Stopped, UserError
from jaxlm.inference.evaluation import Score, never
from jaxlm.runs import checkpoints, metrics
from jaxlm.runs.checkpoints import CheckpointWriter
from jaxlm.runs.checksums import CHECKSUMS
from jaxlm.training.cadence import Cadence
from tests.loops import FakeJob, fitted, lines, saved_steps

SHORT = Cadence(steps=2, chunk=1, log_every=1, eval_every=1, save_every=2)
"""As word2vec's run of a few steps: all of it is two chunks."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.mark.parametrize(("nats", "step"), [(math.nan, 0), (math.inf, 0), (math.nan, 16)])
def test_a_dev_loss_that_is_no_number_ends_the_training(run, nats, step):
    job = FakeJob(run)
    evaluate = job.evaluate
    job.evaluate = lambda params, stop=never: (  # type: ignore[method-assign]
        {"dev": Score(nats, 1, 1, 0)} if float(params["w"]) == step else evaluate(params)
    )
    good = "no checkpoint was saved before" if step == 0 else "the last good checkpoint is step 8"
    with pytest.raises(NonFiniteLoss, match=rf"^the dev loss is {nats} at step {step} of 24; {good}; try a smaller"):
        fitted(job)
    assert saved_steps(run) == ([8] if step else [])


@pytest.mark.parametrize(
    ("step", "saved", "good"),
    [(8, [], "no checkpoint was saved before"), (16, [8], "the last good checkpoint is step 8")],
)
def test_a_parameter_that_is_no_number_is_not_saved(run, step, saved, good):
    """Though all losses are numbers."""
    job = FakeJob(run)
    job.w_at[step] = math.nan
    job.evaluate = lambda params, stop=never: {"dev": Score(1.0, 1, 1, 0)}  # type: ignore[method-assign]
    with pytest.raises(NonFiniteLoss, match=rf"^a parameter is not a number at step {step} of 24; {good};"):
        fitted(job)
    assert saved_steps(run) == saved


@pytest.mark.parametrize("loss", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("bad", "good"), [(1, "no checkpoint was saved"), (11, "the last good checkpoint is step 8;"), (24, "step 16;")]
)
def test_the_first_loss_that_is_no_number_is_named_with_its_step(run, bad, good, loss):
    """It is seen before the state behind it is scored or saved, and the save under way is completed."""
    job = FakeJob(run)
    job.loss_at[bad] = loss
    with pytest.raises(NonFiniteLoss, match=rf"^the loss is {loss} at step {bad} of 24; .*{good}"):
        fitted(job)
    assert saved_steps(run) == [step for step in (8, 16) if step < bad]
    assert max(step for step, *_ in lines(run)) < bad
    for one in checkpoints.saved(run / "checkpoints"):
        assert (run / "checkpoints" / str(one.step) / CHECKSUMS).exists()


def skipping(run: Path, most: int) -> FakeJob:
    """A job whose gradients of the steps 3, 11, 12 and 13 are not finite, and so are its losses there."""
    job = FakeJob(run, optim=OptimConfig(skip_nonfinite=most))
    in_a_row = {3: 1, 11: 1, 12: 2, 13: 3}
    job.loss_at = dict.fromkeys(in_a_row, math.nan)
    plain = job.run_chunk

    def run_chunk(state: Any, step: int, K: int) -> Any:
        state, chunk = plain(state, step, K)
        nonfinite_K = np.array([in_a_row.get(number, 0) for number in range(step + 1, step + K + 1)])
        return state, dataclasses.replace(chunk, nonfinite_K=nonfinite_K)

    job.run_chunk = run_chunk  # type: ignore[method-assign]
    return job


@pytest.mark.parametrize("stops", [False, True])
def test_skipped_gradients_are_counted_and_logged_and_their_losses_left_out(run, stops):
    """Across a stop too."""
    said = []
    if stops:
        job = skipping(run, 4)
        job.at[12] = lambda: signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped):
            fitted(job)
    said = fitted(skipping(run, 4))
    train = [line for line in metrics.read(run / "metrics.jsonl") if line["split"] == "train"]
    found = {line["step"]: (line["loss"], line["skipped"]) for line in train}
    assert [found[step] for step in (2, 4, 10, 12, 14, 24)] == [
        (1.5, 0),
        (4.0, 1),
        (9.5, 1),
        (None, 3),
        (14.0, 4),
        (23.5, 4),
    ]
    assert said[-1] == "skipped a gradient that is not finite, up to step 13: 4 in the run"
    assert stops or said[1] == "skipped 2 gradients that are not finite, up to step 12: 3 in the run"


def test_so_many_gradients_in_a_row_that_are_not_finite_end_the_training(run):
    with pytest.raises(NonFiniteLoss, match=r"^3 gradients in a row are not finite .* at step 13 of 24; .* step 8;"):
        fitted(skipping(run, 3))
    assert saved_steps(run) == [8]


def test_a_resumed_run_names_the_checkpoint_that_it_began_from(run):
    job = FakeJob(run)
    job.loss_at[10] = math.nan
    for _ in range(2):
        with pytest.raises(NonFiniteLoss, match=r"step 10 of 24; the last good checkpoint is step 8;"):
            fitted(job)


def diverging(run: Path, uniform: float | None, **settings: Any) -> FakeJob:
    """Losses of 2 nats up to step 10, and of 9 after it."""
    job = FakeJob(run, **settings)
    job.loss_at = {step: 2.0 if step <= 10 else 9.0 for step in range(1, 25)}
    job.uniform_loss = uniform
    return job


@pytest.mark.parametrize("uniform", [None, 1.5])
@pytest.mark.parametrize("resumed", [False, True])
def test_a_loss_far_above_its_start_ends_the_training(run, uniform, resumed):
    """It is compared with the first step's, which a resumed run has from its checkpoint; no such state is saved."""
    job = diverging(run, uniform)
    if resumed:
        job.at[10] = lambda: signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped):
            fitted(job)
        job = diverging(run, uniform)
    good = 10 if resumed else 8
    words = rf"^the loss, 2 at the start, is 9 at step 12 of 24; the last good checkpoint is step {good}; try a smaller"
    with pytest.raises(NonFiniteLoss, match=words):
        fitted(job)
    assert saved_steps(run)[-1] == good and max(step for step, *_ in lines(run)) <= 10


def test_a_loss_that_a_model_without_knowledge_has_is_no_failure(run):
    """A run may begin from good parameters."""
    fitted(diverging(run, 3.0))
    assert saved_steps(run)[-1] == 24


def test_one_bad_step_among_good_ones_is_no_failure(run):
    job = FakeJob(run, Cadence(steps=24, chunk=2, log_every=24, eval_every=24, save_every=24))
    job.loss_at = {step: 2.0 if step != 12 else 50.0 for step in range(1, 25)}
    job.uniform_loss = None
    fitted(job)
    assert saved_steps(run) == [24]


@pytest.mark.parametrize("clip", [None, 1.0])
def test_clipping_is_advised_where_it_is_not_on(run, clip):
    job = diverging(run, None, optim=OptimConfig(clip=clip))
    with pytest.raises(NonFiniteLoss) as told:
        fitted(job)
    assert ("--optim.clip 1" in str(told.value)) == (clip is None)


class Lost:
    """The response of a save whose files the disk did not take."""

    def result(self) -> None:
        raise OSError(28, "No space left on device")


class Full:
    """Orbax's checkpointer on a full disk."""

    def __init__(self) -> None:
        self.closed = 0

    def save_checkpointables_async(self, step: int, items: Any, **rest: Any) -> Lost:
        return Lost()

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def full(monkeypatch) -> Full:
    """A disk that takes no checkpoint, which comes out when its files are written."""
    made = Full()
    training = type("training", (), {"Checkpointer": lambda *args, **rest: made})
    monkeypatch.setattr("jaxlm.runs.quiet_orbax.api", lambda: type("api", (), {"training": training}))
    return made


def test_the_error_of_a_save_in_the_first_chunks_is_not_lost(run, full):
    """The only save of a run is awaited after its last step, and its checkpointer closed."""
    with pytest.raises(UserError, match=r"run' does not take the checkpoint \(No space left .* whole: none"):
        fitted(FakeJob(run, SHORT))
    assert full.closed == 1


def test_the_error_of_a_save_ends_the_training_at_the_next(run, full):
    job = FakeJob(run)
    with pytest.raises(UserError, match="does not take the checkpoint"):
        fitted(job)
    assert max(step for name, step in job.events if name == "chunk") == 14
    assert full.closed == 1


def test_what_fails_in_a_chunk_is_not_replaced_by_the_error_of_a_save(run, full):
    job = FakeJob(run)
    job.loss_at[11] = math.nan
    with pytest.raises(NonFiniteLoss):
        fitted(job)
    assert full.closed == 1


def test_a_checkpointer_is_closed_where_training_fails(run, monkeypatch):
    closed = []
    leave = CheckpointWriter.__exit__

    def noting(self: CheckpointWriter, *args: Any) -> None:
        leave(self, *args)
        closed.append(self)

    monkeypatch.setattr(CheckpointWriter, "__exit__", noting)
    job = FakeJob(run)

    def fail() -> None:
        raise MemoryError

    job.at[12] = fail
    with pytest.raises(MemoryError):
        fitted(job)
    assert len(closed) == 1 and saved_steps(run) == [8]
