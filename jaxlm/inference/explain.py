"""Why a run gives a token its probability: the most likely alternatives, and what train has of its context."""

import dataclasses
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.data.corpus import Corpus, encode_text, load
from jaxlm.data.dataset import Dataset
from jaxlm.data.rows import Batch
from jaxlm.data.source import read
from jaxlm.errors import UserError
from jaxlm.inference.context_search import ContextSearch, Found
from jaxlm.inference.evaluation import EVAL_LOGITS, EVAL_TOKENS, Score
from jaxlm.inference.score import score
from jaxlm.models.base import LanguageModel, Params
from jaxlm.ops import log_normalize
from jaxlm.runs.directory import RunDir
from jaxlm.runs.loading import Run
from jaxlm.tokenizers import Tokenizer

ALTERNATIVES = 5
"""Alternatives that are kept for each token."""
SHOWN_AFTER = 20
"""Tokens of running text that are shown after a context."""


@dataclasses.dataclass(frozen=True)
class Match:
    """The longest end of a token's context that stands in train, and where it stands first."""

    length: int
    """Its tokens; the start of a line counts as one."""
    context: str
    """Its tokens, spelled; the start of a line as the end of the one before it."""
    count: int
    """How often it stands in train before some token."""
    line: int | None
    """The line of the data's file in which it first stands in train; None if the file spells it otherwise."""
    text: str
    """That line, or of running text what stands there."""


@dataclasses.dataclass(frozen=True)
class ExplainedToken:
    """A token of a text, with its alternatives and what train has of its context."""

    token: str
    """The token, spelled; EOS as '.'."""
    nats: float
    """-log p, infinite where p = 0."""
    rank: int
    """1 for the most likely token."""
    alternatives: list[tuple[str, float]]
    """The most likely tokens in this place, with their probabilities."""
    match: Match | None
    """None if train could not be read."""
    order: int | None
    """The smallest n-gram order whose most likely token, by the counts of train, is this one; None if there is none."""


@dataclasses.dataclass(frozen=True)
class Explanation:
    """The tokens of a text, explained."""

    total: Score
    tokens: list[ExplainedToken]
    missing: str = ""
    """The reason why train could not be read; "" if it was."""


class _Train:
    """A run's training text, found again: its tokens to search in, and its file."""

    def __init__(self, run: Run):
        data = run.config.data
        try:
            corpus = load(data, run.tokenizer)
        except UserError as error:  # a character that the run's tokenizer lacks is blamed on init_from
            raise UserError(str(error).removeprefix("init_from: ")) from error
        was = RunDir(run.path).read_fingerprint()["data"]
        if corpus.data_hash != was:
            place = f"data.name {data.name}" if data.path is None else f"data.path {data.path!r}"
            raise UserError(f"{place} has other content now (sha256 {was[:8]}, now {corpus.data_hash[:8]})")
        start = _starts(data.kind, run.tokenizer)
        self._kind, self._tokenizer = data.kind, run.tokenizer
        self._token_N = np.concatenate([np.array(start, np.int32), corpus.tokens("train").astype(np.int32)])
        self._search = ContextSearch(self._token_N, boundary=len(start))
        self._text = f"\n{read(data)}\n"

    def look(self, context: list[int], token: int) -> tuple[Match, int | None]:
        """Find the longest end of a context, where it first stands, and the order that suffices for the token."""
        found = self._search.look(context, token)
        if not found.length:
            return Match(0, "", len(found.place_P), None, ""), found.order
        spelled = "".join(map(self._tokenizer.spell, context[-found.length :]))
        line, text = self._in_stream(found) if self._kind == "stream" else self._in_lines(found)
        return Match(found.length, spelled, len(found.place_P), line, text), found.order

    def _in_stream(self, found: Found) -> tuple[int | None, str]:
        """The line in which the first match begins, and some text from there on. Train is the start of the file."""
        start = int(found.place_P[0]) - found.length
        line = int(np.searchsorted(self._line_ends, int(self._offset_N[start]), side="left")) + 1
        return line, self._tokenizer.decode(self._token_N[start : start + found.length + SHOWN_AFTER].tolist())

    def _in_lines(self, found: Found) -> tuple[int | None, str]:
        """The line with the token after the first match, by the first example in the file that is the same."""
        place = int(found.place_P[0])
        nth = int(np.searchsorted(self._end_L, place))
        start = int(self._end_L[nth - 1]) + 1
        end = int(self._end_L[nth]) if nth < len(self._end_L) else len(self._token_N)
        eos = self._tokenizer.eos
        parts = np.split(self._token_N[start:end], np.flatnonzero(self._token_N[start:end] == eos))
        lines = [self._tokenizer.decode(part.tolist()) for part in parts if (part != eos).any()]
        turn = min(int((self._token_N[start:place] == eos).sum()), len(lines) - 1)
        at = self._text.find("\n{}\n".format("\n".join(lines)))
        return (None if at < 0 else self._text.count("\n", 0, at + 1) + turn), lines[turn]

    @cached_property
    def _end_L(self) -> np.ndarray:
        """The places of the last token of each line or dialogue."""
        is_end = self._token_N == self._tokenizer.eos
        if self._kind == "dialogues":
            is_end &= np.concatenate([[True], is_end[:-1]])
        return np.flatnonzero(is_end)

    @cached_property
    def _offset_N(self) -> np.ndarray:
        """The byte of running text at which each token begins."""
        size_N = self._tokenizer.bytes_of_token[self._token_N].astype(np.int64)
        return np.cumsum(size_N) - size_N

    @cached_property
    def _line_ends(self) -> np.ndarray:
        """The bytes of running text that end a line."""
        return np.flatnonzero(np.frombuffer(self._text[1:].encode("utf-8", "surrogatepass"), np.uint8) == ord("\n"))


def explain(run: Run, text: str) -> Explanation:
    """Explain a run's probability of each token of a text, lines or running text or dialogues as the run was trained.

    Probabilities are those that `score` gives. The training text is read again from where the settings name it; if that
    is gone or has changed, all else is explained without it. Raises UserError as `score` does.
    """
    scored = score(run, text)
    corpus = encode_text(text, run.tokenizer, run.config.data.kind)
    token_NK, p_NK, rank_N = _alternatives(run, corpus)
    train: _Train | None = None
    missing = ""
    try:
        train = _Train(run)
    except UserError as error:
        missing = str(error)
    explained = []
    for i, (nats, spelled) in enumerate(zip(scored.nats.tolist(), scored.tokens, strict=True)):
        alternatives = [
            (run.tokenizer.spell(token), p)
            for token, p in zip(token_NK[i].tolist(), p_NK[i].tolist(), strict=True)
            if p
        ]
        match, order = (None, None) if train is None else train.look(_context(corpus, i), int(corpus.tokens_N[i]))
        explained.append(ExplainedToken(spelled, nats, int(rank_N[i]), alternatives, match, order))
    return Explanation(scored.total, explained, missing)


def _context(corpus: Corpus, i: int) -> list[int]:
    """The tokens before position i in its line, dialogue or running text, and what stands before those."""
    age = int(corpus.age_N[i])
    return [*_starts(corpus.kind, corpus.tokenizer), *corpus.tokens_N[i - age : i].tolist()]


def _starts(kind: str, tokenizer: Tokenizer) -> list[int]:
    """The tokens that stand before a line, a dialogue or running text: the end of the one before it."""
    return [tokenizer.eos] * {"lines": 1, "dialogues": 2, "stream": 0}[kind]


def _alternatives(run: Run, corpus: Corpus) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The most likely tokens of each prediction, their probabilities, and the rank of the token that came."""
    config = dataclasses.replace(run.config, batch_size=1)
    dataset = Dataset(config, corpus, context=run.model.context, max_length=run.model.max_length)
    row_R, V = dataset.rows["train"], run.model.vocab_size
    most = max(1, min(EVAL_TOKENS, EVAL_LOGITS // V) // dataset.targets_per_row)
    size = min(most, 1 << (len(row_R) - 1).bit_length())
    parts = []
    for start in range(0, len(row_R), size):
        row_B = np.full(size, -1, row_R.dtype)
        row_B[: len(row_R) - start] = row_R[start : start + size]
        batch = dataset.batch(row_B)
        token_NK, p_NK, rank_N = jax.device_get(_most_likely(run.model, run.tokenizer.vocab_size, run.params, batch))
        assert batch.weight is not None  # of a batch of given rows
        counts_N = np.asarray(batch.weight).reshape(-1) > 0
        parts.append((token_NK[counts_N], p_NK[counts_N], rank_N[counts_N]))
    token_NK, p_NK, rank_N = (np.concatenate(part) for part in zip(*parts, strict=True))
    return token_NK, p_NK, rank_N


@partial(jax.jit, static_argnums=(0, 1))
def _most_likely(
    model: LanguageModel[Any], known: int, params: Params, batch: Batch
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """token_NK and p_NK of the most likely among the first `known` tokens, and rank_N of each target."""
    one = batch.target.ndim == 1
    logits = model.next_logits(params, batch.tok) if one else model.apply(params, batch.tok)
    logp_NV = log_normalize(logits.reshape(-1, logits.shape[-1]))
    own_N1 = jnp.take_along_axis(logp_NV, batch.target.reshape(-1, 1), axis=1)
    p_NK, token_NK = jax.lax.top_k(jnp.exp(logp_NV[:, :known]), min(ALTERNATIVES, known))
    return token_NK, p_NK, 1 + jnp.sum(logp_NV > own_N1, axis=1)
