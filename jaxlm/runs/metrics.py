"""The metrics of a run: metrics.jsonl and TensorBoard."""

import json
import math
from pathlib import Path
from typing import Any

from jaxlm.errors import UserError, check_fields, writing
from jaxlm.runs.directory import decoding, write_bytes

NATS_PER_BIT = math.log(2)
"""Nats in a bit."""


class MetricsLog:
    """Appends lines to metrics.jsonl, one JSON object each, and to TensorBoard's files if asked for.

    Lines beyond `step`, at which a run resumes (-1: from the start), are first removed from both.
    """

    def __init__(self, path: Path, tensorboard: Path | None, *, step: int = -1):
        self._run_dir = path.parent
        with writing(self._run_dir):
            cut(path, step)
            self._file = path.open("a", encoding="utf-8")
        self._board = summary_writer()(str(tensorboard), purge_step=step + 1) if tensorboard else None

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, **values: Any) -> None:
        """Append one line; numbers that are not finite become null."""
        line = {name: _finite(value) for name, value in values.items()}
        with writing(self._run_dir):
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()
        if self._board:
            for name in ("nats_per_token", "bits_per_byte", "tokens_per_s", "lr"):
                if line.get(name) is not None:
                    self._board.add_scalar(f"{line['split']}/{name}", line[name], line["step"])

    def close(self) -> None:
        """Flush and close the files."""
        self._file.close()
        if self._board:
            self._board.close()


def cut(path: Path, step: int) -> None:
    """Remove the lines beyond a step and damaged ones, so that a resumed run can append."""
    if not path.exists():
        return
    kept = [line for line in path.read_bytes().splitlines() if _step_of(line) <= step]
    write_bytes(path, b"".join(line + b"\n" for line in kept))


def read(path: Path) -> list[dict[str, Any]]:
    """Read all lines of metrics.jsonl. Raises UserError if one is damaged."""
    lines = []
    for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else [], 1):
        with decoding(path, f"delete line {number}"):
            lines.append(_parsed(line))
    return lines


def summary_writer() -> Any:
    """Import the class that writes TensorBoard's files. Raises UserError if tensorboardX is not installed."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise UserError("tensorboard wants the extra: pip install 'jaxlm[tensorboard]'") from None
    return SummaryWriter


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parsed(line: bytes) -> dict[str, Any]:
    values = json.loads(line)
    check_fields(values, step=(int,), split=(str,), loss=(int, float, type(None)), unit=(str,))
    return dict(values)


def _step_of(line: bytes) -> float:
    try:
        return float(_parsed(line)["step"])
    except (ValueError, TypeError):
        return math.inf
