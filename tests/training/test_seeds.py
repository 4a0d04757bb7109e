"""Several seeds in one program: each gives what its single run gives, in a run directory of its own."""

import dataclasses
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm import sweep
from jaxlm.cli.sweep_command import parse_sweep
from jaxlm.errors import NonFiniteLoss, Stopped, UserError
from jaxlm.runs import checkpoints, metrics
from jaxlm.runs.directory import RunDir
from jaxlm.sweep import Variant
from jaxlm.training import cadence
from jaxlm.training.seeds.job import SeedsJob, prepare
from jaxlm.training.seeds.records import DEV_LOSSES, SeedsWriter, best_steps
from jaxlm.training.seeds.results import SeedsScore, mean, standard_error
from tests import processes
from tests.conftest import NAMES, TINY
from tests.faults.test_resume import _state

GPT = jaxlm.GptConfig(n_layers=1, n_heads=2, d_model=8, dropout=0.1)
WAVENET = jaxlm.WavenetConfig(layers=2, d_embed=4, d_hidden=8)
SEQUENCES = {"example": "sequence"}
KINDS: dict[str, tuple[jaxlm.ModelConfig, dict[str, Any]]] = {
    "mlp": (TINY, {"seed": 3}),
    "full": (TINY, {"batch_size": "full"}),
    "accumulate": (TINY, {"optim": jaxlm.OptimConfig(accumulate=2, l2=0.01)}),
    "gpt": (GPT, {"data": SEQUENCES, "optim": jaxlm.OptimConfig(clip=1.0)}),
    "average": (TINY, {"optim": jaxlm.OptimConfig(ema=0.9, momentum=0.9)}),
    "gru": (jaxlm.RnnConfig(cell="gru", d_hidden=8), {"data": SEQUENCES}),
    "wavenet": (WAVENET, {}),
    "bow": (jaxlm.BowConfig(), {"data": SEQUENCES}),
    "muon": (GPT, {"data": SEQUENCES, "optim": jaxlm.OptimConfig(name="muon", lr=0.01)}),
}
QUICK = ("full", "accumulate")
"""Kinds that take the fewest seconds."""
OFTEN = {"eval": jaxlm.EvalConfig(every=5, log_every=5)}
MOMENTUM = jaxlm.OptimConfig(lr=0.1, momentum=0.9)
TIMES = ("tokens_per_s", "time_s")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of five steps at most, so that a short run has several."""
    monkeypatch.setattr(cadence, "CHUNK_SIZES", (1, 2, 5))


def lines(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without the clock's numbers."""
    read = metrics.read(run / "metrics.jsonl")
    return [{name: value for name, value in line.items() if name not in TIMES} for line in read]


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_each_seed_gives_what_its_single_run_gives(make_run, kind):
    """Losses, gradient norms, the best step, what eval.json says, and the parameters."""
    model, settings = KINDS[kind]
    group = make_run(model, name="group", seeds=2, **OFTEN | settings)
    losses = []
    for seed in range(settings.get("seed", 0), settings.get("seed", 0) + 2):
        single = make_run(model, name=f"single-{seed}", **OFTEN | settings | {"seed": seed})
        own = group / f"seed-{seed}"
        got, want = lines(own), lines(single)
        assert [(one["step"], one["split"]) for one in got] == [(one["step"], one["split"]) for one in want]
        chex.assert_trees_all_close([one["loss"] for one in got], [one["loss"] for one in want], atol=1e-5)
        norms = [[one["grad_norm"] for one in of if "grad_norm" in one] for of in (got, want)]
        chex.assert_trees_all_close(*norms, atol=1e-4)
        runs = [jaxlm.load_run(path) for path in (own, single)]
        assert runs[0].step == runs[1].step and runs[0].config.seed == seed
        if kind != "muon":  # Adam makes full steps along a gradient that is zero but for rounding, that of k_bias
            chex.assert_trees_all_close(runs[0].params, runs[1].params, atol=1e-5)
        results = [RunDir(path).read_eval() for path in (own, single)]
        for split in ("train", "dev", "test"):
            assert results[0][split] == pytest.approx(results[1][split], abs=1e-4)
        assert results[0]["baselines"] == results[1]["baselines"]
        losses.append(want[-1]["loss"])
    assert abs(losses[0] - losses[1]) > 1e-4  # else the test is blind


def test_a_seed_is_an_ordinary_run_that_samples_and_trains_on(make_run):
    group = make_run(name="group", seeds=2)
    run = jaxlm.load_run(group / "seed-1")
    assert len(jaxlm.generate(run, n=2, key=jax.random.key(0))) == 2
    own = RunDir(group / "seed-1")
    assert {own.metrics, own.samples, own.seen, own.tokenizer, own.lock} <= set(own.path.iterdir())
    own.eval.unlink()  # the single run of that seed resumes at the last step, and writes the same results
    before = (own.metrics.read_text(), own.samples.read_text())
    resumed = make_run(name="group/seed-1", seed=1)
    assert (RunDir(resumed).metrics.read_text(), RunDir(resumed).samples.read_text()) == before


def test_the_group_has_mean_and_standard_error(make_run, capsys):
    group = make_run(name="group", seeds=3, **OFTEN)
    losses = [RunDir(group / f"seed-{seed}").read_eval()["dev"]["nats_per_token"] for seed in range(3)]
    result = RunDir(group).read_eval()
    assert result["seeds"] == [0, 1, 2] and result["dev"]["of_seeds"] == losses
    assert result["dev"]["nats_per_token"] == pytest.approx(sum(losses) / 3)
    error = math.sqrt(sum((loss - sum(losses) / 3) ** 2 for loss in losses) / 2 / 3)
    assert result["dev"]["standard_error"] == pytest.approx(error)
    own = [lines(group / f"seed-{seed}") for seed in range(3)]
    for number, line in enumerate(lines(group)):
        assert line["loss"] == pytest.approx(statistics.fmean(one[number]["loss"] for one in own))
    said: list[str] = []
    config = dataclasses.replace(RunDir(group).read_config(), run_dir=str(group))
    jaxlm.train(config, log=said.append)
    assert f"{group} is trained already; --restart trains it again" in said
    row = next(line for line in said if line.startswith("          mean")).split()
    assert row[2] == f"{sum(losses) / 3:.4f}"
    assert next(line for line in said if line.startswith("standard error")).split()[3] == f"{error:.4f}"


def test_an_impossible_loss_has_no_mean():
    assert mean([1.0, 2.0]) == 1.5 and mean([1.0, None]) is None
    assert standard_error([1.0]) is None and standard_error([1.0, None]) is None
    assert standard_error([1.0, 3.0]) == pytest.approx(1.0)


def test_the_directory_of_the_group_is_not_opened_as_a_run(make_run):
    group = make_run(name="group", seeds=2)
    with pytest.raises(UserError, match=r"holds the runs of 2 seeds: open one of them, as in .*seed-0"):
        jaxlm.load_run(group)
    with pytest.raises(UserError, match="holds the runs of 2 seeds"):
        make_run(name="other", init_from=str(group))


def test_other_seeds_are_refused_and_restart_renames_the_group(make_run, tmp_path):
    group = make_run(name="group", seeds=2)
    with pytest.raises(UserError, match="seeds: 2, now 3"):
        make_run(name="group", seeds=3)
    with pytest.raises(UserError, match="seeds: 2, now 1"):
        make_run(name="group")
    config = dataclasses.replace(RunDir(group).read_config(), run_dir=str(group), seeds=3)
    jaxlm.train(config, restart=True, log=lambda line: None)
    assert sorted(path.name for path in group.glob("seed-*")) == ["seed-0", "seed-1", "seed-2"]
    assert (tmp_path / "group.old" / "seed-1" / "eval.json").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": jaxlm.CountsConfig()}, "seeds wants a model that is trained by steps, got 2 for a CountsConfig"),
        ({"eval": jaxlm.EvalConfig(patience=1)}, "eval.patience 1 has no effect with seeds 2"),
        ({"profile": "2:3"}, "profile 2:3 has no effect with seeds 2"),
        ({"wandb": "offline"}, "wandb offline has no effect with seeds 2"),
        ({"mesh": jaxlm.config.MeshConfig(fsdp=2)}, "mesh.fsdp 2 has no effect with seeds 2"),
        ({"model": jaxlm.GptConfig(attention="flash")}, "model.attention flash cannot be with seeds 2"),
        ({"seed": 2**32 - 1}, "seed wants a number from 0 to"),
        ({"seeds": 0}, "seeds wants a number from 1 to"),
        ({"model": jaxlm.MixtureConfig()}, "by --sweep.seed 0 1 ..."),
    ],
)
def test_what_cannot_be_together_is_refused(settings, words):
    with pytest.raises(UserError) as error:
        jaxlm.RunConfig(**{"model": TINY, "steps": 5, "seeds": 2} | settings)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_word2vec_and_shards_are_refused(make_run, tmp_path):
    with pytest.raises(UserError, match="seeds wants a model whose training is steps on text alone"):
        data = jaxlm.DataConfig(tokens=jaxlm.WordsConfig(), kind="stream")
        jaxlm.RunConfig(model=jaxlm.Word2vecConfig(), data=data, steps=5, seeds=2)
    with pytest.raises(UserError, match="seeds wants a text in memory, got the shards"):
        prepare(jaxlm.RunConfig(model=GPT, data=jaxlm.DataConfig(path=str(tmp_path), kind="stream"), steps=5, seeds=2))


def spoiled(monkeypatch: pytest.MonkeyPatch, seed: int, *, loss: bool) -> None:
    """Let one seed's parameters, and by them its losses, be no numbers; or parameters alone, after the last chunk."""
    begin, run_chunk = SeedsJob.initial_state, SeedsJob.run_chunk

    def spoil(state: Any) -> Any:
        return dataclasses.replace(state, params=jax.tree.map(lambda x: x.at[seed].set(jnp.nan), state.params))

    if loss:
        monkeypatch.setattr(SeedsJob, "initial_state", lambda job: spoil(begin(job)))
        monkeypatch.setattr(SeedsJob, "evaluate", lambda job, params, stop=None: {})
        return

    def chunk(job: SeedsJob, state: Any, step: int, K: int) -> Any:
        state, result = run_chunk(job, state, step, K)
        return spoil(state), result

    monkeypatch.setattr(SeedsJob, "run_chunk", chunk)
    monkeypatch.setattr(SeedsJob, "evaluate", lambda job, params, stop=None: {})


@pytest.mark.parametrize(
    ("loss", "words"),
    [(True, "seed 5: the loss is nan at step 1 of"), (False, "a parameter of seed 5 is not a number")],
)
def test_a_seed_that_fails_is_named(make_run, monkeypatch, loss, words):
    spoiled(monkeypatch, 1, loss=loss)
    with pytest.raises(NonFiniteLoss, match=words):
        make_run(name="group", seed=4, seeds=3)


def test_a_skipped_step_is_one_seeds_own(make_run, monkeypatch):
    begin = SeedsJob.initial_state

    def spoil(job: SeedsJob) -> Any:
        state = begin(job)
        return dataclasses.replace(state, params=jax.tree.map(lambda x: x.at[1].set(jnp.nan), state.params))

    monkeypatch.setattr(SeedsJob, "initial_state", spoil)
    monkeypatch.setattr(SeedsJob, "evaluate", lambda job, params, stop=None: {})
    with pytest.raises(NonFiniteLoss, match="seed 1: 3 gradients in a row are not finite"):
        make_run(name="group", seeds=2, optim=jaxlm.OptimConfig(skip_nonfinite=3))


def test_the_best_step_of_each_seed_is_kept(tmp_path):
    losses = {1: [5.0, 1.0, None], 2: [4.0, 2.0, None], 3: [4.0, 3.0, None], 4: None}
    assert best_steps(losses) == [3, 1, 3] and best_steps({4: None}) == []
    with SeedsWriter(tmp_path / "checkpoints", keep=1) as writer:
        for step, of_seeds in losses.items():
            items = {"params": {"w": jnp.float32(step)}, "training": {"step": jnp.int32(step)}}
            dev = None if of_seeds is None else 1.0
            writer.save(step, items, dev_loss=dev, metadata={DEV_LOSSES: of_seeds or [0.0, 0.0, 0.0]})
    assert [one.step for one in checkpoints.saved(tmp_path / "checkpoints")] == [1, 3, 4]
    with SeedsWriter(tmp_path / "checkpoints", keep=1) as writer:  # a resumed run knows them
        items = {"params": {"w": jnp.float32(5)}, "training": {"step": jnp.int32(5)}}
        writer.save(5, items, dev_loss=None, metadata={DEV_LOSSES: [0.0, 0.0, 0.0]})
    assert [one.step for one in checkpoints.saved(tmp_path / "checkpoints")] == [1, 3, 5]


def test_each_seed_has_its_own_best_checkpoint(make_run, monkeypatch):
    """Dev losses of two seeds are least at different steps, neither the last."""
    evaluate = SeedsJob.evaluate

    def rising(job: SeedsJob, params: Any, stop: Any = None) -> Any:
        calls.append(1)
        real = evaluate(job, params)
        nats = (abs(len(calls) - 2) + 1.0, abs(len(calls) - 3) + 1.0)
        dev = tuple(score._replace(nats=x * score.tokens) for x, score in zip(nats, real["dev"].of_seeds, strict=True))
        return {"dev": SeedsScore(dev)}

    calls: list[int] = []
    monkeypatch.setattr(SeedsJob, "evaluate", rising)
    group = make_run(name="group", seeds=2, eval=jaxlm.EvalConfig(every=5))
    assert [jaxlm.load_run(group / f"seed-{seed}").step for seed in range(2)] == [5, 10]
    assert [jaxlm.load_run(group / f"seed-{seed}", which="last").step for seed in range(2)] == [20, 20]


@pytest.mark.parametrize("moment", [4, 12])
def test_a_signal_saves_and_the_resumed_seeds_end_with_the_same_bits(make_run, monkeypatch, moment):
    whole = make_run(name="whole", seeds=2, optim=MOMENTUM, **OFTEN)
    run_chunk, calls = SeedsJob.run_chunk, []

    def signalled(job: SeedsJob, *args: Any) -> Any:
        calls.append(args[1])
        if args[1] + args[2] == moment or args[1] >= moment:
            signal.raise_signal(signal.SIGTERM)
        return run_chunk(job, *args)

    monkeypatch.setattr(SeedsJob, "run_chunk", signalled)
    with pytest.raises(Stopped):
        make_run(name="cut", seeds=2, optim=MOMENTUM, **OFTEN)
    monkeypatch.setattr(SeedsJob, "run_chunk", run_chunk)
    cut = make_run(name="cut", seeds=2, optim=MOMENTUM, **OFTEN)
    assert_same(cut, whole, [0, 1], step=20)


def assert_same(run: Path, whole: Path, seeds: list[int], *, step: int) -> None:
    """Bits of the last state of all seeds together and of each alone, losses and results are the same."""
    for part in ("", *(f"seed-{seed}" for seed in seeds)):
        one, other = run / part, whole / part
        assert _state(one / "checkpoints" / str(step)) == _state(other / "checkpoints" / str(step))
        assert lines(one) == lines(other)
        results = [json.loads((path / "eval.json").read_text()) for path in (one, other)]
        for result in results:
            del result["train_time_s"]
        assert results[0] == results[1]
        if part:
            assert (one / "samples.txt").read_text() == (other / "samples.txt").read_text()


@pytest.mark.slow
def test_killed_at_any_moment_seeds_end_with_the_same_bits(tmp_path_factory, tmp_path):
    """SIGKILL while starting, creating, training, saving and finishing; the delays come from a fixed seed."""
    cli = processes.cli(tmp_path_factory, as_users_do=True)
    args = ("--steps", 6_003, "--seeds", 4)
    whole, run, rng = cli.trained("whole", *args), tmp_path / "runs" / "killed", random.Random(5)
    saves = run / "checkpoints"

    def saved(step: int) -> bool:
        return saves.exists() and any(one.name.isdecimal() and int(one.name) >= step for one in saves.iterdir())

    def saving() -> bool:
        return saves.exists() and any(not one.name.isdecimal() for one in saves.iterdir())

    moments = [
        ("creating", lambda: run.exists(), 0.0),
        ("creating a seed", lambda: (run / "seed-1").exists(), 0.0),
        ("saving", saving, 0.02),
        ("training", lambda: saved(2000), 0.1),
        ("saving again", lambda: saved(4000) and saving(), 0.02),
        ("finishing a seed", lambda: (run / "seed-1" / "checkpoints").exists(), 0.02),
        ("finishing the next one", lambda: (run / "seed-2" / "samples.txt").exists(), 0.0),
    ]
    killed = []
    for name, condition, spread in moments:
        process = cli.start_train("--run-dir", run, *args)
        done = processes.signal_when(condition, process, delay=spread * rng.random())
        assert "Traceback" not in done.stderr
        if done.code == -signal.SIGKILL:
            killed.append(name)
    assert len(killed) >= 5, killed
    done = cli.train("--run-dir", run, *args)
    assert done.code == 0 and "Traceback" not in done.stderr, done.stderr
    assert_same(run, whole, list(range(4)), step=6_003)


FOUR = """
import sys
import jax
import jaxlm
from pathlib import Path
config = jaxlm.RunConfig(
    model=jaxlm.MlpConfig(d_embed=4, d_hidden=16), data=jaxlm.DataConfig(path="text.txt"), seeds=int(sys.argv[1]),
    steps=20, batch_size=8, plots=False, sample=jaxlm.SampleConfig(n=0), run_dir=f"{jax.device_count()}",
    eval=jaxlm.EvalConfig(every=5, log_every=5),
)
try:
    jaxlm.train(config)
except jaxlm.UserError as error:
    print(error)
"""


@pytest.mark.slow
def test_seeds_lie_along_devices(tmp_path):
    """Four seeds on four devices, one each, give what they give on one; six do not fit."""
    (tmp_path / "text.txt").write_text("\n".join(NAMES))
    for devices in (1, 4):
        env = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}
        env["PYTHONPATH"] = str(Path(jaxlm.__file__).parent.parent)
        done = subprocess.run([sys.executable, "-c", FOUR, "4"], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert ("1 on each of 4 devices" in done.stdout) == (devices == 4)
    for part in ("", *(f"seed-{seed}" for seed in range(4))):
        one, four = (lines(tmp_path / name / part) for name in ("1", "4"))
        chex.assert_trees_all_close([line["loss"] for line in one], [line["loss"] for line in four], atol=1e-5)
    done = subprocess.run([sys.executable, "-c", FOUR, "6"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert "seeds wants a multiple of the 4 devices, along which they lie, got 6; take 8" in done.stdout


def test_rows_and_dropout_are_those_of_the_seed(make_run):
    """Two seeds of which each has the other's rows would be found: their rows and dropout keys differ."""
    job = prepare(jaxlm.RunConfig(model=TINY, steps=9, batch_size=8, seeds=2))
    row_NKB = job._rows(3, 2).row_XB.reshape(2, 2, 8)
    for n, one in enumerate(job.jobs):
        assert np.array_equal(row_NKB[n], one.setup.dataset.row_numbers(3, 2))
    assert not np.array_equal(row_NKB[0], row_NKB[1])
    words_N2 = np.asarray(job._dropout_words)
    assert not np.array_equal(words_N2[0], words_N2[1])


def test_a_sweep_of_seeds_ranks_means_with_their_errors(tmp_path):
    variant = Variant({"optim.lr": 0.1}, jaxlm.RunConfig(model=TINY, steps=5, seeds=2, run_dir=str(tmp_path)))
    shown = sweep.table([sweep.Result(variant, "dev", 2.5, ("a", "b", "c"), 0.125)])
    assert shown.splitlines()[1].split() == ["0.1", "2.5000", "±", "0.1250"]
    with pytest.raises(UserError, match=r"--sweep.seeds is not possible: give one --seeds for the whole sweep"):
        parse_sweep(["configs/names_mlp.py", "--sweep.seeds", "2", "3"])
