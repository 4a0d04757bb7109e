"""Lines of JSON between process 0 and all others of a job, by which each knows at once when another has ended.

The connections stay open as long as the job: the system closes those of a process that dies, and finds within 40 s that
a host is gone. A thread watches them, because the main thread may wait in a collective that never ends.
"""

import contextlib
import json
import os
import queue
import selectors
import socket
import sys
import threading
import time
from typing import Any, NoReturn

from jaxlm.errors import UserError, one_line

KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPALIVE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 6}
"""Seconds of silence, seconds between probes and number of probes after which a host counts as gone."""
LAST_WORDS = 10.0
"""Seconds that process 0 waits at its end for others to have read why, before JAX's coordinator ends with it."""
GO_ON = ": see its own output; all processes started again go on from the last checkpoint"
DIED = 1
"""Exit code of the processes that are left when one dies."""
LEFT = object()
"""Stands behind the last value of a peer that has ended in order."""


class Peer:
    """The other end of a connection."""

    def __init__(self, connection: socket.socket, process: int, host: str):
        self.connection, self.process, self.host = connection, process, host
        self.inbox: queue.Queue[Any] = queue.Queue()
        """Values that it has sent and nobody has taken."""
        self.has_left = False
        """True if it has said that it ends, or its connection is closed."""
        self._begun = b""
        _keep_alive(connection)
        connection.settimeout(None)

    def __str__(self) -> str:
        return f"process {self.process} ({self.host})"

    def send(self, message: dict[str, Any]) -> None:
        """Send one message; what a peer that is gone would not read is dropped."""
        with contextlib.suppress(OSError):
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def get(self, timeout: float | None = None) -> Any:
        """The next value that it sends. Raises UserError if it has ended instead, and queue.Empty after `timeout`."""
        value = self.inbox.get(timeout=timeout)
        if value is LEFT:
            self.inbox.put(LEFT)
            raise UserError(f"{self} has ended already: give all processes the same command")
        return value

    def read(self) -> list[dict[str, Any]] | None:
        """The messages that are complete; None where the connection is closed."""
        try:
            received = self.connection.recv(2**16)
        except OSError:
            received = b""
        if not received:
            return None
        *lines, self._begun = (self._begun + received).split(b"\n")
        return [json.loads(line) for line in lines]


class Channel:
    """The connections of this process: of process 0 to all others, of every other to process 0.

    `gather` and `share` are called by all processes in the same order. Where a process fails or dies, all others end
    with one line on stderr that names it.
    """

    def __init__(self, process: int, hosts: list[str], peers: list[Peer]):
        self.process, self.hosts = process, hosts
        self._peers = peers
        self._ending = threading.Event()
        """Set once this process ends by itself: what others say then changes nothing."""
        self._watch = threading.Thread(target=self._follow, name="processes", daemon=True)
        self._watch.start()

    @property
    def processes(self) -> int:
        """Number of processes."""
        return len(self.hosts)

    def gather(self, value: Any, timeout: float | None = None) -> list[Any] | None:
        """The JSON values of all processes in order on process 0, None on all others.

        Raises UserError on process 0 where some have sent none after `timeout` seconds.
        """
        if self.process:
            self._peers[0].send({"value": value})
            return None
        until = None if timeout is None else time.monotonic() + timeout
        values, missing = [value], list[str]()
        for peer in self._peers:
            try:
                values.append(peer.get(None if until is None else max(until - time.monotonic(), 0.001)))
            except queue.Empty:
                missing.append(str(peer))
        if missing:
            raise UserError(
                f"distributed.timeout: after {timeout:g} s {', '.join(missing)} of {self.processes} processes had not "
                "read the data; give a longer one if they need it"
            )
        return values

    def share(self, value: Any) -> Any:
        """The value that process 0 gives, on all processes."""
        if self.process:
            return self._peers[0].get()
        for peer in self._peers:
            peer.send({"value": value})
        return value

    def fail(self, reason: str, code: int) -> None:
        """End all other processes with this reason, which one line of theirs repeats, and exit code."""
        if self._ending.is_set():
            return
        self._ending.set()
        self._tell({"end": f"process {self.process} ({self.hosts[self.process]}): {one_line(reason)}", "code": code})

    def leave(self) -> None:
        """Say that this process ends in order; nothing after it has failed."""
        if self._ending.is_set():
            return
        self._ending.set()
        for peer in self._peers:
            peer.send({"bye": True})

    def _tell(self, message: dict[str, Any], *, but: Peer | None = None) -> None:
        """Send the reason of the end. Process 0 then waits for a moment until the others have ended."""
        for peer in self._peers:
            if peer is not but:
                peer.send(message)
        until = time.monotonic() + LAST_WORDS
        while not self.process and time.monotonic() < until:
            if all(peer.has_left for peer in self._peers if peer is not but):
                break
            if threading.current_thread() is self._watch:
                self._read_some(0.05)
            else:
                time.sleep(0.02)

    def _follow(self) -> None:
        """Read what the peers send, until the end of the process."""
        self._selector = selectors.DefaultSelector()
        for peer in self._peers:
            self._selector.register(peer.connection, selectors.EVENT_READ, peer)
        while self._selector.get_map():
            for peer, message in self._read_some(None):
                if self._ending.is_set():
                    continue
                if "value" in message:
                    peer.inbox.put(message["value"])
                elif "bye" in message:
                    peer.inbox.put(LEFT)
                elif "end" in message:
                    self._end(message["end"], message["code"], peer)

    def _read_some(self, timeout: float | None) -> list[tuple[Peer, dict[str, Any]]]:
        """The messages of peers; a connection that is closed without a word is the end of a process that died."""
        found = []
        for key, _ in self._selector.select(timeout):
            peer: Peer = key.data
            messages = peer.read()
            if messages is None:
                self._selector.unregister(peer.connection)
                if not peer.has_left:
                    peer.has_left = True
                    found.append((peer, {"end": f"{peer} died{GO_ON}", "code": DIED}))
                continue
            peer.has_left = peer.has_left or any("bye" in message or "end" in message for message in messages)
            found += [(peer, message) for message in messages]
        return found

    def _end(self, line: str, code: int, source: Peer) -> NoReturn:
        """End this process, and from process 0 all others, with one line."""
        self._ending.set()
        with contextlib.suppress(OSError):
            os.write(2, f"error: {line}\n".encode("utf-8", "backslashreplace"))
        self._tell({"end": line, "code": code}, but=source)
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(code)


def _keep_alive(connection: socket.socket) -> None:
    """Let the system find out that a host is gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
