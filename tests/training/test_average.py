"""The running average of the parameters: evaluated, kept, loaded; and everything of the optimiser across a stop."""

import dataclasses
import json
import signal
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.data.rows import Batch
from jaxlm.errors import Stopped, UserError
from jaxlm.runs import metrics
from jaxlm.runs.checkpoints import CheckpointWriter
from jaxlm.training import cadence, language, setup
from jaxlm.training.language import LanguageJob
from jaxlm.training.program import Objective
from jaxlm.training.setup import Setup
from jaxlm.training.state import TrainState
from jaxlm.training.step import language_loss

SGD = jaxlm.OptimConfig(lr=0.3)
EVERYTHING = jaxlm.OptimConfig(
    "muon",
    lr=0.01,
    muon_lr=0.02,
    schedule="wsd",
    warmup=0.2,
    cooldown=0.4,
    weight_decay=0.1,
    decay="matrices",
    clip=1.0,
    z_loss=1e-3,
    accumulate=2,
    ema=0.8,
    skip_nonfinite=3,
)


def of_split(path: Any, split: str) -> dict[int, float]:
    """The losses of a split in metrics.jsonl by step."""
    return {line["step"]: line["loss"] for line in metrics.read(path / "metrics.jsonl") if line["split"] == split}


def test_the_average_is_evaluated_kept_and_sampled_beside_the_parameters(make_run):
    """The parameters are those of a run without an average, whose checkpoints have no item for it."""
    plain = make_run(name="plain", optim=SGD)
    path = make_run(name="average", optim=dataclasses.replace(SGD, ema=0.9))
    assert of_split(path, "dev_raw") == of_split(plain, "dev") and "dev_raw" not in of_split(plain, "dev_raw")
    assert of_split(path, "train_sample_raw") == of_split(plain, "train_sample")
    dev = of_split(path, "dev")
    assert dev[0] == of_split(path, "dev_raw")[0] and dev[20] != of_split(path, "dev_raw")[20]
    run, raw = (jaxlm.load_run(path, which="last", weights=weights) for weights in ("ema", "raw"))
    chex.assert_trees_all_equal(raw.params, jaxlm.load_run(plain, which="last").params)
    assert not np.allclose(run.params["hidden"], raw.params["hidden"])
    best = jaxlm.load_run(path)
    assert best.step == min(dev, key=lambda step: (dev[step], -step) if step else (9.9, 0))
    told = json.loads((path / "eval.json").read_text())
    assert told["step"] == best.step and told["dev"]["nats_per_token"] == pytest.approx(dev[best.step], rel=1e-5)
    items = {run: {entry.name for entry in (run / "checkpoints" / "20").iterdir()} for run in (plain, path)}
    assert items[path] - items[plain] == {"ema"}
    with pytest.raises(UserError, match=r"^weights raw wants a run with optim\.ema"):
        jaxlm.load_run(plain, weights="raw")


def test_a_run_with_everything_goes_on_bit_for_bit(make_run, monkeypatch):
    """Muon, averages, micro-batches, skipped gradients: two of them, one before and one after the stop."""
    monkeypatch.setattr(cadence, "CHUNK_SIZES", (2,))
    plain, stops = LanguageJob.run_chunk, [8]

    def loss(model: Any, params: Any, batch: Batch, key: Any, **options: Any) -> tuple[jax.Array, jax.Array]:
        """Not a number where a prediction weighs 2."""
        total, count = language_loss(model, params, batch, key, **options)
        assert batch.weight is not None
        return jnp.where(batch.weight.max() > 1, jnp.nan, 1.0) * total, count

    def set_up(config: Any, **options: Any) -> Setup:
        return dataclasses.replace(setup.set_up(config, **options), objective=Objective(loss=loss))

    def run_chunk(self: LanguageJob, state: TrainState, step: int, K: int) -> Any:
        if step in (4, 10):
            batches = self.setup.dataset.batches(step, K)
            assert batches.weight is not None
            return self._chunk(state, batches._replace(weight=batches.weight.at[0].mul(2)), {}, K)
        if [step] == stops and str(self.config.run_dir).endswith("stopped"):
            stops.clear()
            signal.raise_signal(signal.SIGTERM)
        return plain(self, state, step, K)

    states: list[dict[str, Any]] = []
    save = CheckpointWriter.save

    def noting(self: CheckpointWriter, step: int, items: dict[str, Any], **rest: Any) -> None:
        states.append(jax.device_get(items))
        save(self, step, items, **rest)

    monkeypatch.setattr(CheckpointWriter, "save", noting)
    monkeypatch.setattr(language, "set_up", set_up)
    monkeypatch.setattr(LanguageJob, "run_chunk", run_chunk)
    settings: dict[str, Any] = {"optim": EVERYTHING, "data": {"example": "sequence"}, "steps": 12}
    settings["sample"] = jaxlm.SampleConfig(n=0)
    whole = make_run(name="whole", **settings)
    want_state = states[-1]
    with pytest.raises(Stopped):
        make_run(name="stopped", **settings)
    stopped = make_run(name="stopped", **settings)
    chex.assert_trees_all_equal(states[-1], want_state)
    assert int(want_state["training"]["step"]) == 12 and want_state.keys() == {"params", "training", "ema"}
    clock = ("time_s", "tokens_per_s")
    found, want = (
        [{name: line[name] for name in line.keys() - clock} for line in metrics.read(path / "metrics.jsonl")]
        for path in (stopped, whole)
    )
    assert found == want
    train = [line for line in want if line["split"] == "train"]
    assert {line["step"]: line["skipped"] for line in train}[12] == 2
    assert all(line["grad_norm"] > 0 for line in train if line["grad_norm"] is not None)
