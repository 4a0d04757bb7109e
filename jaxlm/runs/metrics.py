"""The metrics of a run: metrics.jsonl and TensorBoard."""

import json
import math
from pathlib import Path
from typing import Any

from jaxlm.errors import UserError, check_fields, writing
from jaxlm.runs.directory import decoding, write_bytes

NATS_PER_BIT = math.log(2)


class MetricsLog:
    """Append to metrics.jsonl, one JSON object a line, and to TensorBoard's files where wanted.

    Lines beyond `step`, that of the checkpoint a run resumes from (-1: none), are cut first, in both.
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
        """Flush and close."""
        self._file.close()
        if self._board:
            self._board.close()


def cut(path: Path, step: int) -> None:
    """Drop the lines beyond a step and damaged ones, so that a resumed run can append."""
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


def summary_writer() -> Any:
    """Import the class that writes TensorBoard's files. Raises UserError without the extra."""
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
