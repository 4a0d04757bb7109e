"""metrics.jsonl and TensorBoard's files of a run that is resumed."""

import struct
import time
from pathlib import Path
from typing import Any

import pytest

from jaxlm.errors import UserError
from jaxlm.runs import metrics
from jaxlm.runs.metrics import MetricsLog

pytest.importorskip("tensorboardX")


def events(directory: Path) -> list[Any]:
    """The events of all files in their order, read as records: length, checksum, content, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(directory.iterdir()):
        raw = path.read_bytes()
        while raw:
            (length,) = struct.unpack("<Q", raw[:8])
            found.append(Event.FromString(raw[12 : 12 + length]))
            raw = raw[16 + length :]
    return found


def shown(directory: Path) -> dict[tuple[str, int], float]:
    """What TensorBoard shows: a session that starts at a step takes back all from there on."""
    from tensorboardX.proto.event_pb2 import SessionLog

    values: dict[tuple[str, int], float] = {}
    for event in events(directory):
        if event.HasField("session_log") and event.session_log.status == SessionLog.START:
            values = {key: value for key, value in values.items() if key[1] < event.step}
        for value in event.summary.value:
            assert (value.tag, event.step) not in values
            values[value.tag, event.step] = value.simple_value
    return values


def write(log: MetricsLog, steps: range, loss: float) -> None:
    for step in steps:
        log.write(step=step, split="train", loss=loss, unit="nats/token", nats_per_token=loss)


@pytest.mark.parametrize("step", [-1, 0, 4])
def test_a_resumed_run_takes_back_what_lies_beyond_its_checkpoint(tmp_path, monkeypatch, step):
    """In both places, so that they show the same: lines up to the checkpoint of before, and new ones."""
    with MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard") as log:
        write(log, range(8), 2.0)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 60)  # a file is named by its second
    with MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard", step=step) as log:
        write(log, range(step + 1, 6), 1.0)
    want = {number: 2.0 if number <= step else 1.0 for number in range(6)}
    lines = metrics.read(tmp_path / "metrics.jsonl")
    assert {line["step"]: line["loss"] for line in lines} == want and len(lines) == 6
    found = shown(tmp_path / "tensorboard")
    assert found == {("train/nats_per_token", number): loss for number, loss in want.items()}


def test_what_is_no_number_is_null(tmp_path):
    with MetricsLog(tmp_path / "metrics.jsonl", None) as log:
        log.write(step=1, split="train", loss=float("nan"), unit="nats/token")
    assert metrics.read(tmp_path / "metrics.jsonl")[0]["loss"] is None


def test_a_log_that_cannot_be_written_is_a_line(tmp_path):
    with pytest.raises(UserError, match=r"^run_dir '.*gone' cannot be written: No such file or directory$"):
        MetricsLog(tmp_path / "gone" / "metrics.jsonl", None)
