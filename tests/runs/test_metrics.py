"""metrics.jsonl, TensorBoard's files and Weights & Biases of a run that is resumed."""

import struct
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

import jaxlm
from jaxlm.errors import UserError
from jaxlm.runs import metrics
from jaxlm.runs.directory import RunDir
from jaxlm.runs.metrics import MetricsLog
from jaxlm.runs.sinks import TensorBoard, WeightsAndBiases, check_installed

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
    run = RunDir(tmp_path)
    with MetricsLog(run.metrics, [TensorBoard(run, -1)]) as log:
        write(log, range(8), 2.0)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 60)  # a file is named by its second
    with MetricsLog(run.metrics, [TensorBoard(run, step)], step=step) as log:
        write(log, range(step + 1, 6), 1.0)
    want = {number: 2.0 if number <= step else 1.0 for number in range(6)}
    lines = metrics.read(tmp_path / "metrics.jsonl")
    assert {line["step"]: line["loss"] for line in lines} == want and len(lines) == 6
    found = shown(tmp_path / "tensorboard")
    assert found == {("train/nats_per_token", number): loss for number, loss in want.items()}


def test_what_is_no_number_is_null(tmp_path):
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log.write(step=1, split="train", loss=float("nan"), unit="nats/token")
    assert metrics.read(tmp_path / "metrics.jsonl")[0]["loss"] is None


def test_a_log_that_cannot_be_written_is_a_line(tmp_path):
    with pytest.raises(UserError, match=r"^run_dir '.*gone' cannot be written: No such file or directory$"):
        MetricsLog(tmp_path / "gone" / "metrics.jsonl")


CONFIG = jaxlm.RunConfig(model=jaxlm.MlpConfig(), steps=8, wandb="offline")


class FakeWandb(types.ModuleType):
    """The part of Weights & Biases that is called: each run's id and way of resuming, and all rows that it is given."""

    Error = type("Error", (Exception,), {})

    def __init__(self, error: str | None = None):
        super().__init__("wandb")
        self.error, self.begun, self.rows = error, list[dict[str, Any]](), list[dict[str, Any]]()

    def Settings(self, **settings: Any) -> dict[str, Any]:
        return settings

    def init(self, **given: Any) -> "FakeWandb":
        if self.error:
            raise self.Error(self.error)
        self.begun.append(given)
        return self

    def define_metric(self, name: str, **given: Any) -> None:
        assert name in ("step", "*")

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def finish(self) -> None:
        pass


def test_weights_and_biases_has_no_step_twice_after_two_kills(tmp_path, monkeypatch):
    """Killed at step 7 and resumed at 2, killed at 4 and resumed at 2 again: rows 3 to 7 were sent at first."""
    fake, run = FakeWandb(), RunDir(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for first, last in ((-1, 7), (2, 4), (2, 9)):
        with MetricsLog(run.metrics, [WeightsAndBiases(run, CONFIG, "online")], step=first) as log:
            write(log, range(first + 1, last + 1), 2.0)
            log.write(step=last, split="dev", loss=1.0, unit="nats/token", nats_per_token=1.0)
    assert [row["step"] for row in fake.rows if "train/nats_per_token" in row] == list(range(10))
    assert [row["step"] for row in fake.rows if "dev/nats_per_token" in row] == [7, 9]
    assert len({given["id"] for given in fake.begun}) == 1
    assert {given["resume"] for given in fake.begun} == {"allow"}


def test_a_line_without_a_number_that_is_shown_is_no_row(tmp_path, monkeypatch):
    fake, run = FakeWandb(), RunDir(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    sink = WeightsAndBiases(run, CONFIG, "offline")
    sink.write({"step": 1, "split": "train", "loss": None, "nats_per_token": None})
    sink.write({"step": 2, "split": "train", "loss": 1.0, "nats_per_token": 1.0, "mfu": 0.4, "time_s": 3.0})
    assert fake.rows == [{"step": 2, "train/nats_per_token": 1.0, "train/mfu": 0.4}]


def test_a_service_that_refuses_is_a_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb("no API key"))
    with pytest.raises(UserError, match=r"^wandb online cannot begin: no API key; run `wandb login` first, or take"):
        WeightsAndBiases(RunDir(tmp_path), CONFIG, "online")


def test_a_sink_that_is_not_installed_is_a_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"^wandb wants the extra: pip install 'jaxlm\[wandb\]'$"):
        check_installed(CONFIG)


@pytest.mark.slow
def test_offline_the_real_one_needs_no_network_and_keeps_its_id(tmp_path):
    pytest.importorskip("wandb")
    run = RunDir(tmp_path)
    for first in (-1, 2):
        with MetricsLog(run.metrics, [WeightsAndBiases(run, CONFIG, "offline")], step=first) as log:
            write(log, range(first + 1, 5), 2.0)
    (name,) = {path.name.rpartition("-")[2] for path in (tmp_path / "wandb").glob("offline-run-*")}
    assert name in run.wandb.read_text("utf-8")
