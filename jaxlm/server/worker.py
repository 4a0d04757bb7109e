"""The thread that owns the models: it runs the batches of all runs, and hands parts of answers to the event loop."""

import asyncio
import collections
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Sequence

from jaxlm.inference.rows import Row
from jaxlm.server.choices import Choice, Part, merged
from jaxlm.server.failures import ApiError
from jaxlm.server.served import Served

FAILED = ApiError(500, "the model failed; the server's log says why", code="internal_error")


class Job:
    """A request's texts, as the event loop sees them: parts that have come, and a failure."""

    def __init__(self, choices: Sequence[Choice], loop: asyncio.AbstractEventLoop):
        self.choices, self.loop = choices, loop
        self._parts: list[Part] = []
        self._failure: ApiError | None = None
        self._wake = asyncio.Event()
        self._open = len(choices)

    def give(self, parts: Sequence[Part]) -> None:
        """Add parts. To be called in the event loop's thread."""
        self._parts += parts
        self._wake.set()

    def fail(self, failure: ApiError) -> None:
        """End the request with an error. To be called in the event loop's thread."""
        self._failure = failure
        self._wake.set()

    async def parts(self) -> AsyncIterator[list[Part]]:
        """The parts that have come since the last ones were asked for, one of a text, until all texts have ended.

        Raises ApiError where the request has failed.
        """
        while self._open:
            await self._wake.wait()
            self._wake.clear()
            if self._failure is not None:
                raise self._failure
            parts, self._parts = merged(self._parts), []
            self._open -= sum(part.reason is not None for part in parts)
            if parts:
                yield parts


class Worker:
    """Runs the batches of some runs in one thread, a step of each in turn."""

    def __init__(self, runs: Sequence[Served]):
        self._runs = runs
        self._inbox: collections.deque[tuple[Job, bool]] = collections.deque()
        """Jobs in the order in which they came, and whether they begin (else they are given up)."""
        self._awake = threading.Event()
        self._stopping = False
        self._choices: dict[Row, tuple[Job, Choice]] = {}
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its present step, with what it has not finished."""
        self._stopping = True
        self._awake.set()
        self._thread.join()

    def submit(self, job: Job) -> None:
        """Begin a job's rows."""
        self._inbox.append((job, True))
        self._awake.set()

    def cancel(self, job: Job) -> None:
        """Give up a job's rows: their places are free before the next token is drawn."""
        self._inbox.append((job, False))
        self._awake.set()

    def _run(self) -> None:
        while not self._stopping:
            self._read_inbox()
            busy = [served for served in self._runs if not served.batcher.is_idle]
            if not busy:
                self._awake.wait()
                self._awake.clear()
            for served in busy:
                try:
                    self._step(served)
                except Exception:  # a batch that has failed must not take the others, or the server, with it
                    traceback.print_exc(file=sys.stderr)
                    self._lose(served)

    def _read_inbox(self) -> None:
        while self._inbox:
            job, begins = self._inbox.popleft()
            for choice in job.choices:
                if begins:
                    self._choices[choice.row] = job, choice
                    choice.served.batcher.submit(choice.row)
                elif self._choices.pop(choice.row, None) is not None:
                    choice.served.batcher.cancel(choice.row)

    def _step(self, served: Served) -> None:
        given: dict[Job, list[Part]] = {}
        for event in served.batcher.step():
            found = self._choices.get(event.row)
            if found is None:
                continue
            job, choice = found
            part = choice.take(event)
            if part is None:
                continue
            given.setdefault(job, []).append(part)
            if part.reason is not None:
                del self._choices[event.row]
                served.batcher.cancel(event.row)
        if given:
            _call(next(iter(given)).loop, _give, given)

    def _lose(self, served: Served) -> None:
        """Fail the requests of a batch, which begins anew, and cancel what they have in it."""
        lost = {found[0] for row in served.batcher.fail_all() if (found := self._choices.pop(row, None))}
        for job in lost:
            for choice in job.choices:
                self._choices.pop(choice.row, None)
            _call(job.loop, job.fail, FAILED)


def _give(given: dict[Job, list[Part]]) -> None:
    for job, parts in given.items():
        job.give(parts)


def _call(loop: asyncio.AbstractEventLoop, function: object, *args: object) -> None:
    """Call a function in the event loop's thread, unless the loop has ended."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(function, *args)  # type: ignore[arg-type]
