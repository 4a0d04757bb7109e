"""Scores: sums over blocks and rows, and what becomes of losses that JSON cannot hold."""

import functools
import json
import math
from typing import Any

import jax
import numpy as np
import pytest

import jaxlm
from jaxlm.data.corpus import from_lines
from jaxlm.data.dataset import Dataset
from jaxlm.inference import formatting
from jaxlm.inference.evaluation import Evaluator, Interrupted, Score
from jaxlm.inference.score import TextScore
from tests.conftest import NAMES

TEXT = "\n".join(["abcab", "ça", "bb", "a", "cacabbacab" * 3])


def evaluator(data: dict[str, Any], model: Any) -> tuple[Any, dict[str, np.ndarray]]:
    config = jaxlm.RunConfig(model=model, data=jaxlm.DataConfig(split=(1, 0, 0), **data), steps=1, batch_size=1)
    corpus = from_lines(TEXT, config.data)
    built = model.filled(corpus.tokenizer.vocab_size, 9).build()
    dataset = Dataset(config, corpus, context=built.context, max_length=None)
    return Evaluator(built, dataset, corpus.tokenizer.bytes_of_token), dataset.rows


MLP = jaxlm.MlpConfig(context=2, d_embed=3, d_hidden=8, init="normal")


@functools.cache
def params_of(model: Any) -> Any:
    built = model.filled(5, 9).build()
    return jax.jit(built.init)(jax.random.key(0), jax.numpy.zeros((1, 2), jax.numpy.int32))


def test_windows_and_sequences_give_one_score():
    params = params_of(MLP)
    scores, terms = [], []
    for data in ({}, {"example": "sequence"}, {"example": "sequence", "max_length": 8, "overlap": True}):
        score, rows = evaluator(data, MLP)
        scores.append(score(params, rows["train"]))
        terms.append(score.per_token(params, rows["train"]))
    for one, nats in zip(scores, terms, strict=True):
        assert (one.tokens, one.bytes, one.impossible) == (45, 46, 0)
        np.testing.assert_allclose(nats, terms[0], atol=1e-5)
        assert one.nats == pytest.approx(float(nats.sum()), rel=1e-6)


def test_many_blocks_are_summed_as_one(monkeypatch):
    params = params_of(MLP)
    score, rows = evaluator({}, MLP)
    whole = score(params, rows["train"])
    terms = score.per_token(params, rows["train"])
    monkeypatch.setattr("jaxlm.inference.evaluation.EVAL_TOKENS", 7)
    score, _ = evaluator({}, MLP)
    blocks = score(params, rows["train"])
    assert blocks.nats == pytest.approx(whole.nats, rel=1e-6)
    assert blocks[1:] == whole[1:]
    np.testing.assert_allclose(score.per_token(params, rows["train"]), terms, atol=1e-6)


@pytest.mark.parametrize("blocks", [0, 2])
def test_an_evaluation_ends_where_it_is_told_to_stop(monkeypatch, blocks):
    monkeypatch.setattr("jaxlm.inference.evaluation.EVAL_TOKENS", 7)
    score, rows = evaluator({}, MLP)
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > blocks

    with pytest.raises(Interrupted):
        score(params_of(MLP), rows["train"], stop)
    assert len(asked) == blocks + 1
    asked.clear()
    blocks = 100
    assert score(params_of(MLP), rows["train"], stop).tokens == 45 and len(asked) == 7


def test_some_rows_and_no_rows():
    params = params_of(MLP)
    score, rows = evaluator({}, MLP)
    terms = score.per_token(params, rows["train"])
    assert score(params, rows["train"][5:9]).nats == pytest.approx(float(terms[5:9].sum()), rel=1e-5)
    nothing = score(params, rows["dev"])
    assert nothing == Score(0.0, 0, 0, 0)
    assert nothing.nats_per_token is None and nothing.bits_per_byte is None and nothing.perplexity is None
    assert score.per_token(params, rows["dev"]).shape == (0,)


@pytest.mark.parametrize("data", [{}, {"example": "sequence"}])
def test_parameters_that_are_no_numbers_give_a_loss_that_is_no_number(data):
    """Their events are not impossible ones, which the loss would leave out."""
    score, rows = evaluator(data, MLP)
    spoilt = score(jax.tree.map(lambda leaf: leaf * math.nan, params_of(MLP)), rows["train"])
    assert math.isnan(spoilt.nats)
    assert spoilt[1:] == (45, 46, 0)


def test_units():
    score = Score(nats=20.0, tokens=8, bytes=10, impossible=0)
    assert score.nats_per_token == pytest.approx(2.5)
    assert score.bits_per_byte == pytest.approx(2.0 / math.log(2))
    assert score.perplexity == pytest.approx(math.exp(2.5))
    assert score.to_json() == {
        "nats_per_token": score.nats_per_token,
        "bits_per_byte": score.bits_per_byte,
        "perplexity": score.perplexity,
        "tokens": 8,
        "bytes": 10,
    }
    assert Score.from_json(score.to_json()) == score


def test_an_impossible_event_leaves_no_loss_but_its_number():
    score = Score(nats=20.0, tokens=8, bytes=10, impossible=2)
    entry = score.to_json()
    assert entry == {
        "nats_per_token": None,
        "bits_per_byte": None,
        "perplexity": None,
        "tokens": 8,
        "bytes": 10,
        "impossible": 2,
    }
    assert Score.from_json(entry).impossible == 2
    line = score.metrics_line(5, "dev", seconds=0.5, time_s=1.0)
    assert line["loss"] is None and line["nats_per_token"] is None and line["bits_per_byte"] is None
    assert line["tokens_per_s"] == 16.0


@pytest.mark.parametrize("nats_per_token", [709.0, 710.0, 1e6])
def test_a_perplexity_that_overflows_is_null(nats_per_token):
    score = Score(nats=nats_per_token * 4, tokens=4, bytes=4, impossible=0)
    entry = score.to_json()
    assert entry["nats_per_token"] == nats_per_token
    assert entry["perplexity"] == (pytest.approx(math.exp(709)) if nats_per_token == 709 else None)
    json.dumps(entry, allow_nan=False)
    assert f"{nats_per_token:.4f} nats/token" in formatting.score_line(score)


def test_a_table_of_tokens_is_as_wide_as_the_longest():
    scored = TextScore(Score(6.0, 3, 13, 0), ["<0x20>", "a", "reservation␣"], np.array([1.0, 2.0, 3.0]))
    head, *rows, _ = formatting.term_by_term(scored).splitlines()
    assert {len(row) for row in rows} == {len(head)}
    assert [row.index("0.") + 8 for row in rows] == [head.index("probability") + 11] * 3


def keys(entry: dict[str, Any]) -> set[str]:
    return set(entry)


def test_eval_json_has_exactly_the_keys_of_the_contract(mlp_run):
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in eval.json")

    result = json.loads((mlp_run.path / "eval.json").read_text(), parse_constant=refuse)
    assert keys(result) == {"train", "dev", "test", "baselines", "params", "step", "steps", "train_time_s"}
    for split in ("train", "dev", "test"):
        assert keys(result[split]) == {"nats_per_token", "bits_per_byte", "perplexity", "tokens", "bytes"}
        assert result[split]["perplexity"] == pytest.approx(math.exp(result[split]["nats_per_token"]))
    assert result["params"] == sum(leaf.size for leaf in jax.tree.leaves(mlp_run.params))
    assert result["steps"] == 20 and 0 < result["step"] <= 20
    assert result["train_time_s"] > 0


def test_an_empty_split_is_null_and_train_is_scored_on_a_part_where_asked(make_run):
    path = make_run(jaxlm.CountsConfig(), data={"split": (0.8, 0.0, 0.2)}, eval=jaxlm.EvalConfig(max_tokens=50))
    result = json.loads((path / "eval.json").read_text())
    test = from_lines("\n".join(NAMES), jaxlm.load_run(path).config.data).lines["test"]
    assert result["dev"] is None
    assert result["train"]["tokens"] == 50
    assert result["test"]["tokens"] == sum(len(line) + 1 for line in test) > 0
    assert result["params"] == sum(leaf.size for leaf in jax.tree.leaves(jaxlm.load_run(path).params))
