"""What is settled before a run directory is touched: data, model, devices, and the state that training begins with."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxlm.config import RunConfig
from jaxlm.config.rean import TableConfig
from jaxlm.config.serialization import to_json
from jaxlm.data import corpus as corpora
from jaxlm.data.batches import Batcher, Tokens, prepare, sequence_length
from jaxlm.data.corpus import Corpus
from jaxlm.data.source import cache_dir
from jaxlm.devices import compilation, platform
from jaxlm.devices.mesh import check_batch, make_mesh, replicated, state_sharding
from jaxlm.errors import UserError
from jaxlm.inference import formatting
from jaxlm.models import initialization
from jaxlm.models.base import HasBuffers, LanguageModel, Params, SequenceModel, Words, axes_of
from jaxlm.rean.vectors import kept_buffers, read_vectors
from jaxlm.runs import metrics
from jaxlm.runs.directory import RunDir, dump
from jaxlm.training import optim
from jaxlm.training.init_from import Start, other_class, starting_point
from jaxlm.training.state import TrainState

WIDE = 1024
"""A size of a model from which on it is asked for its memory before it is begun."""


class Job(NamedTuple):
    """One run, ready to begin."""

    config: RunConfig
    corpus: Corpus
    model: LanguageModel[Any]
    mesh: Any
    batcher: Batcher
    host: Tokens
    rows: dict[str, np.ndarray]
    start: Start | None
    """What init_from gives; None without it."""
    learns_vectors: bool
    """Whether vectors are to be trained first; until then zeros stand in their place."""
    arrays: dict[str, np.ndarray]
    """What the model has beside its parameters (its constants), on the host; empty for most models."""

    @property
    def bytes_per_token(self) -> float:
        """Train's mean."""
        return float(self.corpus.tokenizer.bytes_of_token[self.corpus.tokens("train")].mean())

    def tokens(self) -> Tokens:
        """The corpus on every device."""
        return jax.device_put(self.host, replicated(self.mesh))

    def buffers(self) -> Params:
        """The model's constants on every device."""
        return jax.device_put(self.arrays, replicated(self.mesh))


def settle(config: RunConfig, *, resumes: bool = False) -> Job:
    """Data, model and devices of a run, with the settings filled in that depend on them.

    One that `resumes` does without its init_from, and without the run of its vectors, once it has begun.
    """
    platform.choose_device(config.device, config.gpu_memory)
    compilation.enable_cache(cache_dir())
    if config.tensorboard:
        metrics.summary_writer()
    start = starting_point(config, resumes=resumes)
    corpus = corpora.load(config.data, start.run.read_tokenizer() if start else None)
    config = dataclasses.replace(
        config, model=config.model.filled(corpus.tokenizer.vocab_size, sequence_length(config.data, corpus))
    )
    if (config.model.vocab_size or 0) < corpus.tokenizer.vocab_size:
        raise UserError(
            f"model.vocab_size wants at least the data's {corpus.tokenizer.vocab_size:,} tokens, "
            f"got {config.model.vocab_size:,}"
        )
    model = config.model.build()
    if config.data.example == "window" and isinstance(model, SequenceModel):
        raise UserError(
            f"data.example wants sequence for a {type(config.model).__name__}, which reads a text from its start, got "
            "window; give --data.example sequence"
        )
    batcher, host, rows = prepare(config, corpus, model.context, model.max_length)
    config = config.in_steps(batcher.examples, batcher.batch_size)
    mesh = make_mesh(config.mesh)
    if config.model.trained_by_steps:
        check_batch(batcher.batch_size, mesh)
        optim.schedule(config.optim, config.last_step)
    if start and start.params is not None:
        _check_same_shapes(config, model, start.run, start.params)
    chain = start is None and isinstance(config.model, TableConfig) and config.model.vectors_from is not None
    kept = kept_buffers(config) if chain and resumes else None
    arrays = _buffers(config, corpus, model, start) if kept is None else kept
    if config.model.trained_by_steps and _is_wide(config):
        _check_memory(model)
    return Job(config, corpus, model, mesh, batcher, host, rows, start, chain and kept is None, arrays)


def with_vectors(job: Job, vectors: Words) -> Job:
    """The job on vectors that have been trained."""
    assert isinstance(job.model, HasBuffers), job.model
    return job._replace(arrays=_own_buffers(job.config, job.corpus, job.model, vectors), learns_vectors=False)


def initial_state(job: Job, optimizer: optax.GradientTransformation) -> TrainState:
    """Step 0, from the seed or from another run's parameters, on the mesh."""
    if job.start is None or job.start.params is None:
        params, opt_state = initialization.untrained_state(job.config, job.model, optimizer.init)
    else:
        params, opt_state = job.start.params, jax.jit(optimizer.init)(job.start.params)
    state = TrainState(step=np.int32(0), params=params, opt_state=opt_state)  # type: ignore[arg-type]
    return jax.device_put(state, state_sharding(job.mesh, state, axes_of(job.model)))


def abstract_state(job: Job, optimizer: optax.GradientTransformation) -> TrainState:
    """Shapes, types and shardings of `initial_state`."""
    params, opt_state = initialization.abstract_state(job.model, optimizer.init)
    state = TrainState(step=np.int32(0), params=params, opt_state=opt_state)  # type: ignore[arg-type]
    like = state_sharding(job.mesh, state, axes_of(job.model))
    return jax.tree.map(lambda x, lies: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=lies), state, like)


def introduce(job: Job, log: Callable[[str], None]) -> None:
    """The start-up lines."""
    sizes = ", ".join(f"{split} {job.corpus.size(split):,}" for split in corpora.SPLITS)
    log(f"devices: {platform.describe(job.config.gpu_memory)}")
    log(f"data: {sizes} tokens, vocabulary {job.corpus.tokenizer.vocab_size:,}")


def describe(job: Job, log: Callable[[str], None]) -> None:
    """What --dry-run prints."""
    log(dump(to_json(job.config)))
    if not job.config.model.trained_by_steps:
        log("parameters: as many as the data has n-grams")
        return
    optimizer = optim.transformation(job.config.optim, job.config.last_step)
    state = abstract_state(job, optimizer)
    size = optim.count_parameters(state.params)
    targets = job.batcher.batch_size * job.batcher.targets_per_row
    bytes_of = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    log(f"parameters: {size:,}")
    if job.arrays:
        log(f"constants: {optim.count_parameters(job.arrays):,} numbers beside them, not trained")
    log(f"memory: {formatting.size(bytes_of)} of state, as much again for gradients and a checkpoint's copy each")
    log(f"tokens: {targets:,} a step, {targets * job.config.last_step:,} in {job.config.steps:,} steps")


def _buffers(
    config: RunConfig, corpus: Corpus, model: LanguageModel[Any], start: Start | None
) -> dict[str, np.ndarray]:
    """The model's constants: those of the run that it starts from, or its own."""
    if not isinstance(model, HasBuffers):
        return {}
    if start:
        return start.run.read_buffers()
    vectors = None
    if isinstance(config.model, TableConfig) and config.model.vectors is not None:
        vectors = read_vectors(config.model.vectors)
    elif isinstance(config.model, TableConfig) and config.model.vectors_from is not None:
        words = corpus.tokenizer.words
        vectors = Words(words, np.zeros((len(words), config.model.d_embed), np.float32))
    return _own_buffers(config, corpus, model, vectors)


def _own_buffers(config: RunConfig, corpus: Corpus, model: HasBuffers, vectors: Words | None) -> dict[str, np.ndarray]:
    count_V = np.bincount(corpus.tokens("train"), minlength=config.model.vocab_size or 0)
    return model.buffers(corpus.tokenizer.words, count_V, vectors, config.seed)


def _is_wide(config: RunConfig) -> bool:
    """Whether the model may be too large to be begun; to ask for its shapes takes 30 ms of a start."""
    sizes = [value for value in vars(config.model).values() if isinstance(value, int)]
    return max(sizes, default=0) >= WIDE


def _check_memory(model: LanguageModel[Any]) -> None:
    """Raise UserError where a device cannot hold the parameters and their gradients."""
    wanted = 2 * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(initialization.abstract_params(model)))
    there = platform.memory()
    if there is not None and wanted > there:
        raise UserError(
            f"the model wants {formatting.size(wanted)} for its parameters and their gradients, the device has "
            f"{formatting.size(there)}; take a smaller one"
        )


def _check_same_shapes(config: RunConfig, model: LanguageModel[Any], other: RunDir, params: Params) -> None:
    want, got = _shapes(initialization.abstract_params(model)), _shapes(params)
    differ = [
        f"{name} is {_extents(got.get(name))} there, {_extents(want.get(name))} here"
        for name in {**want, **got}
        if want.get(name) != got.get(name)
    ]
    if differ:
        theirs = other.read_config().model
        if type(theirs).__name__ != type(config.model).__name__:
            raise other_class(config, theirs)
        raise UserError(f"init_from {config.init_from!r} has other parameters than this model: {'; '.join(differ)}")


def _shapes(params: Params) -> dict[str, tuple[int, ...]]:
    return {name: leaf.shape for name, leaf in initialization.by_name(params).items()}


def _extents(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else " x ".join(map(str, shape)) or "a number"
