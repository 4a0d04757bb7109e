"""The loop: what is done at which step and in which order, signals, and resumed runs."""

import dataclasses
import itertools
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.devices import platform
from jaxlm.errors import Stopped
from jaxlm.inference.evaluation import Stop, never
from jaxlm.runs import checkpoints, metrics
from jaxlm.runs.checkpoints import CheckpointWriter
from jaxlm.training.cadence import Cadence
from jaxlm.training.loop import all_finite
from tests.loops import CADENCE, FakeJob, fitted, lines, saved_steps

UNEVEN = Cadence(steps=24, chunk=2, log_every=6, eval_every=8, save_every=4)
"""Checkpoints lie between train lines."""
TIMES = ("tokens_per_s", "time_s")


def without_times(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl but for the clock's numbers."""
    return [
        {name: value for name, value in line.items() if name not in TIMES}
        for line in metrics.read(run_dir / "metrics.jsonl")
    ]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def saves(monkeypatch) -> list[tuple[int, float, float | None]]:
    """Step, parameter and dev loss of each save, in order."""
    seen: list[tuple[int, float, float | None]] = []
    save = CheckpointWriter.save

    def noting(self: CheckpointWriter, step: int, items: Any, **rest: Any) -> None:
        seen.append((step, float(items["params"]["w"]), rest["dev_loss"]))
        save(self, step, items, **rest)

    monkeypatch.setattr(CheckpointWriter, "save", noting)
    return seen


def raised(signum: signal.Signals = signal.SIGTERM) -> Callable[[], None]:
    return lambda: signal.raise_signal(signum)


def test_lines_scores_and_saves_are_those_of_their_steps(run, saves):
    fitted(FakeJob(run))
    train = [(step, "train", step - 0.5) for step in range(2, 25, 2)]
    dev = [(step, "dev", float(step)) for step in (0, 8, 16, 24)]
    assert lines(run) == sorted(train + dev, key=lambda line: (line[0], line[1] == "dev"))
    assert saves == [(8, 8.0, 8.0), (16, 16.0, 16.0), (24, 24.0, 24.0)]
    assert saved_steps(run) == [8, 16, 24]  # the best is the first, and two newest stay


def test_a_body_runs_a_chunk_logs_the_one_before_evaluates_and_saves(run, monkeypatch):
    """Numbers of a chunk are read while the next one runs, and before a score or a save of the state behind it."""
    job = FakeJob(run)
    write, save = metrics.MetricsLog.write, CheckpointWriter.save

    def writing(self: metrics.MetricsLog, **line: Any) -> None:
        job.events.append((line["split"], line["step"]))
        write(self, **line)

    def saving(self: CheckpointWriter, step: int, *rest: Any, **more: Any) -> None:
        job.events.append(("save", step))
        save(self, step, *rest, **more)

    monkeypatch.setattr(metrics.MetricsLog, "write", writing)
    monkeypatch.setattr(CheckpointWriter, "save", saving)
    fitted(job)
    expected: list[tuple[str, int]] = [("initial", 0), ("evaluate", 0), ("dev", 0)]
    for first in (0, 8, 16):
        expected.append(("chunk", first))
        for step in (first + 2, first + 4, first + 6):
            expected += [("chunk", step), ("fetch", step), ("train", step)]
        end = first + 8
        expected += [("fetch", end), ("train", end), ("evaluate", end), ("dev", end), ("save", end)]
    assert job.events == expected


def test_steps_off_the_grid_are_run_one_by_one(run):
    job = FakeJob(run, Cadence(steps=23, chunk=5, log_every=5, eval_every=10, save_every=15))
    fitted(job)
    assert [step for name, step in job.events if name == "chunk"] == [0, 5, 10, 15, 20, 21, 22]
    assert [step for step, split, _ in lines(run) if split == "train"] == [5, 10, 15, 20, 23]
    assert [step for step, split, _ in lines(run) if split == "dev"] == [0, 10, 20, 23]
    assert saved_steps(run) == [15, 23]


def test_the_last_line_of_progress_has_the_last_dev_loss(run, capfd):
    fitted(FakeJob(run))
    assert capfd.readouterr().err.splitlines()[-1].startswith("step 24/24  loss 24.0000  dev 24.0000  ")


def test_a_train_line_is_the_mean_by_weight_since_the_line_before(run):
    job = FakeJob(run, UNEVEN)
    job.weighs = True
    fitted(job)
    for step, split, loss in lines(run):
        if split == "train":
            step_K = np.arange(step - 5, step + 1)
            assert loss == pytest.approx((step_K * (step_K % 3)).sum() / (step_K % 3).sum())


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("at", [6, 8, 24])
def test_a_signal_in_a_chunk_stops_behind_it_with_the_state_saved(run, saves, signum, at):
    job = FakeJob(run)
    job.at[at] = raised(signum)
    with pytest.raises(Stopped) as stopped:
        fitted(job)
    assert (stopped.value.signum, stopped.value.step) == (signum, at)
    assert saves[-1] == (at, float(at), None)  # the evaluation that is due at 8 and 24 waits for the resumed run
    assert saved_steps(run)[-1] == at
    assert [line for line in lines(run) if line[1] == "train"][-1][0] == at


@pytest.mark.parametrize(("moment", "step"), [("save", 8), ("wait", 24)])
def test_a_signal_at_any_other_moment_stops_at_a_step_that_is_saved(run, monkeypatch, moment, step):
    """In a save, and while the last save is awaited."""
    job = FakeJob(run)
    real = getattr(CheckpointWriter, moment)

    def interrupted(*args: Any, **rest: Any) -> Any:
        if moment != "wait" or saved_steps(run)[-1:] == [16]:
            monkeypatch.setattr(CheckpointWriter, moment, real)
            signal.raise_signal(signal.SIGTERM)
        return real(*args, **rest)

    monkeypatch.setattr(CheckpointWriter, moment, interrupted)
    with pytest.raises(Stopped) as stopped:
        fitted(job)
    assert (stopped.value.signum, stopped.value.step) == (signal.SIGTERM, step)
    assert saved_steps(run)[-1] == step


def stop_in_evaluation(job: FakeJob, step: int) -> None:
    """Let a signal come while the job evaluates the state behind a step."""
    evaluate = job.evaluate

    def signalled(params: Any, stop: Stop = never) -> Any:
        if float(params["w"]) == step:
            signal.raise_signal(signal.SIGTERM)
        return evaluate(params, stop)

    job.evaluate = signalled  # type: ignore[method-assign]


def test_a_signal_in_the_first_evaluation_ends_it_before_the_first_step(run):
    job = FakeJob(run)
    stop_in_evaluation(job, 0)
    with pytest.raises(Stopped) as stopped:
        fitted(job)
    assert stopped.value.step == 0 and saved_steps(run) == [] and lines(run) == []
    fitted(FakeJob(run))
    assert lines(run)[0] == (0, "dev", 0.0)


@pytest.mark.parametrize("step", [8, 24])
@pytest.mark.parametrize("cadence", [CADENCE, dataclasses.replace(CADENCE, save_every=24)])
def test_an_evaluation_that_a_signal_ended_is_made_by_the_resumed_run(tmp_path, step, cadence):
    whole, run = FakeJob(tmp_path / "whole", cadence), tmp_path / "run"
    fitted(whole)
    job = FakeJob(run, cadence)
    stop_in_evaluation(job, step)
    with pytest.raises(Stopped) as stopped:
        fitted(job)
    assert stopped.value.step == step and lines(run)[-1] == (step, "train", step - 0.5)
    (newest,) = [one for one in checkpoints.saved(run / "checkpoints") if one.step == step]
    assert newest.metadata["dev_loss"] is None
    job = FakeJob(run, cadence)
    fitted(job)
    assert job.events[0] == ("evaluate", step)
    assert without_times(run) == without_times(tmp_path / "whole")
    one, other = (checkpoints.saved(place / "checkpoints")[-1].metadata for place in (tmp_path / "whole", run))
    assert (one["dev_loss"], other["dev_loss"]) == (24.0, 24.0)


PATIENT = jaxlm.EvalConfig(patience=2)
FALLS_TWICE = {0: 9.0, 4: 5.0, 8: 6.0, 12: 4.0, 16: 4.0, 20: 4.5, 24: 1.0}
"""Dev losses at the evaluations of OFTEN: two after that of step 12 are not lower."""
OFTEN = Cadence(steps=24, chunk=2, log_every=2, eval_every=4, save_every=24)


def test_patience_ends_a_run_whose_dev_loss_has_not_fallen(run):
    """The last state is saved though no checkpoint is due; run again, it has ended."""
    job = FakeJob(run, OFTEN, eval=PATIENT)
    job.dev_at = FALLS_TWICE
    assert fitted(job) == ["stopped at step 20 of 24: the dev loss has not fallen for 2 evaluations (eval.patience)"]
    assert [loss for _, split, loss in lines(run) if split == "dev"] == [9.0, 5.0, 6.0, 4.0, 4.0, 4.5]
    assert saved_steps(run) == [20]
    again = FakeJob(run, OFTEN, eval=PATIENT)
    fitted(again)
    assert again.events == []


@pytest.mark.parametrize("stop", [14, 16, 18, 20])
def test_patience_is_kept_across_a_stop(run, stop):
    for at in (stop, None):
        job = FakeJob(run, OFTEN, eval=PATIENT)
        job.dev_at = FALLS_TWICE
        if at is None:
            assert fitted(job)[-1].startswith("stopped at step 20 of 24")
        else:
            job.at[at] = raised()
            with pytest.raises(Stopped):
                fitted(job)


def test_without_patience_a_run_goes_on(run):
    job = FakeJob(run, OFTEN)
    job.dev_at = FALLS_TWICE
    assert fitted(job) == [] and lines(run)[-1] == (24, "dev", 1.0)


def test_early_evaluations_are_made_between_smaller_chunks(run):
    early = Cadence(steps=24, chunk=8, log_every=8, eval_every=16, save_every=16, early=(2, 4, 8), early_chunk=2)
    job = FakeJob(run, early)
    fitted(job)
    assert [step for name, step in job.events if name == "chunk"] == [0, 2, 4, 6, 8, 16]
    assert [step for name, step in job.events if name == "evaluate"] == [0, 2, 4, 8, 16, 24]
    assert saved_steps(run) == [2, 16, 24]  # saved at each, and the best by dev loss is the first


def test_behind_the_loop_a_signal_does_what_it_did_before(run):
    class Ended(Exception):
        """What the process's own handler raises."""

    def handler(signum: int, frame: Any) -> None:
        raise Ended

    before = signal.signal(signal.SIGTERM, handler)
    try:
        fitted(FakeJob(run))
        with pytest.raises(Ended):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_second_signal_does_what_it_did_before(run):
    job = FakeJob(run)

    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    job.at[6] = twice
    with pytest.raises(KeyboardInterrupt):
        fitted(job)


@pytest.mark.parametrize("stops", [(4,), (6, 8, 22), (2, 24)])
def test_a_run_that_is_stopped_and_resumed_writes_the_lines_of_the_uninterrupted_one(tmp_path, stops):
    """Train lines come every six steps and span the stops; their sums are those of both parts."""
    whole, part = FakeJob(tmp_path / "whole", UNEVEN), tmp_path / "part"
    whole.weighs = True
    fitted(whole)
    for stop in (*stops, None):
        job = FakeJob(part, UNEVEN)
        job.weighs = True
        if stop is None:
            assert fitted(job)[0] == f"resuming {part} at step {stops[-1]}"
        else:
            job.at[stop] = raised()
            with pytest.raises(Stopped):
                fitted(job)
    assert without_times(part) == without_times(tmp_path / "whole")
    one, other = (checkpoints.saved(place / "checkpoints")[-1].metadata for place in (tmp_path / "whole", part))
    assert one["step"] == other["step"] == 24
    for name, value in one["sums"].items():
        assert name.endswith("_s") or other["sums"][name] == value


def test_a_run_that_died_goes_on_from_its_newest_checkpoint_and_cuts_what_lies_beyond(tmp_path):
    """As after a kill: there are lines beyond the checkpoint, and nothing of the chunk that ran."""

    class Killed(BaseException):
        """In place of a kill."""

    def die() -> None:
        raise Killed

    fitted(FakeJob(tmp_path / "whole", UNEVEN))
    run = tmp_path / "run"
    job = FakeJob(run, UNEVEN)
    job.at[16] = die
    with pytest.raises(Killed):
        fitted(job)
    assert saved_steps(run)[-1] == 12 and lines(run)[-1][0] == 12
    with (run / "metrics.jsonl").open("a") as log:
        log.write('{"step": 14, "split": "train", "loss": 9.0, "unit": "nats/token"}\n{"step": 14, "spl')
    job = FakeJob(run, UNEVEN)
    fitted(job)
    assert next(step for name, step in job.events if name == "chunk") == 12
    assert without_times(run) == without_times(tmp_path / "whole")


def test_a_resumed_run_makes_no_initial_state_and_scores_no_start(run):
    job = FakeJob(run)
    job.at[14] = raised()
    with pytest.raises(Stopped):
        fitted(job)
    job = FakeJob(run)
    fitted(job)
    assert job.events[0] == ("chunk", 14) and ("initial", 0) not in job.events and ("evaluate", 0) not in job.events


def test_the_chunks_of_a_resumed_run_are_those_of_its_checkpoint(run):
    """Though this machine's choice would be another."""
    job = FakeJob(run)
    job.at[6] = raised()
    with pytest.raises(Stopped):
        fitted(job)
    again = FakeJob(run, dataclasses.replace(CADENCE, chunk=8, log_every=8))
    fitted(again)
    assert (job.chunks_asked, again.chunks_asked) == ([None], [CADENCE.chunk])
    assert [step for name, step in again.events if name == "chunk"] == list(range(6, 24, 2))


def test_a_finished_training_without_its_results_runs_no_step_again(run):
    fitted(FakeJob(run))
    before, job = lines(run), FakeJob(run)
    assert fitted(job) == [f"resuming {run} at step 24"]
    assert job.events == [] and lines(run) == before


@pytest.mark.parametrize("stopped_at", [16, 24])
def test_other_numerics_are_logged_where_steps_are_left(run, monkeypatch, stopped_at):
    job = FakeJob(run)
    job.at[stopped_at] = raised()
    with pytest.raises(Stopped):
        fitted(job)
    now = platform.numerics()
    monkeypatch.setattr(platform, "numerics", lambda: {**now, "devices": 7, "jax": "99", "new": 1})
    said = fitted(FakeJob(run))
    changed = f"trained with jax {now['jax']} (now 99), devices {now['devices']} (now 7): what follows may not be bit"
    assert [line.startswith(changed) for line in said] == ([False, True] if stopped_at == 16 else [False])


def test_the_kind_of_device_is_among_the_numerics(run):
    fitted(FakeJob(run))
    assert "device_kind" in checkpoints.saved(run / "checkpoints")[-1].metadata["numerics"]


def test_the_parameters_are_calibrated_before_they_are_scored_and_saved(run, saves):
    job = FakeJob(run)
    job.calibrate = lambda params: {"w": params["w"] + 100}  # type: ignore[method-assign]
    fitted(job)
    assert [(step, w) for step, w, _ in saves] == [(8, 108.0), (16, 116.0), (24, 124.0)]
    assert [loss for _, split, loss in lines(run) if split == "dev"] == [0.0, 108.0, 116.0, 124.0]


@pytest.mark.parametrize("number", [0.0, 3e38, math.nan, math.inf, -math.inf])
def test_one_parameter_that_is_no_number_is_seen(number):
    params = {"a": jnp.ones((3, 2)), "b": {"c": jnp.zeros(4).at[2].set(number)}, "d": jnp.arange(3)}
    assert all_finite(params) == math.isfinite(number)


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time, which stands still but for the test."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_the_speed_of_a_train_line_is_that_of_training_since_the_line_before(run, clock):
    """A chunk takes a second and a score ten, which count for the time of the run alone."""
    job = FakeJob(run)
    evaluate = job.evaluate

    def tick(seconds: float) -> None:
        clock[0] += seconds

    def slow(params: Any, stop: Stop = never) -> Any:
        tick(10)
        return evaluate(params)

    job.at = {step: lambda: tick(1) for step in range(2, 25, 2)}
    job.evaluate = slow  # type: ignore[method-assign]
    fitted(job)
    found = metrics.read(run / "metrics.jsonl")
    train = [line for line in found if line["split"] == "train"]
    assert sum(2 * 3 / line["tokens_per_s"] for line in train) == pytest.approx(12)
    assert [line["time_s"] for line in found if line["split"] == "dev"] == [10, 24, 38, 52]
    assert all(a["time_s"] <= b["time_s"] for a, b in itertools.pairwise(found))


def test_a_resumed_run_counts_the_time_of_the_runs_before(run, clock):
    job = FakeJob(run, UNEVEN)

    def tick() -> None:
        clock[0] += 5
        signal.raise_signal(signal.SIGTERM)

    job.at[4] = tick
    with pytest.raises(Stopped):
        fitted(job)
    clock[0] += 1000
    job = FakeJob(run, UNEVEN)

    def one() -> None:
        clock[0] += 1

    job.at[6] = one
    fitted(job)
    first = next(line for line in metrics.read(run / "metrics.jsonl") if line["split"] == "train")
    assert (first["step"], first["time_s"]) == (6, 6)
    assert first["tokens_per_s"] == pytest.approx(6 * 3 / 6)
