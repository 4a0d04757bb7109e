"""REAN's runs: constants stored once, a likelihood fitted to train, exact resumes, vectors from a file."""

import dataclasses
import json
import re
import signal
from typing import Any

import jax
import numpy as np
import pytest

import jaxlm
from jaxlm import checkpoint
from jaxlm.inference import by_vector
from jaxlm.models.base import CONSTANTS
from jaxlm.runs import RunDir
from jaxlm.training import Stopped, loop

TEXT = "\n\n".join(f"human: what is {i % 7}?\nnetwork: it is {i % 7} of {i % 3}." for i in range(40))
DATA: dict[str, Any] = {"kind": "dialogues", "tokens": "rean", "example": "sequence", "min_count": 1, "max_length": 16}
SIZES: dict[str, Any] = {"n_layers": 1, "n_heads": 2, "d_model": 16, "d_embed": 8}
RANDOM = jaxlm.ReanConfig(objective="mse", table="random", **SIZES)
SETTINGS: dict[str, Any] = {
    "text": TEXT,
    "data": DATA,
    "optim": jaxlm.OptimConfig(name="adamw", lr=0.01),
    "plots": False,
}


@pytest.fixture
def vectors(tmp_path):
    corpus_words = ["human", "network", ": ", "what ", "is ", "it ", "of ", "unknown to the data"]
    rng = np.random.default_rng(0)
    path = tmp_path / "vectors.npz"
    np.savez(path, words=np.array(corpus_words), vectors=rng.standard_normal((8, 8)).astype(np.float32))
    return path


def test_a_run_keeps_its_table_once_and_tells_its_loss_apart_from_the_likelihood(make_run):
    path = make_run(RANDOM, **SETTINGS)
    run = jaxlm.load_run(path)
    result = json.loads((path / "eval.json").read_text())
    kept = RunDir(path).read_constants()
    assert result["constants"] == sum(array.size for array in kept.values())
    assert result["params"] == sum(leaf.size for name, leaf in run.params.items() if name != CONSTANTS)
    assert kept["vectors"].shape == (run.tokenizer.vocab_size, 8)
    described = checkpoint.load_params(path / "checkpoints", checkpoint.saved(path / "checkpoints")[-1], _everywhere())
    assert described is not None
    assert CONSTANTS not in described
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert {(line["split"], line["unit"]) for line in lines} == {
        ("train", "squared"),
        ("dev", "nats/token"),
        ("train_sample", "nats/token"),
    }
    assert all(line["nats_per_token"] is None for line in lines if line["split"] == "train")
    assert float(run.params["theta"]) != 1.0
    score = jaxlm.score(run, TEXT)
    assert score.nats_per_token is not None
    assert score.total.bytes == len(TEXT) + 2
    untrained = jaxlm.generate(run, params=run.untrained(), key=jax.random.key(0), max_tokens=5)
    assert untrained != jaxlm.generate(run, key=jax.random.key(0), max_tokens=5)


def test_a_resumed_run_is_the_uninterrupted_one_theta_too(make_run, monkeypatch):
    monkeypatch.setattr(loop, "CHUNK_SIZES", (5,))
    whole = jaxlm.load_run(make_run(RANDOM, name="whole", **SETTINGS))
    advance = loop.Loop._advance
    with monkeypatch.context() as patch, pytest.raises(Stopped) as stopped:
        patch.setattr(loop.Loop, "_advance", lambda self, caught: advance(self, caught or [signal.SIGTERM]))
        make_run(RANDOM, name="part", **SETTINGS)
    assert stopped.value.step == 5
    part = jaxlm.load_run(make_run(RANDOM, name="part", **SETTINGS))
    assert part.step == whole.step
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(part.params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_vectors_come_from_a_file_and_another_file_is_another_run(make_run, vectors):
    model = jaxlm.ReanConfig(table="frozen", vectors=str(vectors), rows="unit", **SIZES)
    settings = {**SETTINGS, "steps": 2}
    run = jaxlm.load_run(make_run(model, **settings))
    row_VE = np.asarray(run.params[CONSTANTS]["vectors"])
    word = run.tokenizer.encode("what ")[0] - 257
    given = np.load(vectors)["vectors"][3]
    np.testing.assert_allclose(row_VE[word], given / np.linalg.norm(given), rtol=1e-5)
    assert not row_VE[run.tokenizer.encode("?")[0] - 257].any()
    np.savez(vectors, words=np.load(vectors)["words"], vectors=np.ones((8, 8)))
    with pytest.raises(jaxlm.UserError, match="constants has other content"):
        make_run(model, **settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "model.vectors .* does not exist"),
        (lambda path: path.write_text("no arrays"), "wants an .npz file of words and vectors"),
        (lambda path: np.savez(path, words=np.array(["a"]), vectors=np.ones((2, 8))), "wants a row for each of its 1"),
    ],
)
def test_a_vectors_file_that_cannot_be_used_is_told_in_a_line(make_run, vectors, change, message):
    change(vectors)
    with pytest.raises(jaxlm.UserError, match=message):
        make_run(jaxlm.ReanConfig(table="tuned", vectors=str(vectors), **SIZES), **SETTINGS)


def _everywhere():
    from jaxlm import sharding

    return sharding.replicated(sharding.make_mesh())


def test_decoding_by_vector_takes_the_nearest_or_says_that_none_is(make_run, vectors):
    faithful = jaxlm.FaithfulReanConfig(vectors=str(vectors), d_embed=8, n_layers=1, n_heads=2)
    run = by_vector(jaxlm.load_run(make_run(faithful, **{**SETTINGS, "steps": 2})))
    nearest = jaxlm.generate(run, prompt="human: what ", key=jax.random.key(0), max_tokens=4)[0]
    known = {"human", "network", ": ", "what ", "is ", "it ", "of ", "[NIV]"}
    assert nearest.startswith("human: what ")
    assert re.sub("|".join(known - {"[NIV]"}), "", nearest.removesuffix("[NIV]")) == ""
    nowhere = {**run.params, CONSTANTS: {**run.params[CONSTANTS], "inverse_norm": np.zeros(run.model.vocab_size)}}
    lost = dataclasses.replace(run, params=nowhere)
    assert jaxlm.generate(lost, prompt="human: what ", key=jax.random.key(0)) == ["human: what [NIV]"]
    assert jaxlm.generate(lost, prompt="human: what ", key=jax.random.key(0), temperature=2.0) == ["human: what [NIV]"]


def test_decoding_by_vector_wants_vectors(counts_run):
    with pytest.raises(jaxlm.UserError, match="--by-vector wants a REAN run, got CountsConfig"):
        by_vector(counts_run)
