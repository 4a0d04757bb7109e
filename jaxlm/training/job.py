"""The whole job: settings to data to model to steps to a finished run directory."""

import dataclasses
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from jaxlm import checkpoint, metrics, optim, sharding, show
from jaxlm.config import RunConfig
from jaxlm.data import corpus as corpora
from jaxlm.data.batches import Batcher, Tokens, prepare, sequence_length
from jaxlm.data.corpus import Corpus
from jaxlm.data.source import cache_dir
from jaxlm.errors import UserError
from jaxlm.evaluation import Evaluator, Score
from jaxlm.inference import Run, classify, generate, load_run, untrained_params
from jaxlm.models.base import FittedModel, LanguageModel, Params
from jaxlm.runs import RunDir, hold, read_json, write_bytes, write_json
from jaxlm.training.loop import Plan, Tally, fit, step_flops
from jaxlm.training.pictures import Pictures
from jaxlm.training.state import Chunk, TrainState, make_chunk, make_step

BATCHES, DROPOUT, SAMPLES = 1, 2, 3
"""What each key derived from the run's seed is for; 0 is the parameters' (see inference.untrained_params)."""


class Job(NamedTuple):
    """All that is settled before anything is written."""

    config: RunConfig
    corpus: Corpus
    model: LanguageModel[Any]
    mesh: Any
    batcher: Batcher
    host: Tokens
    rows: dict[str, np.ndarray]
    start: Params | None
    """The parameters of the run that init_from names."""


def train(
    config: RunConfig, *, restart: bool = False, dry_run: bool = False, say: Callable[[str], None] = print
) -> Path | None:
    """Train what the settings describe, or resume it, or say that it is done. Returns the run directory.

    Raises UserError for settings, data or a run directory that cannot be used, before anything is written;
    NonFiniteLoss and Stopped as `fit` does.
    """
    job = settle(config)
    _introduce(job, say)
    if dry_run:
        _describe(job, say)
        return None
    with hold(job.config, job.corpus, restart=restart) as (run, state):
        if state == "done":
            say(f"{run.path} is trained already; --restart trains it again")
        else:
            pictures = Pictures(job.corpus, run.plots)
            work = _train_by_steps if config.model.trained_by_steps else _fit_counts
            _finish(job, run, work(job, run, pictures, say), pictures)
        say(run.samples.read_text("utf-8").rstrip("\n"))
        _tell_losses(run, say)
    return run.path


def settle(config: RunConfig) -> Job:
    """Data, model and devices of a run, with the settings filled in that depend on them."""
    sharding.choose_device(config.device, config.gpu_memory)
    sharding.keep_compiled(cache_dir())
    if config.tensorboard:
        metrics.summary_writer()
    other = None if config.init_from is None else load_run(config.init_from)
    corpus = corpora.load(config.data, other.tokenizer if other else None)
    config = dataclasses.replace(
        config, model=config.model.filled(corpus.tokenizer.vocab_size, sequence_length(config.data, corpus))
    )
    if (config.model.vocab_size or 0) < corpus.tokenizer.vocab_size:
        raise UserError(
            f"model.vocab_size wants at least the data's {corpus.tokenizer.vocab_size} tokens, "
            f"got {config.model.vocab_size}"
        )
    model = config.model.build()
    batcher, host, rows = prepare(config, corpus, model.context, model.max_length)
    if config.epochs is not None:
        steps = max(1, math.ceil(config.epochs * batcher.examples / batcher.batch_size))
        config = dataclasses.replace(config, steps=steps, epochs=None)
    mesh = sharding.make_mesh()
    if config.model.trained_by_steps:
        sharding.check_batch(batcher.batch_size, mesh)
        optim.schedule(config.optim, config.steps or 1)
    if other:
        _check_same_shapes(config, model, other.params)
    return Job(config, corpus, model, mesh, batcher, host, rows, other.params if other else None)


def _train_by_steps(job: Job, run: RunDir, pictures: Pictures, say: Callable[[str], None]) -> float:
    """Everything up to the last checkpoint. Returns the seconds that training took, over all sittings."""
    config, model, mesh = job.config, job.model, job.mesh
    steps = config.steps or 1
    optimizer = optim.transformation(config.optim, steps)
    tokens = _on_devices(job)
    state = _initial_state(job, optimizer)
    sizes = optim.count_parameters(state.params), job.batcher.batch_size * _targets_per_row(job)
    plan = Plan.of(config, *sizes)
    state, tally = _resume(run, state, say)
    step = int(state.step)
    with checkpoint.CheckpointWriter(run.checkpoints, config.checkpoint.keep) as writer:
        metrics.cut(run.metrics, step if step else -1)
        chunk = make_chunk(
            make_step(model, optimizer, config.optim.l2),
            job.batcher,
            optim.schedule(config.optim, steps),
            mesh,
            batch_key=_key(config, BATCHES),
            dropout_key=_key(config, DROPOUT),
        )
        options = sharding.compiler_options(step_flops(*sizes))
        compiled = jax.jit(chunk, static_argnums=2, donate_argnums=0, compiler_options=options)

        def run_chunk(state: TrainState, K: int) -> tuple[TrainState, Chunk]:
            result = compiled(state, tokens, K)
            pictures.begin()
            return result

        log = metrics.MetricsLog(run.metrics, run.tensorboard if config.tensorboard else None)
        progress = metrics.Progress(steps, step)
        try:
            fit(
                state,
                run_chunk,
                partial(_evaluate, _evaluator(job, tokens), job),
                plan,
                log=log,
                writer=writer,
                progress=progress,
                tally=tally,
                bytes_per_token=_bytes_per_token(job),
                block=sharding.must_block(mesh),
            )
        finally:
            progress.close()
            log.close()
    lines = metrics.read(run.metrics)
    pictures.draw_losses(lines)
    return max(line["time_s"] for line in lines)


def _fit_counts(job: Job, run: RunDir, pictures: Pictures, say: Callable[[str], None]) -> float:
    """Count, and save as step 1. Returns the seconds it took."""
    began = time.monotonic()
    model = cast(FittedModel[Any], job.model)
    start, end = job.corpus.bounds["train"]
    params, notes = model.fit(job.corpus.tokens_N[start:end], job.corpus.age_N[start:end])
    for note in notes:
        say(note)
    params = jax.block_until_ready(jax.device_put(params, sharding.replicated(job.mesh)))
    fitted = time.monotonic()
    dev = _evaluate(_evaluator(job, _on_devices(job)), job, params).get("dev")
    metrics.cut(run.metrics, -1)
    log = metrics.MetricsLog(run.metrics, run.tensorboard if job.config.tensorboard else None)
    pictures.begin()
    if dev:
        now = time.monotonic()
        log.write(**dev.metrics_line(1, "dev", seconds=now - fitted, time_s=now - began))
    log.close()
    with checkpoint.CheckpointWriter(run.checkpoints, job.config.checkpoint.keep) as writer:
        writer.save(1, params, {"step": np.array(1, np.int32)}, dev_loss=dev.nats_per_token if dev else None, notes={})
    return fitted - began


def _finish(job: Job, run: RunDir, seconds: float, pictures: Pictures) -> None:
    """Score every split with the best checkpoint, keep samples, and last eval.json, which says that the run is done."""
    best = load_run(run.path)
    evaluator = _evaluator(job, _on_devices(job))
    per_row = _targets_per_row(job)
    entries: dict[str, Any] = {}
    for split, rows in job.rows.items():
        most = max(1, job.config.eval.max_tokens // per_row) if split == "train" else len(rows)
        entries[split] = evaluator(best.params, _some(rows, most)).to_json() if len(rows) else None
    write_bytes(run.samples, _samples(job, run, best).encode("utf-8", "surrogatepass"))
    pictures.wait()
    write_json(
        run.eval,
        {
            **entries,
            "params": optim.count_parameters(best.params),
            "step": best.step,
            "steps": job.config.steps or 1,
            "train_time_s": seconds,
        },
    )


def _samples(job: Job, run: RunDir, best: Run) -> str:
    sample = job.config.sample
    if not sample.n:
        return ""
    key = _key(job.config, SAMPLES)
    texts = generate(best, n=sample.n, temperature=sample.temperature, max_tokens=sample.max_tokens, key=key)
    if job.config.data.kind == "stream":
        return "\n---\n".join(texts) + "\n"
    return show.sorted_samples(texts, classify(run.read_seen(), texts)) + "\n"


def _evaluate(evaluator: Evaluator, job: Job, params: Params) -> dict[str, Score]:
    """Dev, and of train a fixed sample of equal size."""
    dev, train_rows = job.rows["dev"], job.rows["train"]
    sample = _some(train_rows, len(dev) or 10_000)
    scores = {"dev": evaluator(params, dev)} if len(dev) else {}
    return {**scores, "train_sample": evaluator(params, sample)}


def _check_same_shapes(config: RunConfig, model: LanguageModel[Any], params: Params) -> None:
    own = jax.eval_shape(lambda: untrained_params(config, model))
    want, got = (
        {jax.tree_util.keystr(path): x.shape for path, x in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (own, params)
    )
    if want != got:
        raise UserError(f"init_from {config.init_from!r} has parameters {got}, this model wants {want}")


def _initial_state(job: Job, optimizer: Any) -> TrainState:
    """Step 0, from the seed or from another run's parameters, on the mesh."""
    params = untrained_params(job.config, job.model) if job.start is None else job.start
    state = TrainState(step=np.int32(0), params=params, opt_state=jax.jit(optimizer.init)(params))  # type: ignore[arg-type]
    return jax.device_put(state, sharding.state_sharding(job.mesh, state))


def _resume(run: RunDir, state: TrainState, say: Callable[[str], None]) -> tuple[TrainState, Tally]:
    """The newest checkpoint that loads, or the initial state; what is broken is set aside and told."""
    like = checkpoint.abstract_like(
        {"params": state.params, "training": {"step": state.step, "opt_state": state.opt_state}}
    )
    broken = checkpoint.set_aside_unreadable(run.checkpoints)
    resumed: tuple[TrainState, Tally] | None = None
    for one in reversed(checkpoint.saved(run.checkpoints)):
        loaded = checkpoint.load(run.checkpoints, one, like)
        if loaded is not None:
            resumed = TrainState(params=loaded["params"], **loaded["training"]), Tally(**one.notes["tally"])
            break
        checkpoint.set_aside(run.checkpoints, one.step)
        broken.append(one.step)
    for step in broken:
        say(f"checkpoint {step} of {run.path} is broken: moved to {run.broken}, going on without it")
    if resumed is None:
        return state, Tally()
    say(f"resuming {run.path} at step {int(resumed[0].step)}")
    return resumed


def _evaluator(job: Job, tokens: Tokens) -> Evaluator:
    return Evaluator(job.model, job.batcher, tokens, job.corpus.tokenizer.bytes_of_token, job.mesh)


def _on_devices(job: Job) -> Tokens:
    return jax.device_put(job.host, sharding.replicated(job.mesh))


def _key(config: RunConfig, purpose: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(config.seed), purpose)


def _some(rows: np.ndarray, most: int) -> np.ndarray:
    """All rows, or a fixed random choice of them in order."""
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, most, replace=False))


def _targets_per_row(job: Job) -> int:
    return 1 if job.batcher.example == "window" else job.batcher.width


def _bytes_per_token(job: Job) -> float:
    return float(job.corpus.tokenizer.bytes_of_token[job.corpus.tokens("train")].mean())


def _introduce(job: Job, say: Callable[[str], None]) -> None:
    sizes = ", ".join(f"{split} {job.corpus.size(split):,}" for split in corpora.SPLITS)
    say(f"devices: {sharding.describe(job.config.gpu_memory)}")
    say(f"data: {sizes} tokens, vocabulary {job.corpus.tokenizer.vocab_size}")


def _describe(job: Job, say: Callable[[str], None]) -> None:
    """What --dry-run prints."""
    from jaxlm.config.codec import to_json
    from jaxlm.runs import dump

    say(dump(to_json(job.config)))
    if not job.config.model.trained_by_steps:
        say("parameters: as many as the data has n-grams")
        return
    state = jax.eval_shape(lambda: _initial_shapes(job))
    parameters = optim.count_parameters(state.params)
    targets = job.batcher.batch_size * _targets_per_row(job)
    bytes_of = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    say(f"parameters: {parameters:,}")
    say(f"memory: {show.size(bytes_of)} of state, as much again for gradients and a checkpoint's copy each")
    say(f"tokens: {targets:,} a step, {targets * (job.config.steps or 1):,} in {job.config.steps:,} steps")


def _initial_shapes(job: Job) -> TrainState:
    params = untrained_params(job.config, job.model)
    optimizer = optim.transformation(job.config.optim, job.config.steps or 1)
    return TrainState(step=np.int32(0), params=params, opt_state=optimizer.init(params))  # type: ignore[arg-type]


def _tell_losses(run: RunDir, say: Callable[[str], None]) -> None:
    result = read_json(run.eval)
    for split in corpora.SPLITS:
        entry = result[split]
        if entry is not None:
            score = Score.from_json(entry)
            say(f"{split}: {show.score_line(score)}")
    say(f"step {result['step']:,} of {result['steps']:,}, {result['train_time_s']:.1f} s, in {run.path}")
