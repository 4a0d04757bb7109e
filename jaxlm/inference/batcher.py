"""A running batch: rows join it and leave it between any two tokens, and each becomes what it would be alone.

It knows tokens only, no text and no clients, and is used by one thread.
"""

import collections
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxlm.devices import compilation
from jaxlm.inference import slots
from jaxlm.inference.rows import Drawn, Event, Kept, PromptScored, Reason, Row, TokenScore, scores_of
from jaxlm.inference.sampling import RowSettings, Strategy
from jaxlm.models.base import LanguageModel, Params

CHUNK = 256
"""Tokens of prompts that are read between two steps, while the rows that are drawn from wait."""
NARROWEST = 16
"""Width that shorter chunks are filled up to, so that few widths are compiled."""
SHRINK_AFTER = 16
"""Steps in a row for which half of the places were free, before the batch is halved."""


PLAIN = Strategy()


class Batcher:
    """Rows that are waiting, being read, and drawn from, of one model.

    `room` is the number of tokens that each place has a cache for: the model's positions, or a number that no row may
    exceed. At most `places`, a power of 2, are drawn from at once; a batch has as many as are in use, rounded up to a
    power of 2. `kept` caches of ended rows are kept for rows that begin with the same tokens.
    """

    def __init__(
        self,
        model: LanguageModel[Any],
        params: Params,
        *,
        places: int,
        room: int,
        allowed_V: np.ndarray,
        eos: int,
        kept: int = 0,
    ):
        if places < 1 or places & (places - 1):
            raise ValueError(f"places wants a power of 2, got {places}")
        self._model, self._params, self._places, self._room = model, params, places, room
        self._allowed_V, self._eos = jax.numpy.asarray(allowed_V), np.array(eos, np.int32)
        self._axes = tuple(jax.tree.leaves(slots.batch_axes(model, params, room)))
        self._compiled = slots.programs(**compilation.sampling_options(params, places))
        self._must_block = len(jax.devices()) > 1 and jax.default_backend() == "cpu"
        self._unread = self._compiled.empty(model, params, batch=1, room=room).cache
        self._kept = Kept(kept, model)
        self._reset()

    def _reset(self) -> None:
        self._waiting: collections.deque[Row] = collections.deque()
        self._rows: list[Row | None] = [None]
        self._slots = self._compiled.empty(self._model, self._params, batch=1, room=self._room)
        self._pending: tuple[slots.Step, list[tuple[int, Row]]] | None = None
        self._roomy_steps = 0

    def warm_up(self) -> Iterator[str]:
        """Compile the programs of every size of batch; yields the name of each before it is compiled."""
        size = 1
        while True:
            yield f"batches of {size}"
            self._joined(Row([self._eos.item()], PLAIN, 0, 0, 0), self._unread, 0)
            self._step(np.zeros(size, bool), False)
            self._row_cache(0)
            if size == self._places:
                break
            self._resize(2 * size)
            size *= 2
        while size > 1:
            size //= 2
            self._resize(size)
        width = min(NARROWEST, self._room)
        while width <= min(CHUNK, self._room):
            yield f"prompts of {width} tokens"
            self._read(Row([self._eos.item()] * (width + 1), PLAIN, 0, 0, 0), width)
            width *= 2

    @property
    def is_idle(self) -> bool:
        """True if there is nothing to do."""
        return not self._waiting and self._pending is None and not any(self._rows)

    @property
    def waiting(self) -> int:
        """Rows that are not drawn from yet."""
        return len(self._waiting)

    @property
    def active(self) -> int:
        """Rows that are being drawn from."""
        return sum(row is not None for row in self._rows)

    @property
    def size(self) -> int:
        """Places of the batch as it is now."""
        return len(self._rows)

    def submit(self, row: Row) -> None:
        """Add a row behind those that are waiting."""
        row.begin_pass(self._model.max_length)
        self._waiting.append(row)

    def cancel(self, row: Row) -> None:
        """End a row, wherever it is: its place is free before the next step."""
        if not row.ended:
            self._end(row)
            if row in self._waiting:
                self._waiting.remove(row)

    def fail_all(self) -> list[Row]:
        """Begin anew after a failure, which may have used up the batch's arrays: returns the rows that were lost."""
        lost = [*self._waiting, *(row for row in self._rows if row is not None)]
        for row in lost:
            row.ended = True
        self._reset()
        return lost

    def step(self) -> list[Event]:
        """Read some more of the prompts that wait, dispatch a step, and return what the step before it gave.

        The device is at work while the caller looks at the tokens of the step before: a row that the caller then
        cancels has been drawn from once more, without effect.
        """
        events = self._admit()
        pending, self._pending = self._pending, None
        chosen = [(i, row) for i, row in enumerate(self._rows) if row is not None and self._may_step(row)]
        if chosen:
            active_B = np.zeros(len(self._rows), bool)
            active_B[[i for i, _ in chosen]] = True
            self._pending = self._step(active_B, any(row.top is not None for _, row in chosen)), chosen
            for _, row in chosen:
                row.steps += 1
        if pending is not None:
            events += self._results(*pending)
        self._shrink()
        return events

    def _may_step(self, row: Row) -> bool:
        return row.may_step(self._model.max_length)

    def _results(self, step: slots.Step, chosen: list[tuple[int, Row]]) -> list[Event]:
        scores = None
        if any(row.top is not None for _, row in chosen):
            scores = jax.device_get(step.likelihoods)
        tok_B, events = np.asarray(step.tok_B).tolist(), list[Event]()
        for i, row in chosen:
            if row.ended:
                continue
            row.made.append(tok_B[i])
            score = None
            if row.top is not None and scores is not None:
                score = scores_of(slots.Likelihoods(*(x[i : i + 1] for x in scores)), row.top)[0]
            reason = self._reason(row)
            if reason is not None:
                self._end(row)
            elif not self._may_step(row) and not row.waits:
                self._leave(row)
                row.begin_pass(self._model.max_length)
                self._waiting.appendleft(row)
            events.append(Drawn(row, tok_B[i], score, reason))
        return events

    def _reason(self, row: Row) -> Reason | None:
        if row.made[-1] in row.ends:
            return "stop"
        if len(row.made) >= row.limit:
            return "length"
        return "length" if not row.goes_on and not row.waits and not self._may_step(row) else None

    def _admit(self) -> list[Event]:
        """Read prompts, those that came first first, and let rows join whose prompts are read."""
        budget, events = CHUNK, list[Event]()
        while self._waiting and budget > 0:
            row = self._waiting[0]
            if row.limit and self.active == self._places:
                break
            if row.cache is None:
                self._begin(row)
            while row.read < len(row.seen) - 1 and budget > 0:
                width = min(_power_of_2(len(row.seen) - 1 - row.read, NARROWEST), CHUNK, self._room)
                scores = self._read(row, width)
                budget -= width
                if scores is not None:
                    events.append(PromptScored(row, scores, None))
            if row.read == len(row.seen) - 1:
                self._waiting.popleft()
                budget -= 1
                if row.limit:
                    self._join(row)
                else:
                    row.ended, row.cache = True, None
                    events.append(PromptScored(row, [], "length"))
        return events

    def _begin(self, row: Row) -> None:
        """Give a row the cache that its prompt is read into."""
        row.cache = self._unread
        if self._kept.is_on and not row.scores_prompt:
            count, row_cache = self._kept.find(row.seen[:-1])
            if count:
                row.cache, row.read = row_cache, count
                row.reused = row.reused or count

    def _read(self, row: Row, width: int) -> list[TokenScore] | None:
        """Read the next tokens of a row's prompt, at most `width`: the scores of those after them, if it wants them."""
        row.cache = self._unread if row.cache is None else row.cache
        new = row.seen[row.read : min(row.read + width, len(row.seen) - 1)]
        tok_1T, length_1 = np.zeros((1, width), np.int32), np.array([len(new)], np.int32)
        tok_1T[0, : len(new)] = new
        args = self._model, self._params, row.cache, tok_1T, length_1
        if not row.scores_prompt or row.made:
            row.cache = self._blocked(self._compiled.read(*args))
            row.read += len(new)
            return None
        target_T = np.zeros(width, np.int32)
        target_T[: len(new)] = row.seen[row.read + 1 : row.read + 1 + len(new)]
        row.cache, found = self._blocked(self._compiled.read_scored(*args, target_T))
        row.read += len(new)
        return scores_of(slots.Likelihoods(*(x[: len(new)] for x in jax.device_get(found))), row.top or 0)

    def _join(self, row: Row) -> None:
        """Put a row whose prompt is read into a free place."""
        if None not in self._rows:
            self._resize(2 * len(self._rows))
        place = self._rows.index(None)
        self._joined(row, row.cache, place)
        self._rows[place], row.cache = row, None

    def _joined(self, row: Row, row_cache: Any, place: int) -> None:
        seen_V = np.zeros(self._model.vocab_size, bool)
        if row.strategy.repetition_penalty != 1:
            seen_V[[*row.tokens, *row.made]] = True
            seen_V[self._eos] = False
        joining = slots.Joining(
            np.uint32(row.seed),
            np.int32(row.place),
            np.int32(row.seen[-1] if row.seen else 0),
            np.int32(len(row.made)),
            seen_V,
            RowSettings(*(x_1[0] for x_1 in row.strategy.rows(1))),
        )
        self._slots = self._blocked(self._compiled.join(self._axes, self._slots, np.int32(place), row_cache, joining))

    def _step(self, active_B: np.ndarray, scores: bool) -> slots.Step:
        self._slots, step = self._blocked(
            self._compiled.step(
                self._model, self._params, self._slots, active_B, self._allowed_V, self._eos, np.bool_(scores)
            )
        )
        return step

    def _row_cache(self, place: int) -> Any:
        return self._blocked(self._compiled.row_of(self._axes, self._slots, np.int32(place)))

    def _end(self, row: Row) -> None:
        row.ended, row.cache = True, None
        if row in self._rows:
            self._leave(row)

    def _leave(self, row: Row) -> None:
        """Free a row's place; what it has read may be kept."""
        place = self._rows.index(row)
        tokens = row.cached_tokens()
        if self._kept.is_on and len(tokens) >= Kept.LEAST:
            self._kept.keep(tokens, self._row_cache(place))
        self._rows[place] = None

    def _shrink(self) -> None:
        """Halve the batch if half of its places have been free for some steps."""
        self._roomy_steps = self._roomy_steps + 1 if 2 * self.active <= len(self._rows) else 0
        if self._roomy_steps >= SHRINK_AFTER and len(self._rows) > 1:
            self._resize(len(self._rows) // 2)
            self._roomy_steps = 0

    def _resize(self, size: int) -> None:
        """Move the rows to a batch of another size, to its first places."""
        used = [i for i, row in enumerate(self._rows) if row is not None]
        from_M = np.array([*used, *[0] * size][:size], np.int32)
        self._slots = self._blocked(self._compiled.moved(self._axes, self._slots, from_M))
        self._rows = [*(self._rows[i] for i in used), *[None] * size][:size]

    def _blocked(self, result: Any) -> Any:
        """The result, once it is there on several CPU devices, which deadlock on queued collectives."""
        return jax.block_until_ready(result) if self._must_block else result


def _power_of_2(number: int, least: int) -> int:
    """The least power of 2 that is at least `number` and `least`."""
    return max(least, 1 << max(0, number - 1).bit_length())
