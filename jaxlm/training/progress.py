"""The progress line of a training."""

import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 5.0
"""Where the output is no terminal, a line is printed at most this often."""


class Progress:
    """Loss, dev loss, speed and time left: one moving line on a terminal, a plain line now and then elsewhere.

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
        """The newest dev loss."""
        self._dev = loss

    def steps(self, done: int, loss: float | None, tokens: int = 0) -> None:
        """`done` steps are behind us, the newest with this train loss; None: they had nothing to predict. Those since
        the last call read so many tokens.
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
        """Leave the line as it is."""
        if self._bar is not None:
            self._bar.close()

    def _losses(self, loss: float | None) -> str:
        train = "no loss" if loss is None else f"loss {loss:.4f}"
        return train + (f"  dev {self._dev:.4f}" if self._dev is not None else "")


def per_second(rate: float) -> str:
    """A speed in whole numbers, below 10 in two digits."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
