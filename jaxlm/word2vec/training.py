"""word2vec: from settings to trained vectors, their losses and their neighbours."""

import dataclasses
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import DataConfig, RunConfig, Word2vecConfig, WordsConfig
from jaxlm.config.serialization import to_json
from jaxlm.data import corpus as corpora
from jaxlm.data.corpus import SPLITS, Corpus
from jaxlm.data.source import cache_dir
from jaxlm.devices import compilation, platform
from jaxlm.embeddings import maps
from jaxlm.errors import UserError
from jaxlm.inference import formatting
from jaxlm.models.base import Params
from jaxlm.ops import prng
from jaxlm.plots.word_points import save_map
from jaxlm.runs import metrics
from jaxlm.runs.directory import RunDir, dump, write_bytes, write_json
from jaxlm.runs.loading import VectorRun, load_vectors
from jaxlm.tokenizers import visible
from jaxlm.training import optim
from jaxlm.training.fit import Task, fit
from jaxlm.training.init_from import starting_point
from jaxlm.training.pictures import Pictures
from jaxlm.training.plan import Plan
from jaxlm.training.state import Chunk, TrainState
from jaxlm.word2vec import corpus as word_corpora
from jaxlm.word2vec.corpus import WordCorpus
from jaxlm.word2vec.reader import EVALUATION, Reader
from jaxlm.word2vec.steps import PairScore, Trainer, pair_fields

NEIGHBOURS = 5
"""Of each word in samples.txt."""
MAPPED = 200
"""The most frequent words, in the picture."""
ONE_WORD_LINES = ("ssa_2017", "makemore")
"""Named sets in which no word has a neighbour."""
SHOWN_RANKS = 2000
"""The words in samples.txt are spread evenly over so many of the most frequent."""


class Word2vecWork:
    """word2vec's part in `train`."""

    def __init__(self, config: RunConfig, corpus: Corpus | None = None, *, resumes: bool = False):
        model = config.model
        assert isinstance(model, Word2vecConfig)
        if corpus is None:
            _check_text(config.data)
        _check_optimizer(config)
        platform.choose_device(config.device, config.gpu_memory)
        compilation.enable_cache(cache_dir())
        if config.tensorboard:
            metrics.summary_writer()
        self.corpus = _words_of(config, model, corpus)
        size = self.corpus.tokenizer.vocab_size
        if model.vocab_size not in (None, size):
            raise UserError(f"model.vocab_size wants the {size} words of the data or none, got {model.vocab_size}")
        filled = dataclasses.replace(model, vocab_size=size)
        self.model = filled.build()
        self.config = dataclasses.replace(config, model=filled)
        self.readers = {split: self._reader(split) for split in SPLITS}
        if not self.corpus.size("train"):
            raise UserError("data.split wants at least one sentence in train, got none")
        self.config = self.config.in_steps(self.readers["train"].steps, 1)
        self._start = starting_point(config, resumes=resumes)
        if self._start and self._start.params is not None:
            self._check_fits(self._start.run, self._start.params)

    @property
    def buffers(self) -> dict[str, np.ndarray]:
        """None beside the parameters."""
        return {}

    @property
    def init_from(self) -> str | None:
        """The hash of what it starts from."""
        return self._start.content if self._start else None

    @property
    def before(self) -> None:
        """Nothing comes first."""

    def follow(self, before: RunDir) -> None:
        """Nothing is taken."""

    def introduce(self, log: Callable[[str], None]) -> None:
        """The start-up lines."""
        sizes = ", ".join(f"{split} {self.corpus.size(split):,}" for split in SPLITS)
        log(f"devices: {platform.describe(self.config.gpu_memory)}")
        log(
            f"data: {self.corpus.total_words:,} words, those of the vocabulary and ends of sentences: {sizes}; "
            f"vocabulary {self.corpus.tokenizer.vocab_size:,}"
        )

    def describe(self, log: Callable[[str], None]) -> None:
        """What --dry-run prints."""
        log(dump(to_json(self.config)))
        size = optim.count_parameters(jax.eval_shape(self._initial_params))
        log(f"parameters: {size:,}")
        log(f"memory: {formatting.size(4 * size)} of vectors, twice with a checkpoint's copy; the rows of a step")
        words = self.readers["train"].step_words
        log(f"words: {words:,} a step, {words * self.config.last_step:,} in {self.config.steps:,} steps")

    def train(self, run: RunDir, log: Callable[[str], None]) -> None:
        """Steps, losses, neighbours, pictures."""
        seconds = fit(self.task(), run, log)
        best = load_vectors(run.path, log=log)
        params = jax.device_put(best.params, jax.devices()[0])
        enough = len(best.tokenizer.words) >= maps.FEWEST
        with Pictures(run, wanted=self.config.plots and enough) as pictures:
            pictures.draw(partial(_save_map, best, run))
            pictures.draw_losses()
            write_bytes(run.samples, self._neighbours(np.asarray(params["input"])).encode("utf-8", "surrogatepass"))
            entries = {split: self._score(params, split) for split in SPLITS}
            result: dict[str, Any] = {split: score.to_json() if score else None for split, score in entries.items()}
            counts = {"params": optim.count_parameters(params), "step": best.step, "steps": self.config.steps}
            pictures.end(log)
        write_json(run.eval, result | counts | {"train_time_s": seconds})

    def tell_losses(self, run: RunDir, log: Callable[[str], None]) -> None:
        """The losses of a finished run, or that there was nothing to learn from."""
        result = run.read_eval()
        trained = [line["loss"] for line in metrics.read(run.metrics) if line["split"] == "train"]
        if trained and all(loss is None for loss in trained):
            count = "data" if self.config.data.tokens == "rean" else "model.words"
            log(
                "no pair of words was left in train, and none was trained: model.subsample 0 keeps the frequent words, "
                f"a smaller {count}.min_count the rare ones"
            )
        for split in SPLITS:
            if result[split] and result[split]["loss"] is not None:
                log(f"{split}: {result[split]['loss']:.4f} nats/pair ({result[split]['pairs']:,} pairs)")

    @cached_property
    def _trainer(self) -> Trainer:
        return Trainer(self.model)

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

    def _initial_params(self) -> Params:
        return self.model.init(prng.derive(self.config.seed, prng.PARAMETERS))

    def task(self) -> Task:
        """What the loop trains."""
        config, steps = self.config, self.config.last_step
        given = self._start.params if self._start else None
        params = jax.jit(self._initial_params)() if given is None else given
        opt_state = optim.transformation(config.optim, steps).init(params)
        state = TrainState(step=jnp.int32(0), params=params, opt_state=opt_state)
        rate, reader = jax.jit(optim.schedule(config.optim, steps)), self.readers["train"]

        def run_chunk(state: TrainState, first: int, K: int) -> tuple[TrainState, Chunk]:
            params, losses, told, lr = state.params, [], [], 0.0
            for step in range(first, first + K):
                lr = float(rate(step))
                params, nats, counted = self._trainer.step(params, reader, step, lr)
                losses.append(nats / max(counted.pairs, 1))
                told.append(counted)
            chunk = Chunk(
                loss_K=np.array(losses),
                count_K=np.array([one.words for one in told]),
                lr=lr,
                weight_K=np.array([one.pairs for one in told]),
            )
            return TrainState(step=state.step + K, params=params, opt_state=state.opt_state), chunk

        return Task(
            config=config,
            state=jax.device_put(state, jax.devices()[0]),
            plan=Plan.of(config, optim.count_parameters(params), reader.step_words),
            run_chunk=run_chunk,
            evaluate=self._scores,
            loss_fields=pair_fields,
            may_begin=self._start is None or given is not None,
        )

    def _scores(self, params: Params) -> dict[str, PairScore]:
        score = self._score(params, "dev")
        return {"dev": score} if score else {}

    def _score(self, params: Params, split: str) -> PairScore | None:
        """A split's score; of train's by steps that are spread evenly, about eval.max_tokens pairs' worth."""
        reader = self.readers[split]
        if split == "train":
            reader = dataclasses.replace(reader, offset=EVALUATION)
        if not len(reader.id_N):
            return None
        wanted = self.config.eval.max_tokens // self.model.config.window // reader.step_words
        every = 1 if split != "train" else max(1, reader.steps // max(1, wanted))
        score = self._trainer.score(params, reader, range(0, reader.steps, every))
        return score if score.pairs else None

    def _neighbours(self, input_VE: np.ndarray) -> str:
        """For words over the ranks the nearest by cosine, one word a line."""
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


def _save_map(run: VectorRun, run_dir: RunDir) -> None:
    """The most frequent words by principal components."""
    save_map(*maps.place(run.embeddings(), None, MAPPED), run_dir.word_map)


def _check_text(data: DataConfig) -> None:
    if data.path is None and data.name in ONE_WORD_LINES:
        raise UserError(
            f"data.path wants a text of sentences for word2vec, got none: the names of data.name {data.name} stand "
            "alone on their lines; give --data.path FILE"
        )


def _words_of(config: RunConfig, model: Word2vecConfig, corpus: Corpus | None) -> WordCorpus:
    """The text's words, or its REAN tokens (those of `corpus`, where it is at hand)."""
    if config.data.tokens != "rean":
        return word_corpora.load(config.data, model.words)
    if dataclasses.replace(model.words, max_sentence=WordsConfig().max_sentence) != WordsConfig():
        raise UserError(
            "model.words wants its defaults (max_sentence apart) with data.tokens rean, whose words data.min_count and "
            "data.vocab_limit choose"
        )
    return word_corpora.of_tokens(corpus or corpora.load(config.data), model.words.max_sentence)


def _check_optimizer(config: RunConfig) -> None:
    optimizer = config.optim
    if optimizer.name != "sgd" or optimizer.momentum or optimizer.clip is not None or optimizer.l2:
        raise UserError(
            "optim wants plain sgd for word2vec, whose updates touch the rows of a window only: "
            "no adamw, momentum, clip or l2"
        )
