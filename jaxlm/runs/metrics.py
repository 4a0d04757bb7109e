"""What a run tells while it trains: metrics.jsonl, TensorBoard, the progress line."""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from jaxlm.errors import UserError, check_fields
from jaxlm.runs.directory import decoding, write_bytes

NATS_PER_BIT = math.log(2)
SECONDS_BETWEEN_LINES = 5.0


class MetricsLog:
    """metrics.jsonl, one JSON object a line, and TensorBoard beside it where asked."""

    def __init__(self, path: Path, tensorboard: Path | None):
        self._file = path.open("a", encoding="utf-8")
        self._board = summary_writer()(str(tensorboard)) if tensorboard else None

    def write(self, **values: Any) -> None:
        """Append one line; numbers that are not finite become null."""
        line = {name: _finite(value) for name, value in values.items()}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()
        if self._board:
            for name in ("nats_per_token", "bits_per_byte", "tokens_per_s", "lr"):
                if line.get(name) is not None:
                    self._board.add_scalar(f"{line['split']}/{name}", line[name], line["step"])

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        if self._board:
            self._board.close()


def cut(path: Path, step: int) -> None:
    """Drop the lines beyond a step, and those that a kill or other damage cut, so that a resume can append."""
    if not path.exists():
        return
    kept = [line for line in path.read_bytes().splitlines() if _step_of(line) <= step]
    write_bytes(path, b"".join(line + b"\n" for line in kept))


def read(path: Path) -> list[dict[str, Any]]:
    """All lines of metrics.jsonl. Raises UserError where one is damaged."""
    lines = []
    for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else [], 1):
        with decoding(path, f"delete line {number}"):
            lines.append(_parsed(line))
    return lines


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


def summary_writer() -> Any:
    """The class that writes TensorBoard's files. Raises UserError without the extra."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise UserError("tensorboard wants the extra: pip install 'jaxlm[tensorboard]'") from None
    return SummaryWriter


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parsed(line: bytes) -> dict[str, Any]:
    told = json.loads(line)
    check_fields(told, step=(int,), split=(str,), loss=(int, float, type(None)), unit=(str,))
    return dict(told)


def _step_of(line: bytes) -> float:
    try:
        return float(_parsed(line)["step"])
    except (ValueError, TypeError):
        return math.inf
