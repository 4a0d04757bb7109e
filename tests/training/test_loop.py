"""The loop runs ahead of scores and saves, and tells its points in their order."""

import dataclasses
import io
import itertools
import math
import signal
import threading
import time
from typing import Any
from unittest.mock import MagicMock, Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.inference.evaluation import Score
from jaxlm.runs import metrics
from jaxlm.training.loop import AHEAD, COPIED_BYTES, COPIES, _all_finite
from jaxlm.training.points import Best, Point, Tally
from jaxlm.training.signals import Stopped
from jaxlm.training.state import Chunk, TrainState
from tests.loops import PLAN, lines, loop_of, score

PATIENCE = 20.0
"""Seconds to wait for what another thread is to do."""


@pytest.mark.parametrize("beside", [True, False])
def test_lines_and_saves_are_those_of_their_steps(tmp_path, log, beside):
    loop = loop_of(log, score, beside=beside)
    loop.run()
    train = [(step, "train", step - 0.5) for step in range(2, 25, 2)]
    dev = [(step, "dev", float(step)) for step in (0, 8, 16, 24)]
    assert lines(tmp_path) == sorted(train + dev, key=lambda line: (line[0], line[1] == "dev"))
    assert loop.writer.saved == [(8, 8.0, 0), (16, 16.0, 0), (24, 24.0, 0)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("beside", [True, False])
def test_the_last_line_of_progress_has_the_last_dev_loss(log, beside):
    out = io.StringIO()
    loop = loop_of(log, score, beside=beside)
    loop.progress = metrics.Progress(24, 0, out)
    loop.run()
    assert out.getvalue().splitlines()[-1].startswith("step 24/24  loss 24.0000  dev 24.0000  ")


def test_chunks_run_while_scores_are_awaited_but_not_past_the_next_ones_without_room(tmp_path, log):
    ran: list[int] = []
    more, told_before = threading.Event(), []

    def evaluate(params: Any) -> dict[str, Score]:
        told_before.append(lines(tmp_path))
        if len(told_before) == 1:
            assert more.wait(PATIENCE), "no further chunk was begun"
        return score(params)

    loop = loop_of(log, evaluate, ran=ran)
    loop.room = 1
    advance = loop._advance

    def noting(caught: list[int]) -> None:
        advance(caught)
        if len(ran) == 3:
            assert lines(tmp_path) == []  # those of step 0 come first
            more.set()

    loop._advance = noting  # type: ignore[method-assign]
    loop.run()
    assert [line for line in told_before[1] if line[1] == "dev"] == [(0, "dev", 0.0)]
    assert [line for line in told_before[2] if line[1] == "dev"] == [(0, "dev", 0.0), (8, "dev", 8.0)]


def test_all_chunks_run_while_the_first_scores_are_awaited_where_copies_are_small(tmp_path, log):
    ran: list[int] = []
    more = threading.Event()

    def evaluate(params: Any) -> dict[str, Score]:
        assert more.wait(PATIENCE), "no further chunk was begun"
        return score(params)

    loop = loop_of(log, evaluate, ran=ran)
    advance = loop._advance

    def noting(caught: list[int]) -> None:
        advance(caught)
        if len(ran) == PLAN.steps // PLAN.chunk:
            more.set()

    loop._advance = noting  # type: ignore[method-assign]
    loop.run()
    assert [line for line in lines(tmp_path) if line[1] == "dev"] == [(s, "dev", float(s)) for s in (0, 8, 16, 24)]
    assert [step for step, *_ in loop.writer.saved] == [8, 16, 24]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("numbers", "room"), [(1, COPIES), (COPIED_BYTES // 16, 3), (COPIED_BYTES // 4, 1)])
def test_copies_that_wait_are_bounded_in_number_and_bytes(log, numbers, room):
    loop = loop_of(log, score)
    state = TrainState(step=jnp.int32(0), params={"w": np.zeros(numbers, np.float32)}, opt_state=())
    assert dataclasses.replace(loop, state=state).room == room


def test_one_copy_waits_once_the_first_save_has_ended(log):
    loop = loop_of(log, score)
    loop.plan = dataclasses.replace(PLAN, steps=40)
    loop.room, loop.writer.is_idle = 2, False  # type: ignore[misc]
    advance, saved_at = loop._advance, {}

    def noting(caught: list[int]) -> None:
        advance(caught)
        saved_at[loop.step] = [step for step, *_ in loop.writer.saved]  # type: ignore[attr-defined]

    loop._advance = noting  # type: ignore[method-assign]
    loop.run()
    assert [saved_at[step] for step in (16, 24, 32, 40)] == [[], [8], [8, 16, 24], [8, 16, 24, 32]]


def test_chunks_run_while_a_save_goes_on(log):
    ran: list[int] = []
    loop = loop_of(log, score, ran=ran)
    loop.room = 1
    loop.writer.is_idle = False  # type: ignore[misc]
    advance, saved_before = loop._advance, {}

    def noting(caught: list[int]) -> None:
        advance(caught)
        saved_before[loop.step] = len(loop.writer.saved)  # type: ignore[attr-defined]

    loop._advance = noting  # type: ignore[method-assign]
    loop.run()
    assert saved_before[14] == 0  # the writer is never idle: a save waits until the next is due
    assert saved_before[16] == 1
    assert saved_before[24] == 2
    assert len(loop.writer.saved) == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(("best_step", "best"), [(24, Best({"w": 24.0}, score({"w": 24.0}))), (16, None)])
def test_all_losses_are_told_before_the_last_save_is_awaited(tmp_path, log, best_step, best):
    loop = loop_of(log, score)
    order: list[Any] = []
    loop.when_told = lambda best: order.append((lines(tmp_path)[-1][:2], best))
    loop.writer.best_step = best_step  # type: ignore[misc]
    loop.writer.wait = lambda: order.append("wait")  # type: ignore[method-assign]
    loop.run()
    assert order == [((24, "dev"), best), "wait"]


@pytest.mark.parametrize("moment", ["run_chunk", "_add_losses", "_settle", "wait"])
def test_a_signal_at_any_moment_stops_at_a_step_that_is_saved(log, moment):
    """In a chunk; while a point is reached; in what follows the last chunk; while the last save is awaited."""
    loop = loop_of(log, score, beside=False)
    place: Any = loop.writer if moment == "wait" else loop
    real, calls = getattr(place, moment), Mock()

    def interrupted(*args: Any) -> Any:
        calls()
        if calls.call_count == (1 if moment in ("_settle", "wait") else 3):
            signal.raise_signal(signal.SIGTERM)
        return real(*args)

    setattr(place, moment, interrupted)
    with pytest.raises(Stopped) as stopped:
        loop.run()
    step = {"run_chunk": 6, "_add_losses": 6}.get(moment, 24)
    assert (stopped.value.signum, stopped.value.step) == (signal.SIGTERM, step)
    saved = loop.writer.saved[-1]  # type: ignore[attr-defined]
    assert saved[:2] == (step, float(step))


def test_a_signal_ends_what_is_done_once_all_is_told(log):
    class Ended(Exception):
        """What the process's own handler raises."""

    def handler(signum: int, frame: Any) -> None:
        raise Ended

    loop = loop_of(log, score)
    loop.when_told = lambda best: signal.raise_signal(signal.SIGTERM)
    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(Ended):
            loop.run()
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("steps", "begun"), [(40, AHEAD + 1), (4, 2)])
def test_what_the_start_need_not_wait_for_begins_behind_the_first_chunks_or_the_last(log, steps, begun):
    ran: list[int] = []
    loop = loop_of(log, score, ran=ran)
    loop.plan = dataclasses.replace(PLAN, steps=steps)
    seen: list[int] = []
    loop.meanwhile = lambda: seen.append(len(ran))
    loop.run()
    assert seen == [begun]


def test_a_few_chunks_wait_for_the_one_that_runs(log):
    """Work that has not arrived is left alone until more than AHEAD chunks are behind it."""
    loop = loop_of(log, score)
    late = MagicMock(is_ready=lambda: False)
    real = loop.run_chunk

    def run_chunk(state: TrainState, step: int, K: int) -> tuple[TrainState, Chunk]:
        state, chunk = real(state, step, K)
        return state, chunk.replace(lr=late)  # type: ignore[attr-defined]

    loop.run_chunk = run_chunk
    loop.thread.submit(int)  # there is a thread to shut down
    for behind in range(1, AHEAD + 3):
        loop._advance([])
        assert len(loop.running) == min(behind, AHEAD)
    loop.thread.shutdown()


def test_steps_that_end_unseen_share_the_time(log):
    """A thread that imports holds the interpreter, and two chunks are found ended at once."""
    loop = loop_of(log, score)
    began, _ = loop.newest_end
    chunk = Chunk(loss_K=np.ones(1), count_K=np.ones(1), lr=0.1)
    loop.running += [Point(step, chunk, True, None, None) for step in (10, 11, 15)]
    time.sleep(0.03)
    loop._end_next()
    now, last = loop.newest_end
    assert (last, len(loop.running), now - began > 0.03) == (15, 0, True)
    shares = [((point.ended or 0.0) - began) / (now - began) for point in loop.ended]
    assert shares == pytest.approx([10 / 15, 11 / 15, 1])
    loop.running.append(Point(16, chunk, True, None, None))
    loop._end_next()
    assert loop.ended[-1].ended == loop.newest_end[0] > now


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("number", [0.0, 3e38, math.nan, math.inf, -math.inf])
def test_one_parameter_that_is_no_number_is_seen_on_every_device(monkeypatch, backend, number):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    params = {"a": jnp.ones((3, 2)), "b": {"c": jnp.zeros(4).at[2].set(number)}}
    assert _all_finite(params) == math.isfinite(number)


def test_the_speed_of_a_train_line_is_that_since_the_line_before(tmp_path, log):
    loop_of(log, score).run()
    train = [line for line in metrics.read(tmp_path / "metrics.jsonl") if line["split"] == "train"]
    assert len(train) == 12
    times = [0.0, *(line["time_s"] for line in train)]
    for line, (before, now) in zip(train, itertools.pairwise(times), strict=True):
        assert line["tokens_per_s"] == pytest.approx(PLAN.log_every / (now - before))


def test_a_resumed_loop_counts_the_time_of_the_sittings_before(tmp_path, log):
    state = TrainState(step=jnp.int32(8), params={"w": jnp.float32(8)}, opt_state=())
    tally = Tally(loss_sum=7.5, steps=1, tokens=50, seconds=100.0, seconds_at_line=90.0)
    loop = dataclasses.replace(loop_of(log, score), state=state, tally=tally)
    assert loop.seconds == 90
    loop.run()
    first, *_, last = [line for line in metrics.read(tmp_path / "metrics.jsonl") if line["split"] == "train"]
    assert (first["step"], first["loss"]) == (10, (7.5 + 9 + 10) / 3)
    assert first["time_s"] > 100
    assert first["tokens_per_s"] == pytest.approx((50 + PLAN.log_every) / (first["time_s"] - 90))
    assert loop.seconds == last["time_s"] > first["time_s"]
