"""The cadence of a run, what training writes when, and which checkpoint counts."""

import dataclasses
import json
import math
from typing import Any

import chex
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxlm
from jaxlm.errors import NonFiniteLoss
from jaxlm.inference.evaluation import Evaluator, Score
from jaxlm.runs import checkpoints, metrics
from jaxlm.runs.directory import RunDir
from jaxlm.training import language
from jaxlm.training.cadence import Cadence
from jaxlm.training.setup import set_up
from tests.conftest import NAMES

MODEL = jaxlm.MlpConfig(d_embed=4, d_hidden=16)
LINE_KEYS = ["step", "split", "loss", "unit", "nats_per_token", "bits_per_byte", "tokens_per_s", "lr", "time_s"]


def config(steps: int, **settings: Any) -> jaxlm.RunConfig:
    return jaxlm.RunConfig(model=MODEL, steps=steps, **settings)


@given(
    steps=st.integers(1, 300_000),
    parameters=st.integers(100, 10**9),
    tokens=st.integers(1, 10**5),
    every=st.none() | st.integers(1, 5000),
    rate=st.floats(1e9, 1e16),
    chunk=st.none() | st.integers(1, 2000),
)
@settings(deadline=None)
def test_cadences_lie_on_the_grid(steps, parameters, tokens, every, rate, chunk):
    evals, saves = jaxlm.EvalConfig(every=every, log_every=every), jaxlm.CheckpointConfig(every=every)
    made = Cadence.of(config(steps, eval=evals, checkpoint=saves), parameters, tokens, rate=rate, chunk=chunk)
    assert made.chunk == chunk if chunk else 1 <= made.chunk <= steps
    assert made.steps == steps
    for found in (made.log_every, made.eval_every, made.save_every):
        assert found > 0 and found % made.chunk == 0
        if every is not None:
            assert every <= found < every + made.chunk
    for due, found in ((made.logs, made.log_every), (made.evaluates, made.eval_every), (made.saves, made.save_every)):
        assert due(steps) and due(found)
        assert found == 1 or not due(found - 1) or found - 1 == steps


@given(steps=st.integers(1, 3000), chunk=st.integers(1, 300), start=st.integers(0, 3000))
@settings(deadline=None)
def test_the_chunks_of_a_run_end_at_its_grid_wherever_it_begins(steps, chunk, start):
    """A resumed run meets every point of the grid from its first step on, and the last step."""
    made, step, ends = Cadence(steps, chunk, chunk, chunk, chunk), min(start, steps), []
    while step < steps:
        step += made.size_at(step)
        ends.append(step)
    first = min(start, steps)
    assert {end for end in range(first + 1, steps + 1) if end % chunk == 0} <= set(ends)
    assert not ends or ends[-1] == steps
    assert len(ends) <= (steps - first) // chunk + 2 * chunk


def test_the_chunk_divides_usual_lengths_and_grows_with_smaller_models():

    def of(steps: int, parameters: int, tokens: int, rate: float = 2e10) -> Cadence:
        return Cadence.of(config(steps), parameters, tokens, rate=rate)

    assert of(200_000, 12_000, 32).chunk == 1000
    assert of(3_500, 12_000, 32).chunk == 500
    assert of(300, 729, 200_000).chunk == 10
    assert of(300, 729, 200_000, rate=2e13).chunk == 20  # the batches of a chunk lie in memory together
    assert of(100, 10**9, 10**4).chunk == 1
    assert of(1000, 10**7, 10**4, rate=2e13).chunk == 10
    for steps in (100, 1000, 5000, 20_000, 200_000):
        assert steps % of(steps, 12_000, 32).chunk == 0
    made = of(200_000, 12_000, 32)
    assert (made.log_every, made.eval_every, made.save_every) == (2000, 20_000, 20_000)


@pytest.mark.parametrize(
    ("steps", "batch_tokens", "eval_tokens", "early", "early_chunk"),
    [
        (200_000, 32, 45_000, (5000, 10_000), None),  # as many as cost little
        (200_000, 32, 1_300, (200, 600, 1000, 2000, 5000, 10_000), 200),  # a small file
        (200_000, 32, 10**7, (), None),
        (100, 32, 1_300, (20, 40), 20),
        (39, 32, 1_300, (), None),
        (300, 200_000, 45_000, (), None),
        (3_000, 200_000, 45_000, (37, 75, 150), None),
    ],
)
def test_early_evaluations_lie_on_a_grid_that_doubles(steps, batch_tokens, eval_tokens, early, early_chunk):
    made = Cadence.of(config(steps), 12_000, batch_tokens, rate=2e10, eval_tokens=eval_tokens)
    assert (made.early, made.early_chunk) == (early, early_chunk)
    assert [step for step in range(1, steps + 1) if made.evaluates(step)] == [
        *early,
        *(step for step in range(made.eval_every, steps + 1, made.eval_every)),
        *([steps] if steps % made.eval_every else []),
    ]


@given(
    steps=st.integers(1, 20_000),
    parameters=st.integers(100, 10**8),
    tokens=st.integers(1, 10**4),
    every=st.none() | st.integers(1, 5000),
    eval_tokens=st.integers(0, 10**6),
)
@settings(deadline=None, max_examples=50)
def test_early_evaluations_are_at_ends_of_chunks_and_saved_where_all_are(steps, parameters, tokens, every, eval_tokens):
    evals = jaxlm.EvalConfig(every=every)
    made = Cadence.of(config(steps, eval=evals), parameters, tokens, rate=2e10, eval_tokens=eval_tokens)
    step, ends = 0, set[int]()
    while step < steps:
        step += made.size_at(step)
        ends.add(step)
    assert {point for point in made.early if point <= steps} <= ends
    assert all(made.evaluates(point) and made.saves(point) for point in made.early)
    assert list(made.early) == sorted(made.early) and all(0 < point <= made.eval_every / 2 for point in made.early)
    cost = len(made.early) * 2 * parameters * eval_tokens
    assert cost <= max(0.005 * 6 * parameters * tokens * steps, 2.5e9)
    seldom = Cadence.of(
        config(steps, eval=evals, checkpoint=jaxlm.CheckpointConfig(every=2 * made.eval_every)),
        parameters,
        tokens,
        rate=2e10,
        chunk=made.chunk,
        eval_tokens=eval_tokens,
    )
    assert seldom.early == made.early and not any(seldom.saves(point) for point in made.early if point != steps)


def test_what_is_due_is_decided_by_the_step_alone():
    made = Cadence(steps=23, chunk=5, log_every=5, eval_every=10, save_every=15)
    assert [step for step in range(1, 24) if made.logs(step)] == [5, 10, 15, 20, 23]
    assert [step for step in range(1, 24) if made.evaluates(step)] == [10, 20, 23]
    assert [step for step in range(1, 24) if made.saves(step)] == [15, 23]


def test_metrics_are_written_at_the_start_at_each_cadence_and_at_the_end(make_run):
    """80 steps run in chunks of 20."""
    path = make_run(steps=80, eval=jaxlm.EvalConfig(every=40, log_every=20))
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    dev, train = ([line for line in lines if line["split"] == split] for split in ("dev", "train"))
    assert [line["step"] for line in dev] == [0, 20, 40, 80]
    assert [line["step"] for line in train] == [20, 40, 60, 80]
    for line in lines:
        assert list(line) == LINE_KEYS
        assert line["unit"] == "nats/token"
        assert line["loss"] == line["nats_per_token"] > 0
        assert line["tokens_per_s"] > 0
        assert line["lr"] == (pytest.approx(0.1) if line["split"] == "train" else None)
    assert [line["time_s"] for line in lines] == sorted(line["time_s"] for line in lines)
    assert dev[0]["bits_per_byte"] == pytest.approx(dev[0]["nats_per_token"] / math.log(2))
    assert dev[-1]["nats_per_token"] < dev[0]["nats_per_token"]
    seldom = metrics.read(RunDir(make_run(name="seldom", steps=80, eval=jaxlm.EvalConfig(log_every=40))).metrics)
    mean = [line["loss"] for line in train]
    assert [line["loss"] for line in seldom if line["split"] == "train"] == pytest.approx(
        [(mean[0] + mean[1]) / 2, (mean[2] + mean[3]) / 2], rel=1e-6
    )


def test_the_steps_off_the_grid_are_run_too(make_run):
    """23 steps: a chunk of 20, then one by one."""
    path = make_run(steps=23, eval=jaxlm.EvalConfig(every=10, log_every=5))
    lines = metrics.read(RunDir(path).metrics)
    assert [line["step"] for line in lines if line["split"] == "dev"] == [0, 20, 23]
    assert [line["step"] for line in lines if line["split"] == "train"] == [20, 23]
    assert jaxlm.load_run(path, which="last").step == 23


def test_training_is_a_function_of_the_seed(make_run, mlp_run):
    same, other = (jaxlm.load_run(make_run(name=f"seed{seed}", seed=seed)).params for seed in (0, 1))
    chex.assert_trees_all_equal(same, mlp_run.params)
    assert bool((other["embed"] != mlp_run.params["embed"]).any())


def test_the_best_checkpoint_counts_where_the_last_is_worse(make_run):
    """The learning rate rises at half of the run until the dev loss rises too; only the last two are kept."""
    worse = jaxlm.OptimConfig(lr=0.3, schedule="piecewise", boundaries=(0.5,), factors=(20,))
    path = make_run(
        steps=40,
        optim=worse,
        eval=jaxlm.EvalConfig(every=20),
        checkpoint=jaxlm.CheckpointConfig(keep=1),
    )
    lines = metrics.read(RunDir(path).metrics)
    dev = {line["step"]: line["loss"] for line in lines if line["split"] == "dev" and line["step"] > 0}
    best_step = min(dev, key=lambda step: dev[step])
    assert 0 < best_step < 40 and dev[40] > dev[best_step] + 0.1
    best, last = jaxlm.load_run(path), jaxlm.load_run(path, which="last")
    assert (best.step, last.step) == (best_step, 40)
    assert [one.step for one in checkpoints.saved(path / "checkpoints")] == [best_step, 40]
    result = json.loads((path / "eval.json").read_text())
    assert (result["step"], result["steps"]) == (best_step, 40)
    assert result["dev"]["nats_per_token"] == pytest.approx(dev[best_step], abs=1e-6)
    text = "\n".join(NAMES)
    assert jaxlm.score(best, text).nats_per_token != jaxlm.score(last, text).nats_per_token


def test_a_run_whose_last_checkpoint_is_its_best_is_scored_with_it(make_run):
    path = make_run(steps=10)
    assert jaxlm.load_run(path).step == 10
    dev = [line["loss"] for line in metrics.read(RunDir(path).metrics) if line["split"] == "dev"]
    result = json.loads((path / "eval.json").read_text())
    assert result["step"] == 10 and dev[0] != dev[-1]
    assert result["dev"]["nats_per_token"] == pytest.approx(dev[-1], abs=1e-6)


@pytest.mark.parametrize("model, times", [(MODEL, 2), (jaxlm.CountsConfig(order=2), 1)], ids=["mlp", "counts"])
def test_dev_is_scored_at_its_points_and_every_split_at_the_end(make_run, monkeypatch, model, times):
    """At the start and the end, or the counts; then for eval.json."""
    scored, score = [], Evaluator.__call__

    def noting(self: Evaluator, params: Any, row_R: np.ndarray, *rest: Any) -> Score:
        scored.append(tuple(row_R))
        return score(self, params, row_R, *rest)

    monkeypatch.setattr(Evaluator, "__call__", noting)
    path = make_run(model, steps=10)
    rows = set_up(RunDir(path).read_config()).dataset.rows
    assert scored.count(tuple(rows["dev"])) == times + 1
    assert scored.count(tuple(rows["test"])) == scored.count(tuple(rows["train"])) == 1
    assert scored[-3:] == [tuple(rows[split]) for split in ("train", "dev", "test")]
    assert json.loads((path / "eval.json").read_text())["dev"]["tokens"] == len(rows["dev"])


@pytest.mark.parametrize("example", ["window", "sequence"])
def test_the_predictions_of_train_that_eval_json_reads_are_bounded(make_run, example):
    evals = jaxlm.EvalConfig(max_tokens=60)
    data = {"example": example} | ({"max_length": 15} if example == "sequence" else {})
    path = make_run(steps=2, eval=evals, data=data)
    result = json.loads((path / "eval.json").read_text())
    corpus = set_up(RunDir(path).read_config()).corpus
    assert corpus.size("train") > 200
    assert {split: result[split]["tokens"] for split in ("dev", "test")} == {
        split: corpus.size(split) for split in ("dev", "test")
    }
    assert result["train"]["tokens"] == 60 if example == "window" else 4 <= result["train"]["tokens"] < 60


@pytest.mark.parametrize(
    ("split", "predictions", "most"),
    [((0.5, 0.5, 0.0), 100, 100), ((1.0, 0.0, 0.0), 10_000, 50)],
    ids=["dev", "train without a dev split"],
)
def test_an_evaluation_during_training_is_bounded_in_predictions(tmp_path, monkeypatch, split, predictions, most):
    """Sequences of ten predictions: not so many rows."""
    monkeypatch.setattr(language, "MOST_EVALUATED", predictions)
    monkeypatch.setattr(language, "TRAIN_SAMPLE", most)
    (tmp_path / "text.txt").write_text("abcde" * 200)
    data = jaxlm.DataConfig(
        path=str(tmp_path / "text.txt"), kind="stream", example="sequence", max_length=10, split=split
    )
    made = jaxlm.RunConfig(model=jaxlm.NgramConfig(order=2), data=data, steps=1, batch_size=2)
    job: Any = made.model.prepare(made, restart=False, dry_run=True, log=lambda line: None)
    scores = job.evaluate(job.initial_state().params)
    assert {name: score.tokens for name, score in scores.items()} == (
        {"dev": most, "train_sample": most} if split[1] else {"train_sample": most}
    )


@pytest.mark.parametrize("split", [(1.0, 0.0, 0.0), (0.99, 0.005, 0.005)])
def test_patience_without_a_dev_split_is_refused(tmp_path, split):
    (tmp_path / "text.txt").write_text("\n".join(NAMES))
    data = jaxlm.DataConfig(path=str(tmp_path / "text.txt"), split=split)
    with pytest.raises(jaxlm.UserError, match=r"^eval\.patience wants a dev split, .* got none"):
        set_up(config(10, data=data, eval=jaxlm.EvalConfig(patience=3)))


def test_patience_has_no_effect_on_counts():
    with pytest.raises(jaxlm.UserError, match=r"eval\.patience 3 has no effect with a CountsConfig"):
        jaxlm.RunConfig(model=jaxlm.CountsConfig(), eval=jaxlm.EvalConfig(patience=3))


def test_a_rate_far_too_high_is_a_failure_and_saves_nothing(make_run, tmp_path):
    """The loss stays a number."""
    with pytest.raises(NonFiniteLoss, match=r"^the loss, 3\.\d+ at the start, is \d.* no checkpoint .* --optim\.lr"):
        make_run(steps=40, optim=jaxlm.OptimConfig(lr=1e6))
    assert not (tmp_path / "run" / "eval.json").exists() and not checkpoints.saved(tmp_path / "run" / "checkpoints")


def test_counts_are_one_step_whatever_steps_says(make_run):
    path = make_run(jaxlm.CountsConfig(order=2), steps=5)
    result = json.loads((path / "eval.json").read_text())
    assert (result["step"], result["steps"], jaxlm.load_run(path).step) == (1, 1, 1)


def test_without_a_dev_split_the_last_checkpoint_counts(make_run):
    path = make_run(steps=10, data={"split": (1.0, 0.0, 0.0)}, eval=jaxlm.EvalConfig(every=2))
    assert jaxlm.load_run(path).step == 10
    assert {line["split"] for line in metrics.read(RunDir(path).metrics)} <= {"train", "train_sample"}


def test_a_loss_that_is_no_number_names_its_step(make_run, tmp_path):
    """The first loss is finite; the update after it is not to be survived."""
    evals = jaxlm.EvalConfig(every=40, log_every=1)
    with pytest.raises(NonFiniteLoss, match=r"at step [2-4] of 40; no checkpoint was saved"):
        make_run(steps=40, optim=jaxlm.OptimConfig(lr=1e38), eval=evals)
    assert not (tmp_path / "run" / "eval.json").exists()


def test_a_later_failure_names_the_checkpoint_to_go_back_to(make_run, tmp_path):
    explodes = jaxlm.OptimConfig(lr=0.1, schedule="piecewise", boundaries=(20,), factors=(1e38,))
    with pytest.raises(NonFiniteLoss, match=r"at step (2\d|3\d|40) of 40; the last good checkpoint is step 20"):
        make_run(steps=40, optim=explodes, eval=jaxlm.EvalConfig(every=20))
    assert [one.step for one in checkpoints.saved(tmp_path / "run" / "checkpoints")] == [20]


def test_epochs_are_turned_into_steps(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(NAMES))
    data = jaxlm.DataConfig(path=str(tmp_path / "text.txt"))
    job = set_up(jaxlm.RunConfig(model=MODEL, data=data, epochs=2.0, batch_size=16))
    tokens = sum(len(line) + 1 for line in job.corpus.lines["train"])
    assert job.config.steps == math.ceil(2 * tokens / 16)
    assert job.config.epochs is None


def test_a_run_can_start_from_the_parameters_of_another(make_run, mlp_run):
    path = make_run(name="second", init_from=str(mlp_run.path), steps=1, optim=jaxlm.OptimConfig(lr=1e-9))
    chex.assert_trees_all_close(jaxlm.load_run(path).params, mlp_run.params, atol=1e-6)
    F, V = MODEL.d_hidden, mlp_run.tokenizer.vocab_size
    with pytest.raises(jaxlm.UserError, match=rf"; out is {V} x {F} there, {V} x 8 here") as told:
        make_run(dataclasses.replace(MODEL, d_hidden=8), name="third", init_from=str(mlp_run.path))
    assert "embed is" not in str(told.value)
    with pytest.raises(jaxlm.UserError, match=r"init_from wants a run of a GptConfig, as this is, got '.*' of a MlpC"):
        make_run(jaxlm.GptConfig(), name="third", init_from=str(mlp_run.path), data={"example": "sequence"})


@pytest.mark.parametrize(
    ("start", "text", "message"),
    [
        ("nobody", "emma", "^init_from: run '.*nobody' does not exist"),
        (None, "Éva", "^init_from: line 1, column 1: the character 'É'"),
    ],
)
def test_what_a_run_cannot_start_from_is_named(mlp_run, tmp_path, start, text, message):
    (tmp_path / "text.txt").write_text(text)
    data = jaxlm.DataConfig(path=str(tmp_path / "text.txt"))
    with pytest.raises(jaxlm.UserError, match=message):
        set_up(jaxlm.RunConfig(model=MODEL, data=data, steps=1, init_from=start or str(mlp_run.path)))


@pytest.mark.parametrize("model", [jaxlm.GptConfig(), jaxlm.RnnConfig(), jaxlm.BowConfig()])
def test_a_model_that_reads_from_the_start_is_not_trained_on_windows(tmp_path, model):
    (tmp_path / "text.txt").write_text("\n".join(NAMES))
    data = jaxlm.DataConfig(path=str(tmp_path / "text.txt"))
    with pytest.raises(jaxlm.UserError, match=f"data.example wants sequence for a {type(model).__name__}"):
        set_up(jaxlm.RunConfig(model=model, data=data, steps=1))
