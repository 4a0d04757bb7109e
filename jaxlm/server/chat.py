"""POST /v1/chat/completions: the next turn of a conversation, by a run on dialogues or one with a chat template."""

import secrets
import time
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from jaxlm.inference.rows import TokenScore
from jaxlm.server.answers import answer
from jaxlm.server.asked import Asked, read_asked, read_top
from jaxlm.server.choices import Choice, Part
from jaxlm.server.completions import finite, usage
from jaxlm.server.failures import refused
from jaxlm.server.fields import Fields
from jaxlm.server.served import Prompt, Served
from jaxlm.server.state import State


async def chat(request: Request, state: State, body: bytes) -> Response:
    """Answer a request for the next turn. Raises ApiError."""
    fields = Fields(body)
    served = state.served(fields.text("model"))
    asked = read_asked(fields, state.limits)
    messages = messages_of(fields.take("messages"))
    scores, top = fields.flag("logprobs"), read_top(fields, "top_logprobs")
    fields.done()
    if asked.max_tokens == 0:
        raise refused("max_tokens", "wants at least 1, got 0")
    if top and not scores:
        raise refused("top_logprobs", "goes with logprobs true, which is not given")
    prompt = served.conversation(messages, asked.max_tokens or state.limits.output_tokens)
    limit = served.room_for(prompt, asked.max_tokens)
    choices = []
    for place in range(asked.n):
        row = served.row(
            prompt,
            asked.strategy,
            seed=asked.seed,
            place=place,
            limit=limit,
            top=(top or 0) if scores else None,
            scores=False,
        )
        choices.append(Choice(place, served, prompt, row, asked.stops, asked.streams))
    form = Turn(served, asked, prompt, choices, scores)
    return await answer(request, state, served, choices, streams=asked.streams, chunks=form.chunks, whole=form.whole)


def messages_of(given: Any) -> list[dict[str, str]]:
    """The messages of a conversation, each {"role", "content"}; a content of text parts is joined. Raises ApiError."""
    if not isinstance(given, list) or not given:
        raise refused("messages", "wants a list of messages that is not empty", "invalid_type")
    return [_message(i, message) for i, message in enumerate(given)]


def _message(i: int, message: Any) -> dict[str, str]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise refused(f"messages[{i}]", "wants an object with role and content", "invalid_type")
    content = message.get("content")
    if isinstance(content, list):
        parts = [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
        content = "".join(parts) if len(parts) == len(content) else None
    if not isinstance(content, str):
        raise refused(f"messages[{i}].content", "wants a string, or a list of parts of type text", "invalid_type")
    return {"role": message["role"], "content": content}


class Turn:
    """The form of an answer: one object, or a chunk for each part."""

    def __init__(self, served: Served, asked: Asked, prompt: Prompt, choices: Sequence[Choice], scores: bool):
        self._served, self._asked, self._prompt, self._choices = served, asked, prompt, choices
        self._scores = scores
        self._begun: set[int] = set()
        self._open = len(choices)
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": served.name}

    def whole(self, parts: Sequence[Part]) -> dict[str, Any]:
        """The answer of all parts, one for each choice."""
        choices = [
            {
                "index": part.choice.index,
                "message": {"role": "assistant", "content": part.text, "refusal": None},
                "logprobs": self._log_probabilities(part),
                "finish_reason": part.reason,
            }
            for part in sorted(parts, key=lambda part: part.choice.index)
        ]
        used = usage([self._prompt], self._choices)
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": used}

    def chunks(self, parts: Sequence[Part]) -> list[dict[str, Any]]:
        """The objects of a stream for some parts: the role first, why it ended last."""
        made: list[dict[str, Any]] = []
        for part in parts:
            if part.choice.index not in self._begun:
                self._begun.add(part.choice.index)
                made.append(self._chunk(part, {"role": "assistant", "content": ""}))
            if part.text or part.scored:
                made.append(self._chunk(part, {"content": part.text}, scores=self._log_probabilities(part)))
            if part.reason is not None:
                self._open -= 1
                made.append(self._chunk(part, {}, reason=part.reason))
        if not self._open and self._asked.gives_usage:
            used = usage([self._prompt], self._choices)
            made.append({**self._head, "object": "chat.completion.chunk", "choices": [], "usage": used})
        return made

    def _chunk(
        self, part: Part, delta: dict[str, str], *, scores: dict[str, Any] | None = None, reason: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": part.choice.index, "delta": delta, "logprobs": scores, "finish_reason": reason}
        none = {"usage": None} if self._asked.gives_usage else {}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice], **none}

    def _log_probabilities(self, part: Part) -> dict[str, Any] | None:
        if not self._scores:
            return None
        shown = [(one.token, one.score) for one in part.scored if one.token not in self._prompt.ends]
        return {"content": [self._token(token, score) for token, score in shown if score], "refusal": None}

    def _token(self, token: int, score: TokenScore) -> dict[str, Any]:
        return {
            **self._spelled(token, score.log_p),
            "top_logprobs": [self._spelled(other, log_p) for other, log_p in score.top],
        }

    def _spelled(self, token: int, log_p: float) -> dict[str, Any]:
        served = self._served
        return {"token": served.spell(token), "logprob": finite(log_p), "bytes": served.bytes_of(token)}
