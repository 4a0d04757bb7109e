"""word2vec through train: the run directory, resume, refusal, and what it learns."""

import dataclasses
import json
import re
import shutil
from typing import Any

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

import jaxlm
from jaxlm.cli.sample import answer
from jaxlm.cli.sample_command import parse_sample
from jaxlm.plots import __main__ as plots_command
from jaxlm.plots import pictures
from jaxlm.runs import metrics
from jaxlm.runs.directory import RunDir
from jaxlm.training import cadence, train
from jaxlm.training.loop import fit
from jaxlm.training.state import Chunk, TrainState
from jaxlm.word2vec.loading import load_vectors
from jaxlm.word2vec.training import VectorJob

ANIMALS, TOOLS = ("cat", "dog", "cow", "hen"), ("saw", "axe", "hoe", "awl")


def text(sentences=400):
    """Words of two kinds, each of which stands among its own kind's words only."""
    rng = np.random.default_rng(0)
    kinds = ([*ANIMALS, "eats", "runs"], [*TOOLS, "cuts", "digs"])
    return "\n".join(" ".join(rng.choice(kinds[n % 2], 6)) for n in range(sentences)) + "\n"


WORDS = jaxlm.WordsConfig(min_count=2)
MODEL = jaxlm.Word2vecConfig(
    d_embed=8,
    window=2,
    negatives=3,
    shared_negatives=8,
    span=8,
    blocks=2,
    subsample=0.0,
)


def config(tmp_path, model=MODEL, **settings):
    path = tmp_path / "text.txt"
    if not path.exists():
        path.write_text(text())
    defaults: dict[str, Any] = {
        "data": jaxlm.DataConfig(path=str(path), tokens=WORDS, split=(0.8, 0.1, 0.1)),
        "optim": jaxlm.OptimConfig(lr=0.1, schedule="linear", end_factor=0.01),
        "eval": jaxlm.EvalConfig(every=4, log_every=2),
        "checkpoint": jaxlm.CheckpointConfig(every=4),
        "sample": jaxlm.SampleConfig(n=12),
        "steps": 12,
        "batch_size": 512,
        "plots": False,
        "run_dir": str(tmp_path / "run"),
    }
    return jaxlm.RunConfig(model=model, **defaults | settings)


def prepared(made: jaxlm.RunConfig) -> Any:
    """The job of a config, as `train` prepares it."""
    return made.model.prepare(made, restart=False, dry_run=False, log=lambda line: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished skip-gram run."""
    base = tmp_path_factory.mktemp("word2vec")
    made = config(base, steps=60, plots=True)
    said: list[str] = []
    train(made, log=said.append)
    return made, base / "run", said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("eval.json", '"pairs":', '"pairz":'),
        ("eval.json", '"loss":', '"loss": "2", "_":'),
        ("metrics.jsonl", "{", "\x00"),
    ],
)
def test_a_finished_run_with_damaged_results_is_a_line(finished, tmp_path, name, old, new):
    made, path, _ = finished
    run = shutil.copytree(path, tmp_path / "run")
    (run / name).write_text((run / name).read_text().replace(old, new))
    with pytest.raises(jaxlm.UserError, match=re.escape(name)):
        train(dataclasses.replace(made, run_dir=str(run)), log=lambda line: None)


def test_the_run_directory_is_the_contract(finished):
    _, path, said = finished
    result = json.loads((path / "eval.json").read_text())
    V, E = 12, 8
    assert result["params"] == 2 * V * E
    for split in ("train", "dev", "test"):
        assert result[split]["nats_per_token"] is None and result[split]["bits_per_byte"] is None
        assert result[split]["unit"] == "nats/pair" and 0 < result[split]["loss"] < 4 * np.log(2)
    lines = metrics.read(path / "metrics.jsonl")
    assert {line["unit"] for line in lines} == {"nats/pair"}
    assert lines[0]["split"] == "dev" and lines[0]["step"] == 0
    np.testing.assert_allclose(lines[0]["loss"], (1 + 3) * np.log(2), rtol=1e-6)
    assert lines[-1]["step"] == result["steps"]
    assert all(line["tokens_per_s"] > 0 for line in lines)
    assert json.loads((path / "tokenizer.json").read_text())["kind"] == "words"
    assert {"config.json", "fingerprint.json", "checkpoints"} <= {entry.name for entry in path.iterdir()}
    assert any("nats/pair" in line for line in said)
    assert {entry.name for entry in (path / "plots").iterdir()} == {"loss.png", "words.npz", "words.png"}


def test_words_of_a_kind_come_near_to_each_other(finished):
    _, path, _ = finished
    near = dict(line.split(": ") for line in (path / "samples.txt").read_text().splitlines())
    assert len(near) == 12
    assert set(near["cat"].split()[:3]) <= {*ANIMALS, "eats", "runs"}
    assert set(near["saw"].split()[:3]) <= {*TOOLS, "cuts", "digs"}


def test_a_finished_run_is_not_trained_again_and_a_changed_one_is_refused(finished):
    made, path, _ = finished
    said: list[str] = []
    before = (path / "metrics.jsonl").read_bytes()
    train(made, log=said.append)
    assert any("is trained already" in line for line in said)
    assert (path / "metrics.jsonl").read_bytes() == before
    model = jaxlm.Word2vecConfig(**{**MODEL.__dict__, "exponent": 1.0})
    with pytest.raises(jaxlm.UserError, match=r"model.exponent: 0.75, now 1.0"):
        train(jaxlm.RunConfig(**{**made.__dict__, "model": model}), log=said.append)
    text_file = path.parent / "text.txt"
    text_file.write_text(text() + "cat dog\n")
    try:
        with pytest.raises(jaxlm.UserError, match="data has other content"):
            train(made, log=said.append)
    finally:
        text_file.write_text(text())


@pytest.mark.slow
@pytest.mark.parametrize(("predict", "output"), [("skip-gram", "negative-sampling"), ("cbow", "hierarchical-softmax")])
def test_resumed_is_uninterrupted_bit_for_bit(tmp_path, monkeypatch, predict, output):
    plain = jaxlm.Word2vecConfig()
    drawn = (
        {}
        if output == "negative-sampling"
        else {name: getattr(plain, name) for name in ("negatives", "shared_negatives")}
    )
    model = dataclasses.replace(MODEL, predict=predict, output=output, **drawn)
    run_chunk, begun = VectorJob.run_chunk, [0]

    def die(self, state, step, K):
        begun[0] = step
        if step == 7:
            raise KeyboardInterrupt
        return run_chunk(self, state, step, K)

    with monkeypatch.context() as patch:
        patch.setattr(cadence, "CHUNK_SIZES", (1,))
        train(config(tmp_path, model, run_dir=str(tmp_path / "whole")), log=lambda line: None)
        with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
            killed.setattr(VectorJob, "run_chunk", die)
            train(config(tmp_path, model), log=lambda line: None)
        assert begun == [7]
        said: list[str] = []
        train(config(tmp_path, model), log=said.append)
    assert any("resuming" in line and "step 4" in line for line in said)
    whole, resumed = (load_vectors(tmp_path / name, which="last") for name in ("whole", "run"))
    jax.tree.map(np.testing.assert_array_equal, whole.params, resumed.params)
    losses = [
        [(line["step"], line["split"], line["loss"]) for line in metrics.read(tmp_path / name / "metrics.jsonl")]
        for name in ("whole", "run")
    ]
    assert losses[0] == losses[1]


def test_the_reported_loss_is_the_mean_over_pairs_of_all_steps(tmp_path):
    made = config(tmp_path, eval=jaxlm.EvalConfig(log_every=3), steps=3)
    job = prepared(made)
    state, first = job.run_chunk(job.initial_state(), 0, 1)
    state, second = job.run_chunk(state, 1, 2)
    assert first.loss_K.dtype == np.float64
    assert first.weight_K is not None and second.weight_K is not None and second.weight_K.shape == (2,)
    np.testing.assert_allclose(first.loss_K[0], 4 * np.log(2), rtol=2e-2)
    counted = [job.readers["train"].worker_batch(step, worker)[1] for step in range(3) for worker in range(2)]
    assert first.weight_K.sum() + second.weight_K.sum() == sum(one.pairs for one in counted)
    train(made, log=lambda line: None)
    (line,) = [line for line in metrics.read(tmp_path / "run" / "metrics.jsonl") if line["split"] == "train"]
    nats = sum((np.asarray(one.loss_K) * one.weight_K).sum() for one in (first, second))
    np.testing.assert_allclose(line["loss"], nats / sum(one.pairs for one in counted))
    assert sum(one.count_K.sum() for one in (first, second)) == sum(one.words for one in counted)


def test_a_text_without_pairs_has_no_loss_and_that_is_told(tmp_path, capfd):
    (tmp_path / "text.txt").write_text("a a a a a a b b b b b b\n")
    model = dataclasses.replace(MODEL, subsample=1e-9)
    made = config(
        tmp_path, model, data=jaxlm.DataConfig(path=str(tmp_path / "text.txt"), tokens=WORDS, split=(1, 0, 0))
    )
    said: list[str] = []
    train(made, log=said.append)
    assert {line["loss"] for line in metrics.read(tmp_path / "run" / "metrics.jsonl")} == {None}
    assert json.loads((tmp_path / "run" / "eval.json").read_text())["train"] is None
    assert re.fullmatch(r"step 12/12  no loss  [\d,.]+ words/s  00:00 left  [\d.]+ [MG]B\n", capfd.readouterr().err)
    (line,) = [line for line in said if "no pair of words" in line]
    assert "model.subsample" in line and "data.tokens.min_count" in line and "\n" not in line


@pytest.mark.parametrize("empty_first", [True, False])
def test_steps_without_pairs_weigh_nothing_in_the_loss(tmp_path, empty_first, capfd):
    order = slice(None) if empty_first else slice(None, None, -1)
    job = prepared(config(tmp_path, steps=2, eval=jaxlm.EvalConfig(log_every=2)))

    def run_chunk(state: TrainState, step: int, K: int) -> tuple[TrainState, Chunk]:
        losses, weights = np.array([0.0, 3.0])[order], np.array([0, 5])[order]
        ran = slice(step, step + K)
        chunk = Chunk(loss_K=losses[ran], count_K=np.array([9, 9])[ran], lr=0.1, weight_K=weights[ran])
        return state.replace(step=state.step + K), chunk  # type: ignore[attr-defined]

    job.run_chunk = run_chunk
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    fit(job, run, lambda line: None)
    assert [line["loss"] for line in metrics.read(run.metrics) if line["split"] == "train"] == [3.0]
    assert capfd.readouterr().err.startswith("step 2/2  loss 3.0000  ")


def test_other_optimisers_are_refused(tmp_path):
    with pytest.raises(jaxlm.UserError, match="optim wants plain sgd for word2vec"):
        prepared(config(tmp_path, optim=jaxlm.OptimConfig(name="adamw")))


def test_what_has_no_likelihood_is_told(finished):
    with pytest.raises(jaxlm.UserError, match="has vectors of words"):
        jaxlm.load_run(finished[1])


def test_a_run_answers_about_its_words_and_draws_them_in_its_plots(finished, capsys):
    _, path, _ = finished
    answer(parse_sample([str(path), "--similar", "cat", "--top", "3", "--json"]))
    found = [one["word"] for one in json.loads(capsys.readouterr().out)["similar"]]
    near = dict(line.split(": ") for line in (path / "samples.txt").read_text().splitlines())
    assert found == near["cat"].split()[:3]
    answer(parse_sample([str(path), "--plot-words", *ANIMALS, "--checkpoint", "last"]))
    assert capsys.readouterr().out.strip() == f"4 words in {path / 'plots' / 'words-pca.png'}"
    (path / "plots" / "words-pca.png").unlink()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "has vectors of words, which answers --similar"),
        (["-n", "20"], "-n wants the run directory of a language model"),
        (["--score-text", "cat"], "--score-text wants the run directory of a language model"),
    ],
)
def test_a_run_of_words_writes_and_scores_no_text(finished, args, words):
    with pytest.raises(jaxlm.UserError, match=words):
        answer(parse_sample([str(finished[1]), *args]))


def test_pictures_show_the_loss_per_pair_and_can_be_drawn_again(finished, monkeypatch):
    _, path, _ = finished
    figures: list[Any] = []

    class Kept(Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            figures.append(self)

    monkeypatch.setattr(pictures, "Figure", Kept)
    for name in ("words.png", "loss.png"):
        (path / "plots" / name).unlink()
    assert plots_command.main([str(path)]) == 0
    assert {"words.png", "loss.png"} <= {entry.name for entry in (path / "plots").iterdir()}
    (words,), (losses,) = (figure.axes for figure in figures)
    assert {text.get_text() for text in words.texts} == {*ANIMALS, *TOOLS, "eats", "runs", "cuts", "digs"}
    assert losses.get_ylabel() == "nats per pair"
    lines = metrics.read(path / "metrics.jsonl")
    for curve, split in zip(losses.lines, ("train", "dev"), strict=True):
        assert curve.get_ydata().tolist() == [line["loss"] for line in lines if line["split"] == split]


def test_names_that_stand_alone_are_refused_as_a_text():
    with pytest.raises(jaxlm.UserError, match=r"data.path wants a text of sentences .* give --data.path FILE"):
        prepared(jaxlm.RunConfig(model=MODEL, data=jaxlm.DataConfig(tokens=WORDS), steps=1))
