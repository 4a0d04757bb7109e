"""What the server knows while it runs. The event loop's thread alone changes it."""

import collections
import time
from collections.abc import Sequence

from jaxlm.cli.server_command import Limits
from jaxlm.server.failures import ApiError
from jaxlm.server.metrics import SECONDS, TOKEN_SECONDS, Counter, Gauge, Histogram
from jaxlm.server.served import Served
from jaxlm.server.worker import Job, Worker


class State:
    """The runs that are served, requests in flight, and the metrics."""

    def __init__(self, runs: Sequence[Served], limits: Limits, keys: Sequence[str] = ()):
        self.runs = {served.name: served for served in runs}
        self.limits, self.keys = limits, keys
        self.worker = Worker(runs)
        self.began = time.time()
        self.closing = False
        """True once the server takes no new requests."""
        self.jobs: set[Job] = set()
        self.texts: collections.Counter[str] = collections.Counter()
        """Texts of each run that have begun and not ended."""
        self.clients: collections.Counter[str] = collections.Counter()
        """Requests of each client in flight."""
        self.requests = Counter("jaxlm_requests_total", "Requests by path and status.", "path", "status")
        self.prompt_tokens = Counter("jaxlm_prompt_tokens_total", "Tokens of prompts.", "model")
        self.reused_tokens = Counter("jaxlm_reused_tokens_total", "Those that a kept cache had.", "model")
        self.made_tokens = Counter("jaxlm_generated_tokens_total", "Tokens drawn.", "model")
        self.first_token = Histogram("jaxlm_first_token_seconds", "Until the first part of an answer.", SECONDS)
        self.next_token = Histogram("jaxlm_next_token_seconds", "Between two parts of a stream.", TOKEN_SECONDS)
        self._gauges = (
            Gauge("jaxlm_texts", "Texts in flight.", lambda: [(name, self.texts[name]) for name in self.runs]),
            Gauge(
                "jaxlm_texts_drawn_from",
                "Those that have a place in the batch.",
                lambda: [(name, served.batcher.active) for name, served in self.runs.items()],
            ),
            Gauge(
                "jaxlm_batch_size",
                "Places of the batch as it is now.",
                lambda: [(name, served.batcher.size) for name, served in self.runs.items()],
            ),
        )

    def served(self, name: str | None) -> Served:
        """The run of a request: the only one where it names none. Raises ApiError."""
        if name is None and len(self.runs) == 1:
            return next(iter(self.runs.values()))
        names = ", ".join(self.runs)
        if name is None:
            raise ApiError(400, f"model wants one of {names}", param="model", code="missing_field")
        if name not in self.runs:
            raise ApiError(404, f"model {name!r} is not served here: {names}", param="model", code="model_not_found")
        return self.runs[name]

    def close(self) -> None:
        """Take no new requests."""
        self.closing = True

    def give_up(self) -> None:
        """Fail the requests that are still in flight."""
        for job in tuple(self.jobs):
            job.fail(ApiError(503, "the server is shutting down", code="shutting_down"))

    def metrics(self) -> str:
        """All metrics as Prometheus reads them."""
        parts = (
            self.requests,
            self.prompt_tokens,
            self.reused_tokens,
            self.made_tokens,
            self.first_token,
            self.next_token,
            *self._gauges,
        )
        return "".join(f"{line}\n" for part in parts for line in part.lines())
