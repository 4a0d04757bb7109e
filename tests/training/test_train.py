"""train: prepare, claim, fit, finish; what ends it passes through, and a run is done once eval.json is there."""

import dataclasses
import signal
from pathlib import Path
from typing import Any, ClassVar

import pytest

import jaxlm
from jaxlm.errors import Stopped, UserError
from jaxlm.training import train
from jaxlm.training.job import Job
from tests.loops import FakeJob, lines


@dataclasses.dataclass(frozen=True)
class Fake(jaxlm.MlpConfig):
    """Settings that prepare the job that the test made."""

    job: ClassVar[FakeJob]

    def prepare(self, config: jaxlm.RunConfig, **options: Any) -> Job:
        return self.job


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeJob:
    monkeypatch.chdir(tmp_path)
    made = FakeJob(Path("run"))
    monkeypatch.setattr(Fake, "job", made, raising=False)
    return made


def run(job: FakeJob, **options: bool) -> list[str]:
    said: list[str] = []
    train(dataclasses.replace(job.config, model=Fake()), log=said.append, **options)
    return said


def test_a_run_is_trained_then_finished_and_then_done(job):
    assert run(job)[-1].startswith("step 24 of 24, ") and job.events[-1] == ("finish", 0)
    assert len(lines(Path("run"))) == 16
    job.events.clear()
    assert run(job)[0] == "run is trained already; --restart trains it again" and job.events == []
    assert run(job, restart=True)[0] == "run is renamed to run.old" and ("chunk", 0) in job.events
    assert lines(Path("run")) == lines(Path("run.old"))


def test_a_dry_run_logs_and_writes_nothing(job):
    assert any('"steps": 24' in line for line in run(job, dry_run=True))
    assert job.events == [] and not Path("run").exists()


@pytest.mark.parametrize("moment", ["run_chunk", "evaluate", "finish"])
def test_an_error_about_another_file_is_not_blamed_on_the_run_directory(job, monkeypatch, moment):
    """A relative path is none below the run directory."""
    error = FileNotFoundError(2, "No such file or directory", "corpus.txt")

    def fail(*args: Any) -> Any:
        raise error

    monkeypatch.setattr(job, moment, fail)
    with pytest.raises(FileNotFoundError) as caught:
        run(job)
    assert caught.value is error and not Path("run/eval.json").exists()


def test_what_fails_at_the_end_costs_no_step(job, monkeypatch):
    def full(*args: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(job, "finish", full)
        with pytest.raises(UserError, match=r"^run_dir 'run' cannot be written: No space left on device$"):
            run(job)
    job.events.clear()
    assert run(job)[0] == "resuming run at step 24"
    assert job.events == [("finish", 0)]


def test_a_stopped_run_has_no_results_and_goes_on(job):
    job.at[6] = lambda: signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Stopped):
        run(job)
    assert not Path("run/eval.json").exists()
    job.at.clear()
    assert run(job)[0] == "resuming run at step 6" and Path("run/eval.json").exists()
