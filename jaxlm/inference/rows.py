"""A text that is being continued in a running batch, what the batch says about it, and caches that are kept."""

import collections
import dataclasses
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxlm.inference import slots
from jaxlm.inference.sampling import Strategy
from jaxlm.models.base import LanguageModel

Reason = Literal["stop", "length"]
"""Why a row ended: a token that ends a text, or its limit (or the model's positions)."""


class TokenScore(NamedTuple):
    """How likely a token was by the model's own distribution, and which ones were the most likely."""

    log_p: float
    top: list[tuple[int, float]]
    """The most likely tokens with their log p, the first one first."""


@dataclasses.dataclass(eq=False)
class Row:
    """Tokens to be continued, and how. What a row becomes is decided by itself, not by the rows beside it."""

    tokens: list[int]
    """At least one."""
    strategy: Strategy
    seed: int
    """From 0 to 2 ** 32 - 1; with `place` it decides what is drawn, as in `jaxlm.generate` with key(seed)."""
    place: int
    limit: int
    """New tokens at most. 0: none are drawn."""
    ends: frozenset[int] = frozenset()
    """Tokens after which the text ends."""
    goes_on: bool = False
    """Where the model's positions end, the row goes on from the last half of what it sees."""
    top: int | None = None
    """How many most likely tokens each new token is given with, 0 for none beside it. None: no log p at all."""
    scores_prompt: bool = False
    """True if log p of the prompt's tokens, from the second on, is wanted too."""

    made: list[int] = dataclasses.field(default_factory=list)
    """New tokens so far."""
    reused: int = 0
    """Tokens of the prompt that a kept cache had."""
    seen: list[int] = dataclasses.field(default_factory=list)
    """Tokens that the present pass began with."""
    before: int = 0
    """New tokens that were made before the present pass."""
    steps: int = 0
    """Steps of the present pass that have been dispatched."""
    read: int = 0
    """Tokens of `seen` that `cache` has, while the prompt is read."""
    cache: Any = None
    ended: bool = False

    def begin_pass(self, most: int | None) -> None:
        """Start from the prompt, or where positions have ended from the last half of what the model sees."""
        whole = [*self.tokens, *self.made]
        if most is not None:
            whole = whole[-max(1, most // 2) :] if self.seen else whole[-most:]
        self.seen, self.before, self.steps, self.read, self.cache = whole, len(self.made), 0, 0, None

    def may_step(self, most: int | None) -> bool:
        """True if another token may be drawn in this pass: within the limit and the model's positions."""
        fits = most is None or self.steps < most + 1 - len(self.seen)
        return fits and self.before + self.steps < self.limit

    @property
    def waits(self) -> bool:
        """True while a step has been dispatched whose token is not known yet."""
        return self.before + self.steps > len(self.made)

    def cached_tokens(self) -> list[int]:
        """The tokens that the row's cache has after the steps that have been dispatched."""
        return [*self.seen, *self.made[self.before :]][: len(self.seen) - 1 + self.steps]


class Drawn(NamedTuple):
    """A new token of a row."""

    row: Row
    token: int
    score: TokenScore | None
    reason: Reason | None
    """Why the row ended with it, None if it goes on."""


class PromptScored(NamedTuple):
    """log p of some of a prompt's tokens, in order; all of them have come when the row is drawn from, or ended."""

    row: Row
    scores: list[TokenScore]
    reason: Reason | None
    """length if nothing is to be drawn and these are the last, else None."""


Event = Drawn | PromptScored


class Kept:
    """Caches of rows that have ended, for rows whose tokens begin alike: the longest unused are dropped first."""

    LEAST = 16
    """Tokens that must be shared: fewer are as quickly read again."""

    def __init__(self, most: int, model: LanguageModel[Any]):
        self._most, self._model = most, model
        self._caches: collections.OrderedDict[tuple[int, ...], Any] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._caches)

    @property
    def is_on(self) -> bool:
        """True if any cache is ever kept."""
        return self._most > 0

    def keep(self, tokens: list[int], row_cache: Any) -> None:
        """Keep the cache of a row that has read these tokens."""
        self._caches[tuple(tokens)] = row_cache
        self._caches.move_to_end(tuple(tokens))
        while len(self._caches) > self._most:
            self._caches.popitem(last=False)

    def find(self, tokens: list[int]) -> tuple[int, Any]:
        """The cache that has most of these tokens from the first on, and how many; (0, None) if none has enough."""
        best, count = None, 0
        for kept in self._caches:
            shared = _shared(kept, tokens)
            is_usable = shared == len(kept) or slots.taken_back(self._model, self._caches[kept], shared) is not None
            if is_usable and shared >= self.LEAST and shared > count:
                best, count = kept, shared
        if best is None:
            return 0, None
        self._caches.move_to_end(best)
        row_cache = self._caches[best]
        return count, row_cache if count == len(best) else slots.taken_back(self._model, row_cache, count)


def scores_of(found: slots.Likelihoods, top: int) -> list[TokenScore]:
    """Those of some tokens, each with so many of the most likely ones."""
    chosen_N, top_NK, log_p_NK = found
    pairs = zip(np.asarray(top_NK)[:, :top].tolist(), np.asarray(log_p_NK)[:, :top].tolist(), strict=True)
    return [
        TokenScore(log_p, list(zip(tokens, values, strict=True)))
        for log_p, (tokens, values) in zip(np.asarray(chosen_N).tolist(), pairs, strict=True)
    ]


def _shared(a: tuple[int, ...], b: list[int]) -> int:
    """Tokens that two texts begin with alike."""
    size = min(len(a), len(b))
    same_N = np.array(a[:size]) == np.array(b[:size])
    return size if same_N.all() else int(same_N.argmin())
