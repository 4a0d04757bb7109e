"""POST /v1/completions: texts that go on from prompts, and the likelihood of prompts."""

import secrets
import time
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from jaxlm.inference.texts import TextStream
from jaxlm.server.answers import answer
from jaxlm.server.asked import Asked, read_asked, read_top
from jaxlm.server.choices import Choice, Part, Scored
from jaxlm.server.failures import refused
from jaxlm.server.fields import Fields
from jaxlm.server.served import Prompt, Served
from jaxlm.server.state import State

USUAL_TOKENS = 16
"""Tokens of an answer where a request names no number, as OpenAI's API has it."""
IMPOSSIBLE = -9999.0
"""In place of the log-likelihood of what has probability 0, for which JSON has no number."""


async def completions(request: Request, state: State, body: bytes) -> Response:
    """Answer a request for completions. Raises ApiError."""
    fields = Fields(body)
    served = state.served(fields.text("model"))
    asked = read_asked(fields, state.limits)
    given, top, echoes = fields.take("prompt"), read_top(fields, "logprobs"), fields.flag("echo")
    fields.done()
    limit = USUAL_TOKENS if asked.max_tokens is None else asked.max_tokens
    if not limit and not echoes:
        raise refused("max_tokens", "wants at least 1 without echo, got 0")
    scores = echoes and top is not None
    prompts = [served.prompt(one) for one in prompts_of("" if given is None else given)]
    choices: list[Choice] = []
    for prompt in prompts:
        room = served.room_for(prompt, limit, echo=scores)
        for _ in range(asked.n):
            place = len(choices)
            row = served.row(prompt, asked.strategy, seed=asked.seed, place=place, limit=room, top=top, scores=scores)
            choices.append(Choice(place, served, prompt, row, asked.stops, asked.streams))
    form = Completion(served, asked, prompts, choices, top, echoes)
    return await answer(request, state, served, choices, streams=asked.streams, chunks=form.chunks, whole=form.whole)


def prompts_of(given: Any) -> list[Any]:
    """The prompts of a request: a text, tokens, or a list of either."""
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and given:
        if all(isinstance(one, str | list) for one in given):
            return given
        if all(isinstance(one, int) for one in given):
            return [given]
    raise refused("prompt", "wants a string, a list of tokens, or a list of either that is not empty", "invalid_type")


class Completion:
    """The form of an answer: one object, or a chunk for each part."""

    def __init__(
        self,
        served: Served,
        asked: Asked,
        prompts: Sequence[Prompt],
        choices: Sequence[Choice],
        top: int | None,
        echoes: bool,
    ):
        self._served, self._asked, self._prompts, self._choices = served, asked, prompts, choices
        self._top, self._echoes = top, echoes
        self._begun: set[int] = set()
        """Choices of which a part has been given."""
        self._open = len(choices)
        self._head = {"id": f"cmpl-{secrets.token_hex(12)}", "object": "text_completion", "created": int(time.time())}

    def whole(self, parts: Sequence[Part]) -> dict[str, Any]:
        """The answer of all parts, one for each choice."""
        choices = sorted((self._choice(part) for part in parts), key=lambda choice: choice["index"])
        used = usage(self._prompts, self._choices)
        return {**self._head, "model": self._served.name, "choices": choices, "usage": used}

    def chunks(self, parts: Sequence[Part]) -> list[dict[str, Any]]:
        """The objects of a stream for some parts, and the numbers of tokens after the last one if asked for."""
        none = {"usage": None} if self._asked.gives_usage else {}
        head = {**self._head, "model": self._served.name}
        made = [{**head, "choices": [self._choice(part)], **none} for part in parts]
        self._open -= sum(part.reason is not None for part in parts)
        if not self._open and self._asked.gives_usage:
            made.append({**head, "choices": [], "usage": usage(self._prompts, self._choices)})
        return made

    def _choice(self, part: Part) -> dict[str, Any]:
        choice, text, scored = part.choice, part.text, list(part.scored)
        shift = 0
        if self._echoes:
            shift = len(choice.prompt.text)
            if choice.index not in self._begun:
                text = choice.prompt.text + text
        scored = [one._replace(start=one.start + shift) for one in scored]
        if self._echoes and self._top is not None and choice.index not in self._begun:
            scored = [*prompt_scored(choice), *scored]
        self._begun.add(choice.index)
        return {
            "index": choice.index,
            "text": text,
            "logprobs": None if self._top is None else self._log_probabilities(scored),
            "finish_reason": part.reason,
        }

    def _log_probabilities(self, scored: Sequence[Scored]) -> dict[str, Any]:
        spell = self._served.spell
        log_p = [None if one.score is None else finite(one.score.log_p) for one in scored]
        tops: list[dict[str, float] | None] = []
        for one in scored:
            if one.score is None:
                tops.append(None)
                continue
            top = {spell(token): finite(value) for token, value in one.score.top[: self._top]}
            tops.append({**top, spell(one.token): finite(one.score.log_p)})
        return {
            "tokens": [spell(one.token) for one in scored],
            "token_logprobs": log_p,
            "top_logprobs": tops,
            "text_offset": [one.start for one in scored],
        }


def prompt_scored(choice: Choice) -> list[Scored]:
    """The tokens of a prompt that was given, with their likelihoods; the first has none if nothing precedes it."""
    prompt = choice.prompt
    tokens = prompt.tokens[prompt.hidden :]
    scores = [*[None] * (len(tokens) - len(choice.prompt_scores)), *choice.prompt_scores]
    made, start = [], 0
    stream = TextStream(choice.served.run)
    for token, score in zip(tokens, scores, strict=True):
        stream.push(token)
        made.append(Scored(token, start, score))
        start = stream.known
    return made


def usage(prompts: Sequence[Prompt], choices: Sequence[Choice]) -> dict[str, Any]:
    """The numbers of tokens of an answer."""
    asked, made = sum(prompt.count for prompt in prompts), sum(len(choice.row.made) for choice in choices)
    reused = sum(max(0, choice.row.reused - choice.prompt.hidden) for choice in choices)
    return {
        "prompt_tokens": asked,
        "completion_tokens": made,
        "total_tokens": asked + made,
        "prompt_tokens_details": {"cached_tokens": min(asked, reused)},
    }


def finite(log_p: float) -> float:
    """A log-likelihood as JSON can have it."""
    return max(log_p, IMPOSSIBLE) if log_p == log_p else IMPOSSIBLE
