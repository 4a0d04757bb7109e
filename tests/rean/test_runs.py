"""REAN's runs: constants stored once, a likelihood fitted to train, exact resumes, vectors given or trained first."""

import dataclasses
import fcntl
import json
import re
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxlm
from jaxlm import lr_range, training
from jaxlm.data.corpus import from_dialogues, load
from jaxlm.devices.mesh import make_mesh, state_sharding
from jaxlm.errors import Stopped
from jaxlm.inference.generate import by_vector
from jaxlm.models.base import BUFFERS, with_buffers
from jaxlm.rean.training import vectors_recipe
from jaxlm.runs import checkpoints
from jaxlm.runs.create import claimed
from jaxlm.runs.directory import RunDir, write_json
from jaxlm.sweep import Variant, named, sweep
from jaxlm.tokenizers import ReanTokenizer, visible
from jaxlm.tokenizers.rean_tokens import pieces
from jaxlm.training import cadence, train
from jaxlm.training.language import LanguageJob
from jaxlm.word2vec.corpus import of_tokens
from jaxlm.word2vec.loading import load_vectors
from jaxlm.word2vec.training import VectorJob
from tests.conftest import write_run
from tests.processes import tree

TEXT = "\n\n".join(f"human: what is {i % 7}?\nnetwork: it is {i % 7} of {i % 3}." for i in range(40))
DATA: dict[str, Any] = {
    "kind": "dialogues",
    "tokens": jaxlm.ReanTokensConfig(min_count=1),
    "example": "sequence",
    "max_length": 16,
}
SIZES: dict[str, Any] = {"n_layers": 1, "n_heads": 2, "d_model": 16, "d_embed": 8}
SETTINGS: dict[str, Any] = {
    "text": TEXT,
    "data": DATA,
    "optim": jaxlm.OptimConfig(name="adamw", lr=0.01),
    "steps": 10,
    "plots": False,
    "sample": jaxlm.SampleConfig(n=0),
}
WORD2VEC = jaxlm.VectorsConfig(
    model=jaxlm.Word2vecConfig(span=8, blocks=1, workers=1, negatives=2, shared_negatives=4), epochs=1.5, batch_size=64
)
CHAIN = jaxlm.ReanConfig(
    objective="contrastive", negatives=4, table="tuned", vectors_from=WORD2VEC, rows="unit", **SIZES
)
GIVEN = ("human", "network", ":", "what", "is", "it", "of", "unknown")


def stop(patch: pytest.MonkeyPatch, *, vectors: bool) -> None:
    """Send a signal in the first chunk of the vectors' training, or of the training that follows it."""
    job: Any = VectorJob if vectors else LanguageJob
    run_chunk = job.run_chunk

    def stopped(self: Any, *args: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return run_chunk(self, *args)

    patch.setattr(job, "run_chunk", stopped)


def prepared(config: jaxlm.RunConfig, **options: Any) -> Any:
    """The job of a config, as `train` prepares it."""
    return config.model.prepare(config, **{"restart": False, "dry_run": False, "log": lambda line: None, **options})


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A run on vectors of its own, trained in steps of five."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cadence, "CHUNK_SIZES", (5,))
        return write_run(tmp_path_factory.mktemp("chain"), CHAIN, name="whole", **SETTINGS)


def settings(directory: Path, model: jaxlm.ModelConfig, **changed: Any) -> jaxlm.RunConfig:
    text = directory / "text.txt"
    text.write_text(TEXT)
    rest = {name: value for name, value in SETTINGS.items() if name not in ("text", "data")}
    data = jaxlm.DataConfig(path=str(text), **DATA)
    return jaxlm.RunConfig(model=model, data=data, run_dir=str(directory / "run"), **{**rest, **changed})


@pytest.mark.parametrize("spelled", ["{place}/", "{place}/.", ".", "./", "{place}/x/.."])
def test_vectors_stand_beside_their_run_however_it_is_spelled(tmp_path, monkeypatch, spelled):
    (tmp_path / "run" / "x").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run")
    config = dataclasses.replace(settings(tmp_path, CHAIN), run_dir=spelled.format(place=tmp_path / "run"))
    assert vectors_recipe(config).run_dir == str(tmp_path / "run_vectors")


@pytest.fixture
def vectors(tmp_path):
    """A file in word2vec's text format, whose words have no white space behind them."""
    row_VE = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    path = tmp_path / "vectors.txt"
    jaxlm.Embeddings(GIVEN, row_VE).save(path)
    return path


@pytest.mark.slow
def test_a_run_keeps_its_table_once_and_tells_its_loss_apart_from_the_likelihood(chain):
    run = jaxlm.load_run(chain)
    result = json.loads((chain / "eval.json").read_text())
    kept = RunDir(chain).read_buffers()
    assert result["buffers"] == sum(array.size for array in kept.values())
    assert result["params"] == sum(leaf.size for name, leaf in run.params.items() if name != BUFFERS)
    assert kept["vectors"].shape == (run.tokenizer.vocab_size - 257, 8)
    lies = partial(state_sharding, make_mesh(), axes={})
    saved = checkpoints.load_params(chain / "checkpoints", checkpoints.saved(chain / "checkpoints")[-1], lies)
    assert saved is not None
    assert BUFFERS not in saved
    lines = [json.loads(line) for line in (chain / "metrics.jsonl").read_text().splitlines()]
    assert {(line["split"], line["unit"]) for line in lines} == {
        ("train", "nats/choice"),
        ("dev", "nats/token"),
        ("train_sample", "nats/token"),
    }
    assert all(line["nats_per_token"] is None for line in lines if line["split"] == "train")
    assert float(run.params["theta"]) != CHAIN.scale
    score = jaxlm.score(run, TEXT)
    assert score.nats_per_token is not None
    assert score.total.bytes == len(TEXT) + 2


def test_vectors_are_trained_first_on_the_tokens_of_train_alone(chain):
    first = load_vectors(f"{chain}_vectors")
    run = jaxlm.load_run(chain)
    assert first.tokenizer.words == run.tokenizer.words
    train_lines = from_dialogues(TEXT, jaxlm.DataConfig(**DATA)).lines["train"]
    cut = [piece for line in train_lines for piece in pieces(line)]
    assert first.tokenizer.counts == tuple(map(cut.count, first.tokenizer.words))
    row_VE = np.asarray(first.params["input"])
    unit_VE = row_VE / np.linalg.norm(row_VE, axis=1, keepdims=True)
    np.testing.assert_allclose(run.params[BUFFERS]["vectors"], unit_VE, rtol=1e-5)


@pytest.mark.slow
def test_a_chain_that_is_stopped_in_either_part_goes_on_to_the_uninterrupted_one(chain, tmp_path, monkeypatch):
    monkeypatch.setattr(cadence, "CHUNK_SIZES", (5,))
    for vectors in (True, False):
        with monkeypatch.context() as patch, pytest.raises(Stopped) as stopped:
            stop(patch, vectors=vectors)
            write_run(tmp_path, CHAIN, **SETTINGS)
        assert stopped.value.step == 5
        assert (tmp_path / "run").exists() != vectors
        assert (tmp_path / "run_vectors" / "eval.json").exists() != vectors
    part, whole = jaxlm.load_run(write_run(tmp_path, CHAIN, **SETTINGS)), jaxlm.load_run(chain)
    assert part.step == whole.step
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(part.params), strict=True):
        np.testing.assert_array_equal(a, b)
    other = dataclasses.replace(CHAIN, vectors_from=dataclasses.replace(WORD2VEC, epochs=2.0))
    with pytest.raises(jaxlm.UserError, match=r"run' belongs to other .*: model.vectors_from.epochs: 1.5, now 2.0\."):
        write_run(tmp_path, other, **SETTINGS)


@pytest.mark.slow
@pytest.mark.parametrize("vectors", [True, False])
def test_a_restart_renames_both_runs_and_goes_on_without_it_where_it_was_stopped(chain, tmp_path, monkeypatch, vectors):
    for ending in ("", "_vectors"):
        shutil.copytree(f"{chain}{ending}", tmp_path / f"run{ending}")
    config = settings(tmp_path, CHAIN, batch_size=8)
    monkeypatch.setattr(cadence, "CHUNK_SIZES", (5,))
    said: list[str] = []
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop(patch, vectors=vectors)
        train(config, restart=True, log=said.append)
    assert [line for line in said if "renamed" in line] == [
        f"{tmp_path}/{name} is renamed to {tmp_path}/{name}.old" for name in ("run", "run_vectors")
    ]
    for ending in ("", "_vectors"):
        assert RunDir(tmp_path / f"run{ending}.old").read_eval() == RunDir(Path(f"{chain}{ending}")).read_eval()
    said.clear()
    train(config, log=said.append)
    stopped = tmp_path / ("run_vectors" if vectors else "run")
    assert f"resuming {stopped} at step 5" in said and not any("renamed" in line for line in said)
    assert RunDir(tmp_path / "run").read_eval()["dev"] == RunDir(chain).read_eval()["dev"]


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("others", [True, False])
def test_a_run_that_has_begun_needs_its_vectors_no_more(chain, tmp_path, done, others):
    """They are gone, or those of other settings, which a restart leaves that failed after them."""
    run = RunDir(Path(shutil.copytree(chain, tmp_path / "run")))
    result = run.read_eval()
    if not done:
        run.eval.unlink()
    vectors = RunDir(tmp_path / "run_vectors")
    if others:
        shutil.copytree(f"{chain}_vectors", vectors.path)
        found = vectors.read_fingerprint()
        write_json(vectors.fingerprint, {**found, "settings": {**found["settings"], "steps": 1}})
    before = tree(vectors.path)
    write_run(tmp_path, CHAIN, **SETTINGS)
    assert run.read_eval()["dev"] == result["dev"]
    assert tree(vectors.path) == before


def test_a_run_whose_constants_are_damaged_has_them_made_anew_from_its_vectors(chain, tmp_path):
    for ending in ("", "_vectors"):
        shutil.copytree(f"{chain}{ending}", tmp_path / f"run{ending}")
    run = RunDir(tmp_path / "run")
    run.eval.unlink()
    run.buffers.write_bytes(b"")
    write_run(tmp_path, CHAIN, **SETTINGS)
    np.testing.assert_array_equal(run.read_buffers()["vectors"], RunDir(chain).read_buffers()["vectors"])


def variants(directory: Path, model: jaxlm.ModelConfig) -> list[Variant]:
    """Two runs of a sweep that differ in their learning rates."""
    optims = [jaxlm.OptimConfig(name="adamw", lr=lr) for lr in (0.01, 0.02)]
    configs = [settings(directory, model, batch_size=8, optim=optim) for optim in optims]
    return named([Variant({"optim.lr": config.optim.lr}, config) for config in configs])


@pytest.fixture
def swept(chain, tmp_path, monkeypatch):
    """Two runs of a sweep and their vectors, finished; none is trained again."""
    runs = variants(tmp_path, CHAIN)
    for run in runs:
        for ending in ("", "_vectors"):
            shutil.copytree(f"{chain}{ending}", f"{run.config.run_dir}{ending}")
    monkeypatch.setattr(training, "train", lambda config, **rest: None)
    return runs


@pytest.mark.parametrize("ending", ["", "_vectors"])
def test_a_sweep_renames_nothing_where_one_of_its_directories_is_in_use(swept, tmp_path, ending):
    used = f"{swept[-1].config.run_dir}{ending}"
    before = tree(tmp_path)
    with RunDir(Path(used)).lock.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(jaxlm.UserError, match=f"{used}' is in use"):
            sweep(swept, restart=True)
    assert tree(tmp_path) == before


def test_a_sweep_restarts_the_vectors_too_with_other_settings(swept, tmp_path, monkeypatch):
    longer = dataclasses.replace(CHAIN, vectors_from=dataclasses.replace(WORD2VEC, epochs=3.0))
    runs = variants(tmp_path, longer)
    before = tree(tmp_path)
    with pytest.raises(jaxlm.UserError, match=r"0\.01' belongs to other .*model\.vectors_from\.epochs: 1\.5, now 3"):
        sweep(runs)
    assert tree(tmp_path) == before
    trained: list[str | None] = []
    monkeypatch.setattr(training, "train", lambda config, **rest: trained.append(config.run_dir))
    with pytest.raises(jaxlm.UserError, match=r"is missing|does not exist|cannot be read"):
        sweep(runs, restart=True)  # the results of runs that this test does not train
    for path in [f"{run.config.run_dir}{ending}" for run in runs for ending in ("", "_vectors")]:
        assert not Path(path).exists() and RunDir(Path(f"{path}.old")).eval.exists()
    assert trained == [runs[0].config.run_dir]


@pytest.mark.parametrize("restart", [False, True])
def test_no_vectors_are_trained_where_the_run_itself_could_not_be(chain, tmp_path, restart):
    shutil.copytree(chain, tmp_path / "run")
    with (tmp_path / "run" / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(jaxlm.UserError, match="run' is in use"):
            train(settings(tmp_path, CHAIN), restart=restart)
    assert not (tmp_path / "run_vectors").exists()


def test_a_dry_run_trains_no_vectors_and_writes_nothing(tmp_path):
    said: list[str] = []
    train(settings(tmp_path, CHAIN), dry_run=True, log=said.append)
    assert [line.split(":")[0] for line in said if line.startswith(("first", "param", "buffers"))] == [
        f"first the vectors, in {tmp_path / 'run_vectors'}", "parameters", "parameters", "buffers"
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_vectors_come_from_a_file_and_another_file_is_another_run(tmp_path, vectors):
    config = settings(tmp_path, jaxlm.ReanConfig(table="frozen", vectors=str(vectors), rows="unit", **SIZES))
    job = prepared(config)
    word = job.data.tokenizer.encode("what ")[0]
    given = jaxlm.Embeddings.load(vectors)["what"]
    row_VE = job.buffers["vectors"]
    np.testing.assert_allclose(row_VE[word - 257], given / np.linalg.norm(given), rtol=1e-5)
    assert not row_VE[job.data.tokenizer.encode("?")[0] - 257].any()
    with claimed(job.config, job.data, buffers=job.buffers) as (_, state):
        assert state == "new"
    jaxlm.Embeddings(("what",), np.ones((1, 8))).save(vectors)
    job = prepared(config)
    with (
        pytest.raises(jaxlm.UserError, match="buffers has other content"),
        claimed(job.config, job.data, buffers=job.buffers),
    ):
        pass


def test_vectors_come_from_a_run_of_word2vec_with_the_white_space_of_its_words(chain, tmp_path):
    config = settings(tmp_path, jaxlm.ReanConfig(table="frozen", vectors=f"{chain}_vectors", rows="unit", **SIZES))
    kept = RunDir(chain).read_buffers()
    np.testing.assert_array_equal(prepared(config).buffers["vectors"], kept["vectors"])


def test_a_run_that_began_from_another_keeps_its_vectors_when_that_is_gone(chain, tmp_path):
    first = tmp_path / "first"
    shutil.copytree(chain, first)
    config = settings(tmp_path, CHAIN, init_from=str(first))
    job = prepared(config)
    with claimed(job.config, job.data, buffers=job.buffers) as (run, _):
        run.eval.write_text("{}")
    shutil.rmtree(first)
    later = prepared(config)
    assert later.data.tokenizer == job.data.tokenizer and not (tmp_path / "run_vectors").exists()
    kept = RunDir(chain).read_buffers()
    assert kept.keys() == later.buffers.keys()
    for name, array in kept.items():
        np.testing.assert_array_equal(later.buffers[name], array)
    with pytest.raises(jaxlm.UserError, match=r"init_from: run '.*first' does not exist"):
        prepared(config, restart=True)


def test_the_samples_of_vectors_show_the_white_space_of_their_words(chain):
    run = RunDir(Path(f"{chain}_vectors"))
    shown = {word for line in run.samples.read_text().splitlines() for word in line.replace(": ", " ", 1).split(" ")}
    assert {"is␣", "what␣"} <= shown <= set(map(visible, run.read_words().words))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), r"model\.vectors: .* does not exist"),
        (lambda path: path.write_text("no vectors\n"), r"model\.vectors: .*"),
        (lambda path: jaxlm.Embeddings(("what",), np.ones((1, 3))).save(path), r"model\.d_embed wants 3"),
        (lambda path: jaxlm.Embeddings(("elsewhere",), np.ones((1, 8))).save(path), r"model\.vectors wants .* none of"),
    ],
)
def test_a_vectors_file_that_cannot_be_used_is_told_in_a_line(tmp_path, vectors, change, message):
    change(vectors)
    with pytest.raises(jaxlm.UserError, match=message):
        prepared(settings(tmp_path, jaxlm.ReanConfig(table="tuned", vectors=str(vectors), **SIZES)))


def test_decoding_by_vector_takes_the_nearest_or_says_that_none_is(tmp_path, vectors):
    config = settings(tmp_path, jaxlm.FaithfulReanConfig(vectors=str(vectors), d_embed=8, n_layers=1, n_heads=2))
    job = prepared(config)
    model: Any = job.setup.model
    params = with_buffers(jax.jit(model.init)(jax.random.key(0), np.zeros((1, 1), np.int32)), job.buffers)
    run = by_vector(jaxlm.Run(tmp_path, job.config, job.data.tokenizer, model, params, 0))

    def said(run: jaxlm.Run) -> str:
        return jaxlm.generate(run, prompt="human: what ", key=jax.random.key(0), max_tokens=4)[0]

    known = ["human", "network", ": ", "what ", "is ", "it ", "of "]
    nearest = said(run)
    assert nearest.startswith("human: what ")
    assert re.sub("|".join(known), "", nearest.removesuffix("[NIV]")) == ""
    nowhere = {**params, BUFFERS: {**params[BUFFERS], "inverse_norm": np.zeros(model.vocab_size, np.float32)}}
    assert said(dataclasses.replace(run, params=nowhere)) == "human: what [NIV]"


def test_decoding_by_vector_wants_vectors(counts_run):
    with pytest.raises(jaxlm.UserError, match="--by-vector wants a REAN run, got CountsConfig"):
        by_vector(counts_run)


def test_vectors_are_given_or_trained_and_only_for_a_table_that_wants_them():
    with pytest.raises(jaxlm.UserError, match=r"model\.vectors and model\.vectors_from exclude each other"):
        jaxlm.ReanConfig(table="tuned", vectors="f", vectors_from=jaxlm.VectorsConfig())
    with pytest.raises(jaxlm.UserError, match=r"wants to be set for model\.table frozen or tuned"):
        jaxlm.ReanConfig(table="learned", vectors_from=jaxlm.VectorsConfig())


@pytest.mark.parametrize("text", [TEXT, TEXT + "".join(map(chr, range(0x4E00, 0x4F00)))], ids=["few", "many"])
@pytest.mark.parametrize(
    "model",
    [
        jaxlm.ReanConfig(table="random", **SIZES),
        CHAIN,
        dataclasses.replace(CHAIN, table="frozen", objective="softmax", negatives=1024),
    ],
    ids=lambda model: model.table,
)
def test_a_table_that_is_not_learned_wants_the_tokens_of_rean(tmp_path, model, text):
    made = settings(tmp_path, model)
    (tmp_path / "text.txt").write_text(text)
    data = dataclasses.replace(made.data, tokens=jaxlm.CharactersConfig())
    with pytest.raises(jaxlm.UserError, match=r"^data\.tokens wants .* write data=DataConfig\(tokens=ReanTokensConfig"):
        train(dataclasses.replace(made, data=data), log=lambda line: None)
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_word2vec_takes_the_tokens_of_rean_as_its_words(tmp_path):
    plain = jaxlm.OptimConfig()
    job = prepared(settings(tmp_path, jaxlm.Word2vecConfig(), optim=plain))
    corpus = load(settings(tmp_path, CHAIN).data)
    assert isinstance(corpus.tokenizer, ReanTokenizer)
    assert job.data.tokenizer.words == corpus.tokenizer.words
    first = corpus.lines["train"][0]
    id_N = of_tokens(corpus, longest=4).ids["train"]
    assert "".join(corpus.tokenizer.words[i - 1] for i in id_N[: np.argmin(id_N)]) == "".join(pieces(first)[:4])
    assert np.diff(np.flatnonzero(id_N == 0)).max() == 5


def test_a_range_of_rates_wants_vectors_that_are_there(tmp_path):
    with pytest.raises(jaxlm.UserError, match=r"model\.vectors_from wants vectors to be trained first"):
        lr_range.measure(settings(tmp_path, CHAIN), low=1e-4, high=1.0, steps=20)


@pytest.mark.slow
def test_a_range_of_rates_wants_a_loss_that_is_never_negative(tmp_path):
    """A density's is: that of von Mises and Fisher exceeds 1 on a sphere of many dimensions."""
    model = jaxlm.ReanConfig(objective="vmf", table="random", **{**SIZES, "d_embed": 32})
    with pytest.raises(
        jaxlm.UserError, match=r"a training loss that is never negative, got -\d+\.\d+ at step 1 .*sweep"
    ):
        lr_range.measure(settings(tmp_path, model), low=1e-4, high=1.0, steps=20)
