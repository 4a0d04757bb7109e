"""Assembly of a language model's data, model and devices, before a run directory is touched."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.config import MixtureConfig, ModelConfig, PreparedTokensConfig, RunConfig
from jaxlm.config.run import no_dev_split
from jaxlm.config.transformer import TransformerConfig
from jaxlm.data import corpus as corpora
from jaxlm.data.corpus import SPLITS, Corpus
from jaxlm.data.dataset import Dataset
from jaxlm.data.rows import sequence_length
from jaxlm.data.shard_dataset import ShardDataset
from jaxlm.data.shards import Shards, is_directory, open_shards, refuse_settings_of_text
from jaxlm.data.source import cache_dir
from jaxlm.devices import compilation, platform
from jaxlm.devices.mesh import (
    bytes_of_a_device,
    check_batch,
    make_mesh,
    replicated,
    row_sharder,
    rows_multiple,
)
from jaxlm.devices.placing import place, process_rows
from jaxlm.errors import UserError
from jaxlm.inference.evaluation import EVAL_TOKENS, Evaluator
from jaxlm.models.base import LanguageModel, Params, SequenceModel, axes_of
from jaxlm.models.check import build
from jaxlm.models.initialization import abstract_state
from jaxlm.models.mixture import Mixture
from jaxlm.models.transformer import attention_of
from jaxlm.runs import sinks
from jaxlm.tokenizers import Tokenizer
from jaxlm.training import optim
from jaxlm.training.init_from import check_same_parameters, starting_point
from jaxlm.training.program import Program

WIDE = 1024
"""Check memory if any dimension of the model is at least this: asking for shapes takes 30 ms of a start."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup(Program):
    """A language model with its data on its devices."""

    corpus: Corpus | Shards
    dataset: Dataset | ShardDataset
    buffers: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """Arrays of the model that are not trained, on the host."""

    @cached_property
    def placed_buffers(self) -> Params:
        """The buffers, replicated on every device."""
        return place(self.buffers, replicated(self.mesh))

    @property
    def text(self) -> Corpus:
        """The corpus of a model that needs all of it in memory, to which `set_up` gives no shards."""
        assert isinstance(self.corpus, Corpus), self.corpus
        return self.corpus

    @property
    def batch_tokens(self) -> int:
        """Predictions in a batch, padding included."""
        return self.dataset.batch_size * self.dataset.targets_per_row

    @cached_property
    def evaluator(self) -> Evaluator:
        """Evaluates rows of the data set, in blocks that take a second at most, so that a signal is soon noticed."""
        trained = self.config.model.trained_by_steps
        in_a_second = platform.flops_per_second() / (2 * max(self.parameters, 1)) if trained else EVAL_TOKENS
        return Evaluator(
            self.model,
            self.dataset,
            self.corpus.tokenizer.bytes_of_token,
            mesh=self.mesh,
            most=max(1, min(EVAL_TOKENS, int(in_a_second))),
        )


def set_up(config: RunConfig, *, resumes: bool = False, dry_run: bool = False, takes_shards: bool = False) -> Setup:
    """Choose the devices, read the data, build the model, and fill in the settings that depend on the data.

    A run that `resumes` from a checkpoint does not need its init_from; a `dry_run`, which only shows sizes, may have a
    model that is too large for the device. `takes_shards`: the training reads rows alone, so that its data may be token
    shards on disk. Raises UserError.
    """
    platform.choose_device(config.device, config.gpu_memory)
    compilation.enable_cache(cache_dir())
    sinks.check_installed(config)
    start = starting_point(config, resumes=resumes)
    given = start.run.read_tokenizer() if start else None
    corpus: Corpus | Shards
    if is_directory(config.data):
        corpus = _shards(config, given, takes_shards)
        length = config.data.max_length
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, tokens=PreparedTokensConfig()))
    else:
        corpus = corpora.load(config.data, given)
        length = sequence_length(config.data, corpus)
    config = dataclasses.replace(config, model=config.model.filled(corpus.tokenizer.vocab_size, length))
    if (config.model.vocab_size or 0) < corpus.tokenizer.vocab_size:
        raise UserError(
            f"model.vocab_size wants at least the data's {corpus.tokenizer.vocab_size:,} tokens, "
            f"got {config.model.vocab_size:,}"
        )
    model = build(config.model, decodes=config.sample.n > 0, eos=corpus.tokenizer.eos)
    if config.data.example == "window" and isinstance(model, SequenceModel | Mixture):
        raise UserError(
            f"data.example wants sequence for a {type(config.model).__name__}, which reads a text from its start, got "
            "window; give --data.example sequence"
        )
    mesh = make_mesh(config.mesh)
    multiple = rows_multiple(mesh) * config.optim.accumulate
    window = config.data.example == "window"
    predictions = 1 if window else min(length, model.max_length or config.data.max_length)
    config = config.in_rows(predictions, multiple)
    shard_rows = row_sharder(mesh) if mesh.size > 1 else None
    dataset: Dataset | ShardDataset
    if isinstance(corpus, Shards):
        dataset = ShardDataset(
            config, corpus, max_length=model.max_length, shard_rows=shard_rows, own_rows=process_rows(mesh)
        )
    else:
        dataset = Dataset(
            config,
            corpus,
            context=model.context,
            max_length=model.max_length,
            row_multiple=multiple,
            shard_rows=shard_rows,
            replicated=replicated(mesh),
        )
    config = config.in_steps(dataset.examples, dataset.rows_per_step, dataset.targets_per_row)
    if config.model.trained_by_steps:
        check_batch(dataset.batch_size, mesh, config.optim.accumulate)
        optim.schedule(config.optim, config.last_step)
        if config.eval.patience is not None and not len(dataset.rows["dev"]):
            raise no_dev_split()
        optim.check_matrices(config.optim, axes_of(model), lambda: abstract_state(model)[0])
        if start and start.params is not None:
            check_same_parameters(config, abstract_state(model)[0], start)
        if _is_wide(config) and not dry_run:
            _check_memory(model, mesh)
    return Setup(config=config, corpus=corpus, model=model, mesh=mesh, dataset=dataset, start=start)


def _shards(config: RunConfig, tokenizer: Tokenizer | None, takes_shards: bool) -> Shards:
    """Open the shards that data.path names; `tokenizer` is that of the run that init_from names."""
    if not takes_shards:
        raise UserError(
            f"data.path wants a text file for a {type(config.model).__name__}, which needs all of train in memory, got "
            f"the directory {config.data.path!r}"
        )
    corpus = open_shards(Path(config.data.path or ""))
    refuse_settings_of_text(config.data)
    if tokenizer is not None and tokenizer != corpus.tokenizer:
        raise UserError(
            f"init_from {config.init_from!r} has another tokenizer than the shards {config.data.path!r}: prepare the "
            f"text with --tokens {config.init_from}"
        )
    return corpus


def summary(setup: Setup) -> list[str]:
    """The lines that are logged before training."""
    sizes = ", ".join(f"{split} {setup.corpus.size(split):,}" for split in SPLITS)
    return [
        f"devices: {platform.describe(setup.config.gpu_memory)}",
        f"data: {sizes} tokens, vocabulary {setup.corpus.tokenizer.vocab_size:,}",
        *setup.corpus.notes,
        *attention_note(setup.config.model),
        *optim.warmup_note(setup.config.optim, setup.config.last_step),
    ]


def attention_note(config: ModelConfig) -> list[str]:
    """A line about a transformer's attention; none for other models."""
    config = config.network if isinstance(config, MixtureConfig) else config
    if not isinstance(config, TransformerConfig):
        return []
    kind = attention_of(config)
    return [f"attention: {kind.name} ({kind.reason})"]


def some_rows(row_R: Sequence[int] | np.ndarray, most: int) -> np.ndarray:
    """Select at most `most` rows, which lie side by side: all, or a fixed random sample in order."""
    if len(row_R) <= most:
        return np.asarray(row_R, np.int64)
    chosen_R = np.sort(np.random.default_rng(0).choice(len(row_R), most, replace=False))
    return chosen_R.astype(np.int64) + row_R[0]


def _is_wide(config: RunConfig) -> bool:
    sizes = [value for value in vars(config.model).values() if isinstance(value, int)]
    return max(sizes, default=0) >= WIDE


def _check_memory(model: LanguageModel[Any], mesh: Any) -> None:
    """Raise UserError if a device cannot hold its part of the parameters and of their gradients."""
    wanted = 2 * bytes_of_a_device(mesh, abstract_state(model)[0], axes_of(model))
    there = platform.memory()
    if there is not None and wanted > there:
        raise UserError(
            f"the model wants {platform.bytes_in_words(wanted)} of each device for its parameters and their gradients, "
            f"the device has {platform.bytes_in_words(there)}; take a smaller one, or more devices along mesh.fsdp"
        )
