"""Language models: from a settled job to a trained one, its scores and its samples."""

import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import RunConfig
from jaxlm.data.batches import Tokens
from jaxlm.data.bigrams import count_pairs, save_pairs
from jaxlm.data.corpus import SPLITS, Corpus
from jaxlm.devices import compilation
from jaxlm.devices.mesh import must_block, replicated
from jaxlm.inference import formatting
from jaxlm.inference.evaluation import NATS_PER_TOKEN, Evaluator, Score, token_fields
from jaxlm.models.base import (
    BUFFERS,
    FittedModel,
    HasFit,
    HasTrainLoss,
    Params,
    with_buffers,
    without_buffers,
)
from jaxlm.rean.vectors import read_vectors, recipe
from jaxlm.runs import checkpoints, metrics
from jaxlm.runs.directory import RunDir, write_bytes, write_json
from jaxlm.runs.loading import Run, load_run
from jaxlm.training import optim
from jaxlm.training.background import background_thread, nice_afterwards
from jaxlm.training.draws import Draws
from jaxlm.training.fit import Task, fit
from jaxlm.training.pictures import Pictures
from jaxlm.training.plan import Plan
from jaxlm.training.points import Best
from jaxlm.training.samples import compile_samples, draw_samples
from jaxlm.training.setup import Job, abstract_state, describe, initial_state, introduce, settle, with_vectors
from jaxlm.training.state import Chunk, TrainState, make_chunk, make_step
from jaxlm.training.work import Work
from jaxlm.word2vec.training import Word2vecWork

FIT_LOGITS = 2**24
"""Logits in memory at once where parameters of the likelihood are fitted."""


class Ending(NamedTuple):
    """A trained model, scored."""

    best: Run
    """The run with its best parameters."""
    entries: dict[str, Any]
    """eval.json's for each split; train is scored as far as eval.max_tokens goes."""


class LanguageWork:
    """A language model's part in `train`."""

    def __init__(self, config: RunConfig, *, resumes: bool = False):
        self.job = settle(config, resumes=resumes)

    @property
    def config(self) -> RunConfig:
        """The resolved settings."""
        return self.job.config

    @property
    def corpus(self) -> Corpus:
        """The data."""
        return self.job.corpus

    @property
    def buffers(self) -> dict[str, np.ndarray]:
        """What the model has beside its parameters."""
        return self.job.arrays

    @property
    def init_from(self) -> str | None:
        """The hash of what it starts from."""
        return self.job.start.content if self.job.start else None

    @property
    def before(self) -> Work | None:
        """The training of vectors that comes first."""
        return Word2vecWork(recipe(self.config), self.corpus) if self.job.learns_vectors else None

    def follow(self, before: RunDir) -> None:
        """Take the vectors that came first."""
        self.job = with_vectors(self.job, read_vectors(str(before.path)))

    def introduce(self, log: Callable[[str], None]) -> None:
        """The start-up lines."""
        introduce(self.job, log)

    def describe(self, log: Callable[[str], None]) -> None:
        """What --dry-run prints."""
        describe(self.job, log)

    def train(self, run: RunDir, log: Callable[[str], None]) -> None:
        """All that makes a run directory complete, pictures beside it; last eval.json."""
        ends: list[Ending] = []
        with Pictures(run, wanted=self.config.plots) as pictures:

            def draw() -> None:
                pictures.draw(lambda: save_pairs(count_pairs(self.job.corpus), run.pairs))

            if self.config.model.trained_by_steps:
                draws = Draws(self.job.batcher, self.config.seed, self.config.last_step)
                with background_thread("samples") as beside:

                    def meanwhile() -> None:
                        draws.draw_ahead()
                        draw()

                    @cache
                    def when_scored() -> None:
                        beside.submit(compile_samples, self.job, run)

                    def when_told(best: Best | None) -> None:
                        pictures.draw_losses()
                        if best:
                            ends.append(_ending(self.job, run, log, best))

                    task = _task(self.job, draws, when_scored)
                    seconds = fit(task, run, log, meanwhile=meanwhile, when_told=when_told)
            else:
                draw()
                seconds, best = _fit_counts(self.job, run, log)
                ends.append(_ending(self.job, run, log, best))
            result = _finish(self.job, run, ends[0] if ends else _ending(self.job, run, log), seconds)
            pictures.end(log)
        write_json(run.eval, result)

    def tell_losses(self, run: RunDir, log: Callable[[str], None]) -> None:
        """The losses of a finished run."""
        result = run.read_eval()
        for split in SPLITS:
            if result[split] is not None:
                log(f"{split}: {formatting.score_line(Score.from_json(result[split]))}")


def _task(job: Job, draws: Draws, when_scored: Callable[[], None]) -> Task:
    """What the loop trains. `when_scored` is called each time the parameters have been scored: the place to begin work
    that must not delay the scores' program, for which the first save waits.
    """
    config, mesh = job.config, job.mesh
    steps = config.last_step
    optimizer = optim.transformation(config.optim, steps)
    tokens, buffers = job.tokens(), job.buffers()
    abstract = abstract_state(job, optimizer)
    sizes = optim.count_parameters(abstract.params), job.batcher.batch_size * job.batcher.targets_per_row
    plan = Plan.of(config, *sizes)
    chunk = make_chunk(
        make_step(job.model, optimizer, config.optim.l2),
        job.batcher,
        optim.schedule(config.optim, steps),
        mesh,
        seed=config.seed,
    )
    options = compilation.step_options()
    lies = jax.tree.map(lambda x: x.sharding, abstract), None
    compiled = jax.jit(chunk, donate_argnums=0, out_shardings=lies, compiler_options=options)
    lowered = compiled.lower(abstract, tokens, job.batcher.draw(config.seed, range(plan.chunk)), buffers)
    # the two largest programs of the start are compiled at once
    with nice_afterwards(), ThreadPoolExecutor(max_workers=1) as beside:
        beside.submit(lowered.compile)
        state = initial_state(job, optimizer)

    def run_chunk(state: TrainState, step: int, K: int) -> tuple[TrainState, Chunk]:
        return compiled(state, tokens, draws.take(step, K), buffers)

    evaluator = _evaluator(job, tokens)

    def evaluate(params: Params) -> dict[str, Score]:
        scores = _scores(evaluator, job, with_buffers(params, buffers))
        when_scored()
        return scores

    return Task(
        config=config,
        state=state,
        plan=plan,
        run_chunk=run_chunk,
        evaluate=evaluate,
        loss_fields=_loss_fields(job),
        calibrate=_calibrate(job, tokens, buffers),
        beside=mesh.size == 1,
        block=must_block(mesh),
        may_begin=job.start is None or job.start.params is not None,
    )


def _fit_counts(job: Job, run: RunDir, log: Callable[[str], None]) -> tuple[float, Best]:
    """Count, and save as step 1; the seconds that counting took, and the counts."""
    began = time.monotonic()
    model = cast(FittedModel[Any], job.model)
    start, end = job.corpus.bounds["train"]
    params, notes = model.fit(job.corpus.tokens_N[start:end], job.corpus.age_N[start:end])
    for note in notes:
        log(note)
    params = jax.block_until_ready(jax.device_put(params, replicated(job.mesh)))
    counted = time.monotonic()
    scores = _scores(_evaluator(job, job.tokens()), job, params)
    dev = scores.get("dev")
    metrics.cut(run.metrics, -1)
    metrics_log = metrics.MetricsLog(run.metrics, run.tensorboard if job.config.tensorboard else None)
    if dev:
        now = time.monotonic()
        metrics_log.write(**dev.metrics_line(1, "dev", seconds=now - counted, time_s=now - began))
    metrics_log.close()
    with checkpoints.CheckpointWriter(run.checkpoints, job.config.checkpoint.keep) as writer:
        writer.save(1, params, {"step": np.array(1, np.int32)}, dev_loss=dev.nats_per_token if dev else None, notes={})
    return counted - began, Best(params, scores)


def _ending(job: Job, run: RunDir, log: Callable[[str], None], known: Best | None = None) -> Ending:
    """Score every split that is not yet, with the parameters that are known to be the best, or else with the best
    checkpoint.
    """
    if known is None:
        loaded = load_run(run.path, log=log)
        best = dataclasses.replace(loaded, model=job.model)  # programs are compiled for this object
    else:
        params = with_buffers(known.params, job.buffers())
        best = Run(run.path, job.config, job.corpus.tokenizer, job.model, params, job.config.last_step)
    evaluator = _evaluator(job, job.tokens())
    scores = dict(known.scores) if known else {}
    for split, rows in job.rows.items():
        most = max(1, job.config.eval.max_tokens // job.batcher.targets_per_row) if split == "train" else len(rows)
        if len(rows) and split not in scores:
            scores[split] = evaluator(best.params, _some(rows, most))
    entries = {split: cast(Score, scores[split]).to_json() if split in scores else None for split in job.rows}
    return Ending(best, entries)


def _finish(job: Job, run: RunDir, ending: Ending, seconds: float) -> dict[str, Any]:
    """Keep samples, and give what eval.json is to say."""
    best = ending.best
    samples, decoded_per_s = draw_samples(job, run, best)
    write_bytes(run.samples, samples.encode("utf-8", "surrogatepass"))
    return {
        **ending.entries,
        "params": optim.count_parameters(without_buffers(best.params)),
        **({"buffers": optim.count_parameters(best.params[BUFFERS])} if BUFFERS in best.params else {}),
        "step": best.step,
        "steps": job.config.last_step,
        "train_time_s": seconds,
        "decoded_tokens_per_s": decoded_per_s,
    }


def _scores(evaluator: Evaluator, job: Job, params: Params) -> dict[str, Score]:
    """The scores of dev, and of a fixed sample of train of equal size."""
    dev, train_rows = job.rows["dev"], job.rows["train"]
    rows = {"dev": dev, "train_sample": _some(train_rows, len(dev) or 10_000)}
    return {split: evaluator(params, chosen) for split, chosen in rows.items() if len(chosen)}


def _loss_fields(job: Job) -> Callable[[float], dict[str, Any]]:
    """What a train line says of the loss: of one that is no likelihood, its unit alone."""
    if isinstance(job.model, HasTrainLoss) and job.model.loss_unit != NATS_PER_TOKEN:
        unit = job.model.loss_unit
        return lambda loss: {"unit": unit, "nats_per_token": None, "bits_per_byte": None}
    return partial(token_fields, bytes_per_token=job.bytes_per_token)


def _calibrate(job: Job, tokens: Tokens, buffers: Params) -> Callable[[Params], Params] | None:
    """What fits parameters of the likelihood alone, on a fixed sample of train; None where there are none."""
    model, batcher = job.model, job.batcher
    if not (isinstance(model, HasFit) and model.is_fitted):
        return None
    row_B = _some(job.rows["train"], max(1, FIT_LOGITS // model.vocab_size // job.batcher.targets_per_row))

    @jax.jit
    def fitted(params: Params, tokens: Tokens, buffers: Params) -> Params:
        params = model.fitted(with_buffers(params, buffers), *batcher.rows(tokens, jnp.asarray(row_B)))
        return without_buffers(params)

    return lambda params: fitted(params, tokens, buffers)


def _some(rows: np.ndarray, most: int) -> np.ndarray:
    """All rows, or a fixed random choice of them in order."""
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, most, replace=False))


def _evaluator(job: Job, tokens: Tokens) -> Evaluator:
    return Evaluator(job.model, job.batcher, tokens, job.corpus.tokenizer.bytes_of_token, job.mesh)
