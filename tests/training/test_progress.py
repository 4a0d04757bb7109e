"""The progress line: losses, a speed that says something, and the time left."""

import io

import pytest

from jaxlm.training.progress import Progress, per_second


class Terminal(io.StringIO):
    """A stream on which the line moves."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """The time, which stands still but for the test."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("rate", "shown"),
    [(0.0042, "0.0042"), (0.35, "0.35"), (1 / 3, "0.33"), (2.0, "2"), (9.94, "9.9"), (10.4, "10"), (21345.6, "21,346")],
)
def test_a_slow_speed_has_two_digits_and_a_fast_one_none_behind_the_point(rate, shown):
    assert per_second(rate) == shown


def test_slow_steps_show_their_rate_and_what_is_left(clock):
    out = io.StringIO()
    progress = Progress(20, 4, out)
    progress.dev(2.5)
    clock[0] += 20
    progress.steps(11, 3.0)
    assert out.getvalue() == "step 11/20  loss 3.0000  dev 2.5000  0.35 steps/s  00:25 left\n"


def test_a_line_has_speed_share_of_the_peak_time_left_and_memory(clock):
    out = io.StringIO()
    progress = Progress(20, 4, out)
    clock[0] += 20
    progress.steps(12, 3.0, tokens_per_s=13_107.2, mfu=0.4123, memory=3_210_000_000)
    assert out.getvalue() == "step 12/20  loss 3.0000  13,107 tokens/s  MFU 41.2%  00:20 left  3.21 GB\n"


def test_vectors_have_words_per_second(clock):
    out = io.StringIO()
    progress = Progress(20, 4, out, unit="words")
    for step in (5, 6):
        clock[0] += 5
        progress.steps(step, None if step == 6 else 3.0, tokens_per_s=13_107.2)
    assert out.getvalue().splitlines() == [
        "step 5/20  loss 3.0000  13,107 words/s  01:15 left",
        "step 6/20  no loss  13,107 words/s  01:10 left",
    ]


def test_a_terminal_has_the_same(clock):
    out = Terminal()
    progress = Progress(2, 0, out)
    clock[0] += 4
    progress.steps(2, 3.0, tokens_per_s=2500, mfu=0.05, memory=1_500_000)
    progress.close()
    assert "loss 3.0000  2,500 tokens/s  MFU 5.0%  1.5 MB" in out.getvalue()
