"""The job of a word2vec run: preparation, training of vectors, their losses and their neighbours."""

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import DataConfig, RunConfig, Word2vecConfig
from jaxlm.config.run import no_dev_split
from jaxlm.config.settings import refuse_unused
from jaxlm.data.corpus import SPLITS
from jaxlm.data.source import cache_dir
from jaxlm.devices import compilation, platform
from jaxlm.embeddings import maps
from jaxlm.errors import UserError
from jaxlm.inference.evaluation import Stop, never
from jaxlm.models.base import Params
from jaxlm.ops import prng
from jaxlm.plots.word_points import save_points
from jaxlm.runs import metrics, sinks
from jaxlm.runs.directory import RunDir, write_bytes
from jaxlm.tokenizers import visible
from jaxlm.training import optim
from jaxlm.training.cadence import Cadence
from jaxlm.training.finish import draw_pictures
from jaxlm.training.init_from import Start, starting_point
from jaxlm.training.job import Job
from jaxlm.training.state import Chunk, TrainState
from jaxlm.word2vec import corpus as word_corpora
from jaxlm.word2vec.corpus import WordCorpus
from jaxlm.word2vec.loading import load_vectors
from jaxlm.word2vec.reader import EVALUATION, Reader
from jaxlm.word2vec.small_vocabulary import bounded, initial_loss, one_by_one, unigram_loss
from jaxlm.word2vec.step import PairLoss, Trainer, pair_fields

NEIGHBOURS = 5
"""Neighbours of each word in samples.txt."""
MAPPED = 200
"""Most frequent words shown in the map of words."""
ONE_WORD_LINES = ("ssa_2017", "makemore")
"""Named data sets whose lines are single words, without neighbours to train on."""
MOST_EVALUATED = 2**20
"""Words of dev that are evaluated during training, about; eval.json reads all of it."""
SHOWN_RANKS = 2000
"""The words of samples.txt are spread evenly over this many of the most frequent words."""


def prepare(
    config: RunConfig, *, restart: bool = False, dry_run: bool = False, log: Callable[[str], None] = print
) -> Job:
    """Prepare the job of a word2vec run. Raises UserError."""
    model = config.model
    assert isinstance(model, Word2vecConfig)
    _check_text(config.data)
    _check_optimizer(config)
    platform.choose_device(config.device, config.gpu_memory)
    compilation.enable_cache(cache_dir())
    sinks.check_installed(config)
    corpus = word_corpora.load(config.data)
    size = corpus.tokenizer.vocab_size
    if model.vocab_size not in (None, size):
        raise UserError(f"model.vocab_size wants the {size} words of the data or none, got {model.vocab_size}")
    if not corpus.size("train"):
        raise UserError("data.split wants at least one sentence in train, got none")
    if config.eval.patience is not None and not corpus.size("dev"):
        raise no_dev_split()
    resolved = dataclasses.replace(config, model=dataclasses.replace(model, vocab_size=size))
    return VectorJob(resolved, corpus, starting_point(config, resumes=not restart), log)


class VectorJob(Job):
    """A training of word vectors."""

    def __init__(self, config: RunConfig, corpus: WordCorpus, start: Start | None, log: Callable[[str], None]):
        assert isinstance(config.model, Word2vecConfig)
        self.config, self.corpus, self.log, self.buffers = config, corpus, log, {}
        self.initial_loss = initial_loss(config.model, corpus.tokenizer.counts)
        self.model = bounded(config.model, corpus.tokenizer.counts).build()
        self.readers = {split: self._reader(split) for split in SPLITS}
        self.config = config.in_steps(self.readers["train"].steps, 1)
        self._start = start
        self.init_hash = start.content if start else None
        self.may_begin = start is None or start.params is not None
        if start and start.params is not None:
            self._check_fits(start.run, start.params)

    @property
    def data(self) -> WordCorpus:
        """The corpus."""
        return self.corpus

    def summary(self) -> list[str]:
        """The lines that are logged before training."""
        sizes = ", ".join(f"{split} {self.corpus.size(split):,}" for split in SPLITS)
        return [
            f"devices: {platform.describe(self.config.gpu_memory)}",
            f"data: {self.corpus.total_words:,} words, those of the vocabulary and ends of sentences: {sizes}; "
            f"vocabulary {self.corpus.tokenizer.vocab_size:,}",
            *self.corpus.notes,
            *optim.warmup_note(self.config.optim, self.config.last_step),
        ]

    def details(self) -> list[str]:
        """Parameters, memory, and words of the run."""
        words = self.readers["train"].step_words
        memory = platform.bytes_in_words(4 * self._size)
        return [
            f"parameters: {self._size:,}",
            f"memory: {memory} of vectors; beside them the rows of a step",
            f"words: {words:,} a step, {words * self.config.last_step:,} in {self.config.steps:,} steps",
        ]

    def cadence(self, chunk: int | None) -> Cadence:
        """The cadence of the run, by the device's speed."""
        words, rate = self.readers["train"].step_words, platform.flops_per_second()
        dev = 3 * len(self.readers["dev"].id_N)  # an evaluation is a step at a rate of 0
        return Cadence.of(self.config, self._size, words, rate=rate, chunk=chunk, eval_tokens=dev)

    def abstract_state(self) -> TrainState:
        """Shapes, types and the device of the state."""
        state = jax.eval_shape(self._state, jax.eval_shape(self._initial_params))
        place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state)

    def initial_state(self) -> TrainState:
        """The state before the first step."""
        given = self._start.params if self._start else None
        params = jax.jit(self._initial_params)() if given is None else given
        return jax.device_put(self._state(params), jax.devices()[0])

    def run_chunk(self, state: TrainState, step: int, K: int) -> tuple[TrainState, Chunk]:
        """Run the K steps after `step`, waiting for each before the next."""
        params, reader = state.params, self.readers["train"]
        losses, counts, lr = [], [], 0.0
        for number in range(step, step + K):
            lr = float(self._rate(number))
            params, nats, counted = self._trainer.step(params, reader, number, lr)
            losses.append(nats / max(counted.pairs, 1))
            counts.append(counted)
        chunk = Chunk(
            loss_K=np.array(losses),
            count_K=np.array([one.words for one in counts]),
            lr=lr,
            weight_K=np.array([one.pairs for one in counts]),
        )
        return TrainState(step=state.step + K, params=params, opt_state=state.opt_state), chunk

    def evaluate(self, params: Params, stop: Stop = never) -> dict[str, PairLoss]:
        """Evaluate dev, if it has pairs, on about MOST_EVALUATED of its words."""
        score = self._score(params, "dev", MOST_EVALUATED, stop)
        return {"dev": score} if score else {}

    def loss_fields(self, mean: float) -> dict[str, Any]:
        """The fields of a train line beside its mean loss."""
        return pair_fields()

    def finish(self, run: RunDir, seconds: float) -> dict[str, Any]:
        """Evaluate all splits, write neighbours and the map of words; returns the content of eval.json."""
        best = load_vectors(run.path, log=self.log)
        params = jax.device_put(best.params, jax.devices()[0])
        write_bytes(run.samples, self._neighbours(np.asarray(params["input"])).encode("utf-8", "surrogatepass"))
        some = self.config.eval.max_tokens // self.model.config.window
        entries = {split: self._score(params, split, some if split == "train" else None) for split in SPLITS}
        if self.config.plots and len(best.tokenizer.words) >= maps.FEWEST:
            run.plots.mkdir(exist_ok=True)
            save_points(*maps.project_words(best.embeddings(), None, MAPPED), run.word_points)
            draw_pictures(run, self.log)
        result: dict[str, Any] = {split: score.to_json() if score else None for split, score in entries.items()}
        counts = {"params": self._size, "step": best.step, "steps": self.config.steps, "train_time_s": seconds}
        return {
            **result,
            "baselines": {"unigram": unigram_loss(self.model.config, self.corpus.tokenizer.counts)},
            **counts,
        }

    def losses(self, result: dict[str, Any], run: RunDir) -> list[str]:
        """One line for each split, and a warning if train had no pair of words."""
        lines = []
        trained = [line["loss"] for line in metrics.read(run.metrics) if line["split"] == "train"]
        if trained and all(loss is None for loss in trained):
            lines.append(
                "no pair of words was left in train, and none was trained: model.subsample 0 keeps the frequent words, "
                "a smaller data.tokens.min_count the rare ones"
            )
        for split in SPLITS:
            if result[split] and result[split]["loss"] is not None:
                lines.append(f"{split}: {result[split]['loss']:.4f} nats/pair ({result[split]['pairs']:,} pairs)")
        return lines

    @cached_property
    def _trainer(self) -> Trainer:
        words, size = self.readers["train"].step_words, self.corpus.tokenizer.vocab_size
        return Trainer(self.model, one_by_one=one_by_one(self.model.config, size, words))

    @cached_property
    def _rate(self) -> Any:
        return jax.jit(optim.schedule(self.config.optim, self.config.last_step))

    @cached_property
    def _size(self) -> int:
        return optim.count_parameters(jax.eval_shape(self._initial_params))

    def _initial_params(self) -> Params:
        return self.model.init(prng.derive(self.config.seed, prng.PARAMETERS))

    def _state(self, params: Params) -> TrainState:
        opt_state = optim.transformation(self.config.optim, self.config.last_step).init(params)
        return TrainState(step=jnp.int32(0), params=params, opt_state=opt_state)

    def _reader(self, split: str) -> Reader:
        size = self.config.batch_size
        words = max(1, self.corpus.size(split)) if size == "full" else size
        counts, offset = self.corpus.tokenizer.counts, 0 if split == "train" else EVALUATION
        return Reader(self.model.config, self.corpus.ids[split], counts, words, self.config.seed, offset)

    def _check_fits(self, other: RunDir, params: Params) -> None:
        path = self.config.init_from
        if other.read_words().words != self.corpus.tokenizer.words:
            raise UserError(f"init_from {path!r} has another vocabulary than this data")
        want, got = (
            {name: x.shape for name, x in tree.items()} for tree in (jax.eval_shape(self._initial_params), params)
        )
        if want != got:
            raise UserError(f"init_from {path!r} has parameters {got}, this model wants {want}")

    def _score(self, params: Params, split: str, most: int | None, stop: Stop = never) -> PairLoss | None:
        """Evaluate a split, by evenly spread steps of about `most` words; None if it has no pairs."""
        reader = self.readers[split]
        if split == "train":
            reader = dataclasses.replace(reader, offset=EVALUATION)
        if not len(reader.id_N):
            return None
        every = 1 if most is None else max(1, reader.steps // max(1, most // reader.step_words))
        score = self._trainer.score(params, reader, range(0, reader.steps, every), stop)
        return score if score.pairs else None

    def _neighbours(self, input_VE: np.ndarray) -> str:
        """List the nearest words by cosine for words spread over the ranks, one word a line."""
        words = [visible(word) for word in self.corpus.tokenizer.words]
        shown = min(len(words), SHOWN_RANKS)
        rank_N = np.unique(np.linspace(0, shown - 1, min(self.config.sample.n, shown)).astype(int))
        unit_VE = input_VE / np.maximum(np.linalg.norm(input_VE, axis=1, keepdims=True), 1e-12)
        cosine_NV = unit_VE[rank_N] @ unit_VE.T
        cosine_NV[np.arange(len(rank_N)), rank_N] = -np.inf
        lines = []
        for rank, cosine_V in zip(rank_N.tolist(), cosine_NV, strict=True):
            near = np.argsort(-cosine_V, kind="stable")[: min(NEIGHBOURS, len(words) - 1)]
            lines.append(f"{words[rank]}: {' '.join(words[word] for word in near.tolist())}\n")
        return "".join(lines)


def _check_text(data: DataConfig) -> None:
    if data.path is None and data.name in ONE_WORD_LINES:
        raise UserError(
            f"data.path wants a text of sentences for word2vec, got none: the names of data.name {data.name} stand "
            "alone on their lines; give --data.path FILE"
        )


def _check_optimizer(config: RunConfig) -> None:
    optimizer = config.optim
    if optimizer.name != "sgd" or optimizer.momentum or optimizer.clip is not None or optimizer.l2:
        raise UserError(
            "optim wants plain sgd for word2vec, whose updates touch the rows of a window only: "
            "no adamw, muon, momentum, clip or l2"
        )
    names = ("z_loss", "accumulate", "ema", "skip_nonfinite")
    refuse_unused(optimizer, names, f"a {type(config.model).__name__}", "a language model")
