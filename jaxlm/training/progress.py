"""The progress line on the terminal during a training."""

import io
import sys
import time
from typing import Any, TextIO, cast

from tqdm import tqdm

from jaxlm.devices.platform import bytes_in_words

SECONDS_BETWEEN_LINES = 5.0
"""Least seconds between lines if the output is not a terminal."""


class _Nowhere(io.TextIOBase):
    """A stream that drops what is written to it."""

    def write(self, text: str) -> int:
        return len(text)


NOWHERE = cast(TextIO, _Nowhere())
"""The output of a process that shows no progress."""


class Progress:
    """Shows loss, dev loss, speed, MFU, time left and memory: in one updated line on a terminal, else in a line now and
    then.

    The speed is in the given unit/s, or in steps/s where that is not known.
    """

    def __init__(self, steps: int, start: int, out: TextIO | None = None, *, unit: str = "tokens"):
        self._out = out or sys.stderr
        self._unit = unit
        self._steps, self._start, self._done = steps, start, start
        self._began = self._last_line = time.monotonic()
        self._dev: float | None = None
        self._bar: Any = None
        if self._out.isatty():
            self._bar = tqdm(total=steps, initial=start, unit="step", file=self._out, dynamic_ncols=True)

    def dev(self, loss: float | None) -> None:
        """Set the dev loss to show."""
        self._dev = loss

    def steps(
        self,
        done: int,
        loss: float | None,
        *,
        tokens_per_s: float | None = None,
        mfu: float | None = None,
        memory: int | None = None,
    ) -> None:
        """Show that `done` steps are done, the newest with this train loss (None: nothing was predicted).

        `mfu` is a share of the devices' peak, `memory` in bytes; None is left out.
        """
        now = time.monotonic()
        losses = self._losses(loss)
        speed = [] if tokens_per_s is None else [f"{per_second(tokens_per_s)} {self._unit}/s"]
        if mfu is not None:
            speed.append(f"MFU {mfu:.1%}")
        held = [] if memory is None else [bytes_in_words(memory)]
        if self._bar is not None:
            self._bar.set_postfix_str("  ".join([losses, *speed, *held]), refresh=False)
            self._bar.update(done - self._done)
        self._done = done
        last = done == self._steps
        if self._bar is None and (last or now - self._last_line >= SECONDS_BETWEEN_LINES):
            self._last_line = now
            rate = (done - self._start) / max(now - self._began, 1e-9)
            left = tqdm.format_interval((self._steps - done) / rate) if rate else "?"
            speed = speed or [f"{per_second(rate)} steps/s"]
            parts = [f"step {done:,}/{self._steps:,}", losses, *speed, f"{left} left", *held]
            print("  ".join(parts), file=self._out, flush=True)

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
