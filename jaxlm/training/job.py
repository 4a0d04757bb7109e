"""The whole job: settings to data to model to steps to a finished run directory."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm import checkpoint, keys, metrics, optim, sharding, show
from jaxlm.config import RunConfig
from jaxlm.data import corpus as corpora
from jaxlm.data.batches import Tokens
from jaxlm.evaluation import Evaluator, Score
from jaxlm.inference import Run, classify, generate, load_run
from jaxlm.models.base import (
    CONSTANTS,
    FittedModel,
    HasFit,
    HasTrainLoss,
    Params,
    with_constants,
    without_constants,
)
from jaxlm.runs import RunDir, hold, read_json, write_bytes, write_json
from jaxlm.training.loop import NATS_PER_TOKEN, Loop, Plan, Tally, step_flops
from jaxlm.training.pictures import Pictures
from jaxlm.training.setup import Job, describe, initial_state, introduce, settle
from jaxlm.training.state import Chunk, TrainState, make_chunk, make_step

FIT_LOGITS = 2**24
"""Logits in memory at once where parameters of the likelihood are fitted."""


def train(
    config: RunConfig, *, restart: bool = False, dry_run: bool = False, say: Callable[[str], None] = print
) -> Path | None:
    """Train what the settings describe, or resume it, or say that it is done. Returns the run directory.

    Raises UserError for settings, data or a run directory that cannot be used, before anything is written;
    NonFiniteLoss and Stopped as `Loop.run` does.
    """
    job = settle(config)
    introduce(job, say)
    if dry_run:
        describe(job, say)
        return None
    with hold(job.config, job.corpus, restart=restart, constants=job.arrays) as (run, state):
        if state == "done":
            say(f"{run.path} is trained already; --restart trains it again")
        else:
            with Pictures(job.corpus, run, wanted=job.config.plots) as pictures:
                pictures.begin()
                if config.model.trained_by_steps:
                    seconds = _train_by_steps(job, run, say)
                    pictures.draw_losses()
                else:
                    seconds = _fit_counts(job, run, say)
                _finish(job, run, seconds)
                pictures.end(say)
        say(run.samples.read_text("utf-8").rstrip("\n"))
        _tell_losses(run, say)
    return run.path


def _train_by_steps(job: Job, run: RunDir, say: Callable[[str], None]) -> float:
    """Everything up to the last checkpoint. Returns the seconds that training took, over all sittings."""
    config, model, mesh = job.config, job.model, job.mesh
    steps = config.steps or 1
    optimizer = optim.transformation(config.optim, steps)
    tokens, constants = job.tokens(), job.constants()
    state = initial_state(job, optimizer)
    sizes = optim.count_parameters(state.params), job.batcher.batch_size * job.targets_per_row
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
            seed=config.seed,
        )
        options = sharding.compiler_options(step_flops(*sizes))
        compiled = jax.jit(chunk, static_argnums=2, donate_argnums=0, compiler_options=options)

        def run_chunk(state: TrainState, K: int) -> tuple[TrainState, Chunk]:
            return compiled(state, tokens, K, constants)

        begin = partial(_begin_scores, _evaluator(job, tokens), job)
        log = metrics.MetricsLog(run.metrics, run.tensorboard if config.tensorboard else None)
        progress = metrics.Progress(steps, step)
        loop = Loop(
            state=state,
            run_chunk=run_chunk,
            evaluate=lambda params: begin(with_constants(params, constants)),
            fit=_fit(job, tokens, constants),
            unit=model.loss_unit if isinstance(model, HasTrainLoss) else NATS_PER_TOKEN,
            plan=plan,
            log=log,
            writer=writer,
            progress=progress,
            tally=tally,
            bytes_per_token=job.bytes_per_token,
            block=sharding.must_block(mesh),
        )
        try:
            loop.run()
        finally:
            progress.close()
            log.close()
    return max(line["time_s"] for line in metrics.read(run.metrics))


def _fit_counts(job: Job, run: RunDir, say: Callable[[str], None]) -> float:
    """Count, and save as step 1. Returns the seconds it took."""
    began = time.monotonic()
    model = cast(FittedModel[Any], job.model)
    start, end = job.corpus.bounds["train"]
    params, notes = model.fit(job.corpus.tokens_N[start:end], job.corpus.age_N[start:end])
    for note in notes:
        say(note)
    params = jax.block_until_ready(jax.device_put(params, sharding.replicated(job.mesh)))
    fitted = time.monotonic()
    dev = _begin_scores(_evaluator(job, job.tokens()), job, params)().get("dev")
    metrics.cut(run.metrics, -1)
    log = metrics.MetricsLog(run.metrics, run.tensorboard if job.config.tensorboard else None)
    if dev:
        now = time.monotonic()
        log.write(**dev.metrics_line(1, "dev", seconds=now - fitted, time_s=now - began))
    log.close()
    with checkpoint.CheckpointWriter(run.checkpoints, job.config.checkpoint.keep) as writer:
        writer.save(1, params, {"step": np.array(1, np.int32)}, dev_loss=dev.nats_per_token if dev else None, notes={})
    return fitted - began


def _finish(job: Job, run: RunDir, seconds: float) -> None:
    """Score every split with the best checkpoint, keep samples, and last eval.json, which says that the run is done."""
    best = load_run(run.path)
    evaluator = _evaluator(job, job.tokens())
    per_row = job.targets_per_row
    entries: dict[str, Any] = {}
    for split, rows in job.rows.items():
        most = max(1, job.config.eval.max_tokens // per_row) if split == "train" else len(rows)
        entries[split] = evaluator(best.params, _some(rows, most)).to_json() if len(rows) else None
    write_bytes(run.samples, _samples(job, run, best).encode("utf-8", "surrogatepass"))
    write_json(
        run.eval,
        {
            **entries,
            "params": optim.count_parameters(without_constants(best.params)),
            **({"constants": optim.count_parameters(best.params[CONSTANTS])} if CONSTANTS in best.params else {}),
            "step": best.step,
            "steps": job.config.steps or 1,
            "train_time_s": seconds,
        },
    )


def _samples(job: Job, run: RunDir, best: Run) -> str:
    sample = job.config.sample
    if not sample.n:
        return ""
    key = keys.derive(job.config.seed, keys.SAMPLES)
    texts = generate(best, n=sample.n, temperature=sample.temperature, max_tokens=sample.max_tokens, key=key)
    if job.config.data.kind != "lines":
        return "\n---\n".join(texts) + "\n"
    return show.sorted_samples(texts, classify(run.read_seen(), texts)) + "\n"


def _begin_scores(evaluator: Evaluator, job: Job, params: Params) -> Callable[[], dict[str, Score]]:
    """Start to score dev, and of train a fixed sample of equal size; what it gives waits for both."""
    dev, train_rows = job.rows["dev"], job.rows["train"]
    rows = {"dev": dev, "train_sample": _some(train_rows, len(dev) or 10_000)}
    begun = {split: evaluator.begin(params, chosen) for split, chosen in rows.items() if len(chosen)}
    return lambda: {split: wait() for split, wait in begun.items()}


def _fit(job: Job, tokens: Tokens, constants: Params) -> Callable[[Params], Params] | None:
    """What fits parameters of the likelihood alone, on a fixed sample of train; None where there are none."""
    model, batcher = job.model, job.batcher
    if not (isinstance(model, HasFit) and model.is_fitted):
        return None
    row_B = _some(job.rows["train"], max(1, FIT_LOGITS // model.vocab_size // job.targets_per_row))

    @jax.jit
    def fit(params: Params, tokens: Tokens, constants: Params) -> Params:
        fitted = model.fitted(with_constants(params, constants), *batcher.rows(tokens, jnp.asarray(row_B)))
        return without_constants(fitted)

    return lambda params: fit(params, tokens, constants)


def _some(rows: np.ndarray, most: int) -> np.ndarray:
    """All rows, or a fixed random choice of them in order."""
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, most, replace=False))


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


def _tell_losses(run: RunDir, say: Callable[[str], None]) -> None:
    result = read_json(run.eval)
    for split in corpora.SPLITS:
        entry = result[split]
        if entry is not None:
            score = Score.from_json(entry)
            say(f"{split}: {show.score_line(score)}")
    say(f"step {result['step']:,} of {result['steps']:,}, {result['train_time_s']:.1f} s, in {run.path}")
