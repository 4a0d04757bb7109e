"""One text of an answer: what a row's tokens add to it, as text and as likelihoods that belong to it."""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

from jaxlm.inference.rows import Drawn, PromptScored, Reason, Row, TokenScore
from jaxlm.inference.texts import TextStream
from jaxlm.server.served import Prompt, Served


class Scored(NamedTuple):
    """A token of a text, and how likely it was."""

    token: int
    start: int
    """Characters of the text before it."""
    score: TokenScore | None
    """None of the first token of a text that nothing precedes."""


class Part(NamedTuple):
    """What was added to a text."""

    choice: "Choice"
    text: str
    scored: list[Scored]
    reason: Reason | None
    """Why it ended with this part, None if it goes on."""


def merged(parts: Iterable[Part]) -> list[Part]:
    """Parts of several texts with those of the same text as one: what a text costs a busy event loop is its parts."""
    found: dict[Choice, Part] = {}
    for part in parts:
        if (before := found.get(part.choice)) is not None:
            part = Part(part.choice, before.text + part.text, [*before.scored, *part.scored], part.reason)
        found[part.choice] = part
    return list(found.values())


@dataclasses.dataclass(eq=False)
class Choice:
    """A text that is being made. It is changed by the worker's thread alone, which gives parts to the event loop."""

    index: int
    served: Served
    prompt: Prompt
    row: Row
    stops: list[str]
    streams: bool
    """True if parts are given as they come, else one at the end."""
    prompt_scores: list[TokenScore] = dataclasses.field(default_factory=list)
    """Complete before the first part is given."""

    def __post_init__(self) -> None:
        self._stream = TextStream(self.served.run, [*self.stops, *self.prompt.stops])
        self._drops = self.prompt.drops
        self._text = ""
        self._scored: list[tuple[Scored, int]] = []
        """Tokens that belong to no part yet, and the characters of the text after each."""
        self._known = 0

    def take(self, event: Drawn | PromptScored) -> Part | None:
        """The part that an event adds; None if there is none yet."""
        if isinstance(event, PromptScored):
            self.prompt_scores += event.scores
            return Part(self, "", [], event.reason) if event.reason else None
        ends = event.token in self.prompt.ends
        if not ends or self.served.run.marks_unknown:
            self._text += self._stream.push(event.token)
        reason: Reason | None = event.reason
        if reason is not None:
            self._text += self._stream.finish()
        if self._stream.ended:
            reason = "stop"
        if event.score is not None and not self._stream.ended:  # the token that completes a stop is not given
            known = self._stream.known
            self._scored.append((Scored(event.token, self._known, event.score), known))
            self._known = known
        if reason is None and (not self.streams or not self._text or len(self._text) < len(self._drops)):
            return None
        return self._part(reason)

    def _part(self, reason: Reason | None) -> Part:
        text = self._text.removeprefix(self._drops)
        self._text, self._drops = "", ""
        whole = reason is not None and not self._stream.ended
        given = [one for one, end in self._scored if whole or end <= self._stream.given]
        self._scored = self._scored[len(given) :]
        return Part(self, text, given, reason)
