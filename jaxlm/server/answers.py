"""From a request's texts to an answer: begun if there is room, as a whole or as it comes, given up if nobody waits."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from jaxlm.server.choices import Choice, Part
from jaxlm.server.failures import ApiError
from jaxlm.server.served import Served
from jaxlm.server.state import State
from jaxlm.server.worker import Job

Chunks = Callable[[Sequence[Part]], list[dict[str, Any]]]
"""The objects that a stream gives for some parts."""
Whole = Callable[[Sequence[Part]], dict[str, Any]]
"""The object that all parts make."""


async def answer(
    request: Request,
    state: State,
    served: Served,
    choices: Sequence[Choice],
    *,
    streams: bool,
    chunks: Chunks,
    whole: Whole,
) -> Response:
    """The answer of some texts. Raises ApiError where there is no room for them, and where they fail."""
    job = begun(state, served, choices)
    parts = _measured(state, served, job)
    if streams:
        return Events(state, served, job, _events(state, parts, chunks))
    with ending(state, served, job):
        gone = asyncio.create_task(_gone(request))
        collecting = asyncio.create_task(_collected(parts))
        try:
            await asyncio.wait((gone, collecting), timeout=state.limits.timeout, return_when=asyncio.FIRST_COMPLETED)
            if collecting.done():
                return JSONResponse(whole(collecting.result()))
            if gone.done():
                return Response(status_code=499)  # nobody reads it
            raise _late(state)
        finally:
            for task in (gone, collecting):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, ApiError):
                    await task


def begun(state: State, served: Served, choices: Sequence[Choice]) -> Job:
    """A job for the texts. Raises ApiError 503 where there is no room in the queue, or the server is ending."""
    limits = state.limits
    if state.closing:
        raise ApiError(503, "the server is shutting down", code="shutting_down")
    if state.texts[served.name] + len(choices) > limits.batch + limits.queue:
        raise ApiError(503, f"the queue of {limits.queue} texts is full (--queue)", code="queue_full")
    job = Job(choices, asyncio.get_running_loop())
    state.texts[served.name] += len(choices)
    state.jobs.add(job)
    state.worker.submit(job)
    return job


@contextlib.contextmanager
def ending(state: State, served: Served, job: Job) -> Iterator[None]:
    """Context of a job: whatever happens, its rows are given up at the end and its room is free."""
    try:
        yield
    finally:
        state.worker.cancel(job)
        state.jobs.discard(job)
        state.texts[served.name] -= len(job.choices)


async def _measured(state: State, served: Served, job: Job) -> AsyncIterator[list[Part]]:
    """The parts of a job; how long the first and each token took is counted."""
    began = last = time.perf_counter()
    is_first, made = True, 0
    name = served.name
    state.prompt_tokens.add(name, by=sum(choice.prompt.count for choice in job.choices))
    try:
        async for parts in job.parts():
            now = time.perf_counter()
            if is_first:
                state.first_token.observe(name, now - began)
                is_first = False
            elif any(part.choice.streams for part in parts):
                state.next_token.observe(name, now - last)
            last = now
            yield parts
    finally:
        made = sum(len(choice.row.made) for choice in job.choices)
        state.made_tokens.add(name, by=made)
        state.reused_tokens.add(name, by=sum(choice.row.reused for choice in job.choices))


async def _collected(parts: AsyncIterator[list[Part]]) -> list[Part]:
    return [part async for some in parts for part in some]


async def _gone(request: Request) -> None:
    """Return once the client has gone away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Events(StreamingResponse):
    """A stream of a job's events, with whose end the job ends, whether it was read to its end or not."""

    def __init__(self, state: State, served: Served, job: Job, events: AsyncIterator[bytes]):
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._job = state, served, job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until they end or the client has gone away."""
        with ending(*self._job):
            await super().__call__(scope, receive, send)


async def _events(state: State, parts: AsyncIterator[list[Part]], chunks: Chunks) -> AsyncIterator[bytes]:
    """The answer as server-sent events; an error that comes after the first is an event too."""
    try:
        async with asyncio.timeout(state.limits.timeout):
            async for some in parts:
                yield b"".join(map(event, chunks(some)))
    except TimeoutError:
        yield event(_late(state).body)
    except ApiError as error:
        yield event(error.body)
    yield b"data: [DONE]\n\n"


def event(tree: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return f"data: {json.dumps(tree, separators=(',', ':'))}\n\n".encode()


def _late(state: State) -> ApiError:
    return ApiError(504, f"the request took longer than {state.limits.timeout:g} s (--timeout)", code="timeout")
