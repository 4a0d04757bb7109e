"""A server in a thread of the test's own process, on a free port, and a plain client of it."""

import asyncio
import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jaxlm
from jaxlm.cli.server_command import Limits
from jaxlm.server.served import Served
from jaxlm.server.serving import Server, listening
from jaxlm.server.state import State

SECONDS = 60.0
"""After which a test gives up."""


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    headers: Any
    body: bytes

    @property
    def tree(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error, whose form is checked."""
        assert self.status >= 400, self
        error = self.tree["error"]
        assert set(self.tree) == {"error"} and set(error) == {"message", "type", "param", "code"}
        return error

    @property
    def events(self) -> list[Any]:
        """The objects of a stream, whose form is checked."""
        assert self.headers["content-type"].startswith("text/event-stream"), self
        *events, end, rest = self.body.decode().split("\n\n")
        assert (end, rest) == ("data: [DONE]", "")
        assert all(event.startswith("data: ") for event in events)
        return [json.loads(event.removeprefix("data: ")) for event in events]


class Client:
    """A client of a server in this process."""

    def __init__(self, port: int, state: State, server: Server):
        self.port, self.state, self.server = port, state, server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = self.connect()
        with contextlib.closing(connection):
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, **headers)

    def post(self, path: str, **fields: Any) -> Answer:
        return self.ask("POST", path, json.dumps(fields).encode(), Content_Type="application/json")

    def complete(self, **fields: Any) -> Any:
        """The tree of an answer of /v1/completions."""
        answer = self.post("/v1/completions", **fields)
        assert answer.status == 200, answer
        return answer.tree

    def texts(self, **fields: Any) -> list[str]:
        """The texts of an answer of /v1/completions, in order."""
        return [choice["text"] for choice in self.complete(**fields)["choices"]]

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)

    def begin(self, path: str, **fields: Any) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """A request whose answer has begun: to be read, or closed."""
        connection = self.connect()
        connection.request("POST", path, json.dumps(fields), {"Content-Type": "application/json"})
        return connection, connection.getresponse()


def wait_until(condition: Callable[[], bool]) -> None:
    """Return as soon as the condition holds."""
    limit = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < limit, "the condition did not come to hold"
        time.sleep(0.002)


@contextlib.contextmanager
def serving(
    *runs: tuple[str, jaxlm.Run], keys: tuple[str, ...] = (), hosts: tuple[str, ...] | None = (), **limits: Any
) -> Iterator[Client]:
    """A server of some runs by their names, with these limits."""
    limits = {"batch": 4, "grace": 1.0} | limits
    made = Limits(**limits)
    state = State([Served(name, run, made) for name, run in runs], made, keys)
    bound = listening("127.0.0.1", 0)
    server = Server(state, hosts)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[bound])))
    state.worker.start()
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield Client(bound.getsockname()[1], state, server)
    finally:
        server.should_exit = True
        thread.join(SECONDS)
        state.worker.stop()
        bound.close()
    assert not thread.is_alive()
