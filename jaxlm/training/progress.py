"""The progress line on the terminal during a training."""

import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 5.0
"""Least seconds between lines if the output is not a terminal."""


class Progress:
    """Shows loss, dev loss, speed and time left: in one updated line on a terminal, in occasional lines elsewhere.

    The speed is in steps/s, or in `words`, words/s.
    """

    def __init__(self, steps: int, start: int, out: TextIO | None = None, *, words: bool = False):
        self._out = out or sys.stderr
        self._read = 0 if words else None
        self._steps, self._start, self._done = steps, start, start
        self._began = self._last_line = time.monotonic()
        self._dev: float | None = None
        self._bar: Any = None
        if self._out.isatty():
            self._bar = tqdm(total=steps, initial=start, unit="step", file=self._out, dynamic_ncols=True)

    def dev(self, loss: float | None) -> None:
        """Set the dev loss to show."""
        self._dev = loss

    def steps(self, done: int, loss: float | None, tokens: int = 0) -> None:
        """Show that `done` steps are done, the newest with this train loss (None: nothing was predicted).

        `tokens` were read since the last call.
        """
        now = time.monotonic()
        seconds = max(now - self._began, 1e-9)
        if self._read is not None:
            self._read += tokens
        if self._bar is not None:
            words = f"  {per_second(self._read / seconds)} words/s" if self._read is not None else ""
            self._bar.set_postfix_str(self._losses(loss) + words, refresh=False)
            self._bar.update(done - self._done)
        self._done = done
        last = done == self._steps
        if self._bar is None and (last or now - self._last_line >= SECONDS_BETWEEN_LINES):
            self._last_line = now
            rate = (done - self._start) / seconds
            left = tqdm.format_interval((self._steps - done) / rate) if rate else "?"
            if self._read is None:
                speed = f"{per_second(rate)} steps/s"
            else:
                speed = f"{per_second(self._read / seconds)} words/s"
            print(
                f"step {done:,}/{self._steps:,}  {self._losses(loss)}  {speed}  {left} left",
                file=self._out,
                flush=True,
            )

    def close(self) -> None:
        """End the progress line."""
        if self._bar is not None:
            self._bar.close()

    def _losses(self, loss: float | None) -> str:
        train = "no loss" if loss is None else f"loss {loss:.4f}"
        return train + (f"  dev {self._dev:.4f}" if self._dev is not None else "")


def per_second(rate: float) -> str:
    """Format a speed: whole numbers, two digits below 10."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
