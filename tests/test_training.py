"""Steps, the grid they run on, what fit writes when, and which checkpoint counts."""

import dataclasses
import json
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxlm
from jaxlm import checkpoint, losses, metrics, optim
from jaxlm.errors import NonFiniteLoss
from jaxlm.runs import RunDir
from jaxlm.training import Plan, TrainState, make_chunk, make_step
from jaxlm.training.loop import _all_finite
from jaxlm.training.setup import settle
from tests.conftest import NAMES

MODEL = jaxlm.MlpConfig(d_embed=4, d_hidden=16)
LINE_KEYS = ["step", "split", "loss", "unit", "nats_per_token", "bits_per_byte", "tokens_per_s", "lr", "time_s"]


def chunk_of(tmp_path: Any, **changes: Any) -> tuple[Any, TrainState]:
    """The compiled chunk of a tiny run as a function of (state, K), and a first state."""
    path = tmp_path / "text.txt"
    path.write_text("\n".join(NAMES))
    data = jaxlm.DataConfig(path=str(path), **changes.pop("data", {}))
    config = jaxlm.RunConfig(**{"model": MODEL, "data": data, "steps": 40, "batch_size": 8, **changes})
    job = settle(config)
    optimizer = optim.transformation(config.optim, 40)
    chunk = make_chunk(
        make_step(job.model, optimizer, config.optim.l2),
        job.batcher,
        optim.schedule(config.optim, 40),
        job.mesh,
        seed=0,
    )
    params = jax.jit(job.model.init)(jax.random.key(0), jnp.zeros((1, 3), jnp.int32))
    state = TrainState(step=jnp.int32(0), params=params, opt_state=optimizer.init(params))
    compiled, tokens = jax.jit(chunk), jax.device_put(job.host)

    def run(state: TrainState, K: int) -> Any:
        return compiled(state, tokens, job.batcher.draw(0, range(int(state.step), int(state.step) + K)))

    return run, state


@pytest.mark.parametrize(
    "changes",
    [
        {"optim": jaxlm.OptimConfig(lr=0.3, momentum=0.9, schedule="piecewise", boundaries=(5,), factors=(0.1,))},
        {"optim": jaxlm.OptimConfig("adamw", lr=0.01, schedule="cosine", warmup=3), "data": {"example": "sequence"}},
        {"batch_size": "full"},
    ],
    ids=["windows", "sequences", "full"],
)
def test_a_scan_of_eight_steps_is_eight_steps(tmp_path, changes):
    chunk, state = chunk_of(tmp_path, **changes)
    together, many = chunk(state, 8)
    alone, single = state, []
    for _ in range(8):
        alone, one = chunk(alone, 1)
        single.append(one)
    assert int(together.step) == int(alone.step) == 8
    chex.assert_trees_all_close(together, alone, atol=1e-6)
    np.testing.assert_allclose(many.loss_K, [one.loss_K[0] for one in single], atol=1e-6)
    np.testing.assert_array_equal(many.count_K, [one.count_K[0] for one in single])
    assert float(many.lr) == pytest.approx(float(single[-1].lr))
    if changes.get("batch_size") != "full":
        assert len(set(np.asarray(many.loss_K).tolist())) == 8


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_each_step_drops_something_else(tmp_path, dropout):
    """On the same batch, with a learning rate that moves nothing, across the end of a chunk too."""
    model = jaxlm.GptConfig(context=16, n_layers=1, n_heads=2, d_model=8, dropout=dropout)
    settings: dict[str, Any] = {
        "data": {"example": "sequence"},
        "batch_size": "full",
        "optim": jaxlm.OptimConfig(lr=1e-30),
    }
    chunk, state = chunk_of(tmp_path, model=model, **settings)
    state, first = chunk(state, 2)
    _, second = chunk(state, 2)
    losses = {*np.asarray(first.loss_K).tolist(), *np.asarray(second.loss_K).tolist()}
    assert len(losses) == (4 if dropout else 1)


def test_a_step_is_an_update_by_the_gradient_of_the_mean_loss_and_its_penalty():
    """By hand: p - lr * grad(mean nats + l2 * sum of mean squares); the loss told is without the penalty."""
    model = MODEL.filled(5, 9).build()
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 3), jnp.int32))
    ctx_BC, target_B = jnp.array([[0, 0, 1], [0, 1, 4], [3, 2, 2]]), jnp.array([2, 0, 4])

    def by_hand(params: Any, l2: float) -> jax.Array:
        logp_BV = jax.nn.log_softmax(model.next_logits(params, ctx_BC))
        return -logp_BV[jnp.arange(3), target_B].mean() + l2 * sum((w**2).mean() for w in jax.tree.leaves(params))

    optimizer = optax.sgd(0.2)
    step = jax.jit(make_step(model, optimizer, l2=0.5))
    batch = jaxlm.data.batches.Batch(ctx_BC, target_B, None)
    state = TrainState(step=jnp.int32(7), params=params, opt_state=optimizer.init(params))
    after, loss, count = step(state, batch, jax.random.key(0))
    grads = jax.jit(jax.grad(by_hand))(params, 0.5)
    chex.assert_trees_all_close(after.params, jax.tree.map(lambda p, g: p - 0.2 * g, params, grads), atol=1e-6)
    assert float(loss) == pytest.approx(float(jax.jit(by_hand)(params, 0.0)), abs=1e-6)
    assert (int(after.step), float(count)) == (8, 3.0)


def test_padding_does_not_train():
    model = MODEL.filled(5, 9).build()
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 3), jnp.int32))
    optimizer = optax.sgd(0.2)
    step = jax.jit(make_step(model, optimizer))
    state = TrainState(step=jnp.int32(0), params=params, opt_state=optimizer.init(params))
    tok_BT, target_BT = jnp.array([[0, 3, 1, 4]]), jnp.array([[3, 1, 2, 2]])
    padded = jaxlm.data.batches.Batch(tok_BT, target_BT, jnp.array([[1.0, 1.0, 0.0, 0.0]]))
    short = jaxlm.data.batches.Batch(tok_BT[:, :2], target_BT[:, :2], None)
    one, two = step(state, padded, jax.random.key(0)), step(state, short, jax.random.key(0))
    chex.assert_trees_all_close(one, two, atol=1e-6)


def test_a_loss_is_a_sum_and_a_count():
    total, count = losses.cross_entropy(jnp.zeros((4, 3)), jnp.array([0, 1, 2, 0]), jnp.array([1.0, 1, 0, 1]))
    assert (float(total), float(count)) == (pytest.approx(3 * math.log(3), rel=1e-6), 3.0)


def config(steps: int, **settings: Any) -> jaxlm.RunConfig:
    return jaxlm.RunConfig(model=MODEL, steps=steps, **settings)


@given(
    steps=st.integers(1, 300_000),
    parameters=st.integers(100, 10**9),
    tokens=st.integers(1, 10**5),
    cadence=st.none() | st.integers(1, 5000),
)
@settings(deadline=None)
def test_cadences_lie_on_the_grid(steps, parameters, tokens, cadence):
    evals = jaxlm.EvalConfig(every=cadence, log_every=cadence)
    plan = Plan.of(config(steps, eval=evals, checkpoint=jaxlm.CheckpointConfig(every=cadence)), parameters, tokens)
    assert 1 <= plan.chunk <= steps and plan.steps == steps
    for every in (plan.log_every, plan.eval_every, plan.save_every):
        assert every > 0 and every % plan.chunk == 0
        if cadence is not None:
            assert cadence <= every < cadence + plan.chunk
    assert plan.at(steps, plan.eval_every)
    assert plan.at(plan.eval_every, plan.eval_every)
    assert plan.eval_every == 1 or not plan.at(plan.eval_every - 1, plan.eval_every) or plan.eval_every - 1 == steps


def test_the_chunk_divides_usual_lengths_and_grows_with_smaller_models():
    assert Plan.of(config(200_000), 12_000, 32).chunk == 1000
    assert Plan.of(config(3_500), 12_000, 32).chunk == 500
    assert Plan.of(config(300), 729, 200_000).chunk == 10
    assert Plan.of(config(100), 10**9, 10**4).chunk == 1
    for steps in (100, 1000, 5000, 20_000, 200_000):
        assert steps % Plan.of(config(steps), 12_000, 32).chunk == 0
    plan = Plan.of(config(200_000), 12_000, 32)
    assert (plan.log_every, plan.eval_every, plan.save_every) == (2000, 20_000, 20_000)


def test_the_grid_does_not_depend_on_where_a_run_begins():
    """A plan knows no first step: what is due is decided by the step alone."""
    plan = Plan(steps=23, chunk=5, log_every=5, eval_every=10, save_every=15)
    assert [step for step in range(1, 24) if plan.at(step, plan.log_every)] == [5, 10, 15, 20, 23]
    assert [step for step in range(1, 24) if plan.at(step, plan.eval_every)] == [10, 20, 23]
    assert [step for step in range(1, 24) if plan.at(step, plan.save_every)] == [15, 23]


def test_metrics_are_written_at_the_start_at_each_cadence_and_at_the_end(make_run):
    """80 steps run in chunks of 20."""
    path = make_run(steps=80, eval=jaxlm.EvalConfig(every=40, log_every=20))
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    dev, train = ([line for line in lines if line["split"] == split] for split in ("dev", "train"))
    assert [line["step"] for line in dev] == [0, 40, 80]
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
    worse = jaxlm.OptimConfig(lr=0.3, schedule="piecewise", boundaries=(0.5,), factors=(60,))
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
    assert [one.step for one in checkpoint.saved(path / "checkpoints")] == [best_step, 40]
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
    assert [one.step for one in checkpoint.saved(tmp_path / "run" / "checkpoints")] == [20]


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("number", [0.0, 3e38, math.nan, math.inf, -math.inf])
def test_one_parameter_that_is_no_number_is_seen_on_every_device(monkeypatch, backend, number):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    params = {"a": jnp.ones((3, 2)), "b": {"c": jnp.zeros(4).at[2].set(number)}}
    assert _all_finite(params) == math.isfinite(number)


def test_epochs_are_turned_into_steps(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(NAMES))
    data = jaxlm.DataConfig(path=str(tmp_path / "text.txt"))
    job = settle(jaxlm.RunConfig(model=MODEL, data=data, epochs=2.0, batch_size=16))
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
    [("nobody", "emma", "^init_from: run '.*nobody' does not exist"), (None, "Éva", "^init_from: the character 'É'")],
)
def test_what_a_run_cannot_start_from_is_told_by_name(mlp_run, tmp_path, start, text, message):
    (tmp_path / "text.txt").write_text(text)
    data = jaxlm.DataConfig(path=str(tmp_path / "text.txt"))
    with pytest.raises(jaxlm.UserError, match=message):
        settle(jaxlm.RunConfig(model=MODEL, data=data, steps=1, init_from=start or str(mlp_run.path)))


@pytest.mark.parametrize("model", [jaxlm.GptConfig(), jaxlm.RnnConfig(), jaxlm.BowConfig()])
def test_a_model_that_reads_from_the_start_is_not_trained_on_windows(tmp_path, model):
    with pytest.raises(jaxlm.UserError, match=f"data.example wants sequence for a {type(model).__name__}"):
        chunk_of(tmp_path, model=model)
