"""MFU: where it is known it stands in every train line, and it is known for long runs by plain steps."""

import dataclasses

import pytest

import jaxlm
from jaxlm.devices import peaks
from jaxlm.runs import metrics
from jaxlm.training.language import prepare
from tests import loops
from tests.conftest import NAMES


class TimedJob(loops.FakeJob):
    seconds_at_peak = 0.03


def train_lines(job):
    loops.fitted(job)
    lines = metrics.read(job.config.directory / "metrics.jsonl")
    return [line for line in lines if line["split"] == "train"]


def test_a_train_line_has_the_share_of_the_peak_that_its_steps_took(tmp_path):
    """A step of the fake job has 3 tokens and takes 0.03 s at the peak: 0.01 s a token."""
    lines = train_lines(TimedJob(tmp_path / "run"))
    assert len(lines) == 12
    assert all(line["mfu"] == pytest.approx(0.01 * line["tokens_per_s"]) for line in lines)


def test_where_it_is_not_known_a_line_has_none(tmp_path):
    assert not any("mfu" in line for line in train_lines(loops.FakeJob(tmp_path / "run")))


def test_it_is_known_for_a_long_run_of_a_model_with_products(tmp_path, monkeypatch):
    """An MLP's step of 8 windows of 3 tokens: 6 operations for each weight of its two products and each window."""
    monkeypatch.setattr(peaks, "_measured", lambda dtype: 1e6)
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    short = jaxlm.RunConfig(
        model=jaxlm.MlpConfig(d_embed=4, d_hidden=16),
        data=jaxlm.DataConfig(path=str(tmp_path / "names.txt")),
        steps=1000,
        batch_size=8,
        device="cpu",
    )
    assert prepare(short, log=print).seconds_at_peak is None
    job = prepare(dataclasses.replace(short, steps=2**29), log=print)
    vocabulary = job.config.model.vocab_size
    assert vocabulary
    assert job.seconds_at_peak == 6 * 8 * (3 * 4 * 16 + 16 * vocabulary) / 1e6
    counted = dataclasses.replace(short, model=jaxlm.CountsConfig(), steps=None, batch_size=32)
    assert prepare(counted, log=print).seconds_at_peak is None
