"""The server as a process: its socket, its start, and its end on a signal."""

import asyncio
import socket
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import uvicorn

from jaxlm.cli.server_command import ServerCommand, is_loopback
from jaxlm.errors import UserError
from jaxlm.server.app import build
from jaxlm.server.state import State

SWITCH_SECONDS = 0.0005
"""After which Python lets another thread go on: its default of 5 ms is as long as some models take for ten tokens."""
BACKLOG = 2048
"""Connections that wait to be accepted."""
AFTER_GRACE = 2.0
"""Seconds that answers of errors have after the grace period."""


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises UserError where the address or the port cannot be had.

    It names TCP as its protocol, as socket.create_server does not: asyncio sends small parts at once (TCP_NODELAY) on
    such sockets alone, and others hold a token back for 40 ms until the part before it is acknowledged.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(BACKLOG)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise UserError(f"--host {host} --port {port} cannot be listened on: {error.strerror or error}") from None
    return bound


class Server(uvicorn.Server):
    """A uvicorn server that, from a signal on, takes no requests, and ends with those in flight or the grace period."""

    def __init__(self, state: State, hosts: Sequence[str] | None):
        grace = state.limits.grace
        super().__init__(
            uvicorn.Config(
                build(state, hosts),
                log_level="warning",
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=int(grace + AFTER_GRACE) + 1,
            )
        )
        self._state = state

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end: called by uvicorn on SIGINT and SIGTERM."""
        self._state.close()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for the requests in flight, those that are left after the grace period fail."""
        self._state.close()
        late = asyncio.get_running_loop().call_later(self._state.limits.grace, self._state.give_up)
        try:
            await super().shutdown(sockets)
        finally:
            late.cancel()


def serve(command: ServerCommand, state: State, bound: socket.socket, log: Callable[[str], None]) -> None:
    """Serve until a signal comes."""
    host, port = bound.getsockname()[:2]
    hosts = (*(name.lower() for name in command.allow_host),) if is_loopback(command.host) else None
    sys.setswitchinterval(SWITCH_SECONDS)
    state.worker.start()
    place = f"[{host}]" if ":" in host else host
    log(f"serving {', '.join(state.runs)} on http://{place}:{port}")
    server = Server(state, hosts)
    try:
        asyncio.run(_run(server, bound))
    finally:
        state.worker.stop()


async def _run(server: Any, bound: socket.socket) -> None:
    await server.serve(sockets=[bound])
