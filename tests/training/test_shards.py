"""Training on token shards: the run's files, a resume bit for bit, and who is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import jaxlm
from jaxlm.config import PrepareConfig
from jaxlm.data.prepare import prepare
from jaxlm.errors import Stopped, UserError
from jaxlm.runs.directory import RunDir
from jaxlm.training.recorder import Recorder
from tests.conftest import NAMES

MODEL = jaxlm.GptConfig(n_layers=1, n_heads=1, d_model=8)


@pytest.fixture
def shards(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(NAMES))
    config = PrepareConfig(tokens="characters", document="lines", held_out=0.2, shard_tokens=100)
    prepare([tmp_path / "a.txt"], tmp_path / "shards", config, 1, log=lambda line: None)
    return tmp_path / "shards"


def config_of(shards, **settings):
    defaults = {
        "model": MODEL,
        "data": jaxlm.DataConfig(path=str(shards), kind="stream", example="sequence", max_length=8),
        "optim": jaxlm.OptimConfig(name="adamw", lr=0.01),
        "eval": jaxlm.EvalConfig(every=10, max_tokens=40),
        "sample": jaxlm.SampleConfig(n=1, max_tokens=5),
        "steps": 30,
        "batch_size": 4,
        "run_dir": str(shards.with_name("run")),
    }
    return jaxlm.RunConfig(**{**defaults, **settings})


def trained(config):
    return jaxlm.train(config, log=lambda line: None)


def test_a_run_on_shards_has_all_that_does_not_need_the_text(shards):
    path = trained(config_of(shards))
    result, tree = json.loads((path / "eval.json").read_text()), json.loads((path / "config.json").read_text())
    assert result["test"] is None and result["baselines"] is None
    assert 40 - 8 < result["dev"]["tokens"] <= 40
    assert result["dev"]["bytes"] == result["dev"]["tokens"]
    assert tree["data"]["tokens"] == {"class": "jaxlm:PreparedTokensConfig"}
    assert not (path / "seen.npz").exists()
    assert [file.name for file in (path / "plots").iterdir()] == ["loss.png"]
    run = jaxlm.load_run(path)
    assert run.tokenizer.decode(run.tokenizer.encode("emma")) == "emma"
    assert len(jaxlm.score(run, "emma").tokens) == 4


def test_a_sample_ends_where_its_document_ends(shards):
    run = jaxlm.load_run(trained(config_of(shards, plots=False, optim=jaxlm.OptimConfig(name="adamw", lr=0.05))))
    texts = jaxlm.generate(run, n=20, max_tokens=200, key=jax.random.key(0))
    assert max(map(len, texts)) < 200 and sum(map(len, texts)) / 20 < 40
    assert set("".join(texts)) <= set("".join(NAMES))


def test_stopped_and_resumed_it_is_the_same_run_bit_for_bit(shards, monkeypatch):
    whole = jaxlm.load_run(trained(config_of(shards, plots=False)), which="last")
    config = config_of(shards, plots=False, run_dir=str(shards.with_name("stopped")))
    run_chunk, calls = Recorder.chunk, []

    def stopping(self, step, *args, **options):
        run_chunk(self, step, *args, **options)
        calls.append(step)
        if step >= 20:
            raise Stopped(15, step)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "chunk", stopping)
        with pytest.raises(Stopped):
            trained(config)
    assert RunDir(config.directory).has_checkpoint
    resumed = jaxlm.load_run(trained(config), which="last")
    assert resumed.step == whole.step == 30
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)


def test_other_shards_are_another_run(shards, tmp_path):
    config = config_of(shards, plots=False)
    trained(config)
    other = PrepareConfig(tokens="characters", document="lines", held_out=0.2, shard_tokens=90)
    prepare([tmp_path / "a.txt"], tmp_path / "other", other, 1, log=lambda line: None)
    data = dataclasses.replace(config.data, path=str(tmp_path / "other"))
    with pytest.raises(UserError, match="data has other content"):
        trained(dataclasses.replace(config, data=data))


@pytest.mark.parametrize(
    "model",
    [jaxlm.CountsConfig(), jaxlm.MixtureConfig(network=MODEL), jaxlm.ReanConfig()],
    ids=lambda m: type(m).__name__,
)
def test_a_model_that_needs_all_of_the_text_is_refused(model, shards):
    data = jaxlm.DataConfig(path=str(shards), kind="stream", example="sequence")
    steps = 10 if model.trained_by_steps else None
    config = jaxlm.RunConfig(model=model, data=data, steps=steps, run_dir=str(shards.with_name("run")))
    with pytest.raises(UserError, match=f"data.path wants a text file for a {type(model).__name__}"):
        trained(config)


def test_init_from_wants_the_tokens_of_the_run(shards, make_run):
    other = make_run(
        MODEL,
        name="other",
        text="other characters",
        steps=1,
        data={"kind": "stream", "example": "sequence", "max_length": 8},
    )
    with pytest.raises(UserError, match=r"another tokenizer than the shards.*prepare the text with --tokens"):
        trained(config_of(shards, init_from=str(other)))
