"""The metrics of a run: metrics.jsonl, and the sinks beside it."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxlm.errors import check_fields, writing
from jaxlm.runs.directory import decoding, write_bytes
from jaxlm.runs.sinks import Sink

NATS_PER_BIT = math.log(2)
"""Nats in a bit."""


class NoLog:
    """The log of a process that writes none, beside the one that does."""

    def write(self, **values: Any) -> None:
        """Drop a line."""

    def close(self) -> None:
        """Do nothing."""


class MetricsLog:
    """Appends lines to metrics.jsonl, one JSON object each, and gives each to the sinks.

    Lines beyond `step`, at which a run resumes (-1: from the start), are first removed.
    """

    def __init__(self, path: Path, sinks: Sequence[Sink] = (), *, step: int = -1):
        self._run_dir = path.parent
        with writing(self._run_dir):
            cut(path, step)
            self._file = path.open("a", encoding="utf-8")
        self._sinks = sinks

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
            for sink in self._sinks:
                sink.write(line)

    def close(self) -> None:
        """Flush and close the file and the sinks."""
        self._file.close()
        for sink in self._sinks:
            sink.close()


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
