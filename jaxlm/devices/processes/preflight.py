"""Before JAX starts on several processes: they meet at the coordinator's address, and are compared.

Process 0 listens there for as long as distributed.timeout, and leaves the port to JAX's own coordinator afterwards. A
process that is missing, or that has another version, config or data, is named instead of waited for.
"""

import contextlib
import ipaddress
import json
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from jaxlm.config.distributed import DistributedConfig
from jaxlm.devices.processes.channel import Channel, Peer
from jaxlm.errors import UserError, one_line

Facts = Mapping[str, Any]
"""Values that all processes must have in common, by the name that an error gives it."""

RETRY = 0.25
"""Seconds between attempts to reach process 0."""
LATE = 3.0
"""Seconds after which a process is told that process 0 is not on its host, if the address is of that host alone."""
STRANGER = 5.0
"""Seconds after which a connection that has not said who it is, is closed."""
MARGIN = 15.0
"""Seconds beyond the time limit in which process 0, which may have started later, still answers."""
NAMED = 5
"""Most processes, and most differences of one, that an error lists."""
LONGEST = 60
"""Most characters of a value that an error gives."""
LONGEST_HELLO = 2**22
"""Most bytes of the line by which a process says who it is."""


def meet(settings: DistributedConfig, facts: Facts) -> Channel:
    """Wait until all processes are there and have the same facts; returns the channel between them.

    Raises UserError, on all that are there, naming those that are missing or differ, and where the coordinator's
    address cannot be used.
    """
    host = socket.gethostname()
    if settings.process == 0:
        return _listen(settings, facts, host)
    return _join(settings, facts, host)


def differences(processes: Sequence[str], facts: Sequence[Facts]) -> list[str]:
    """One "process 1 (b): jax 0.10.1, not 0.10.2" for each process whose facts are not those of the first."""
    found = []
    for name, other in zip(processes[1:], facts[1:], strict=True):
        changed = [
            f"{field} {_shown(other.get(field))}, not {_shown(facts[0].get(field))}"
            for field in dict.fromkeys([*facts[0], *other])
            if other.get(field) != facts[0].get(field)
        ]
        if changed:
            found.append(f"{name}: {'; '.join(few(changed))}")
    return found


def refuse(missing: Sequence[str], differing: Sequence[str], *, processes: int, timeout: float, hint: str = "") -> None:
    """Raise UserError if there are missing or differing processes."""
    parts = []
    if missing:
        parts.append(f"after {timeout:g} s {', '.join(few(missing))} of {processes} had not come")
    if differing:
        parts.append(f"they differ from process 0: {'; '.join(few(differing))}")
    if parts:
        raise UserError(f"the processes cannot train together: {'; and '.join(parts)}{hint}")


def _listen(settings: DistributedConfig, facts: Facts, host: str) -> Channel:
    assert settings.processes is not None
    until, N = time.monotonic() + settings.timeout, settings.processes
    peers: dict[int, Peer] = {}
    found: dict[int, Facts] = {}
    twice: Peer | None = None
    try:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        server = socket.create_server(("", settings.port), family=family, backlog=min(N, 1024), dualstack_ipv6=both)
    except OSError as error:
        raise UserError(
            f"distributed.coordinator {settings.coordinator!r} cannot be listened at ({error.strerror}): take another "
            "port for all processes"
        ) from error
    with server:
        while len(peers) < N - 1 and twice is None and (left := until - time.monotonic()) > 0:
            server.settimeout(left)
            try:
                connection, _ = server.accept()
            except TimeoutError:
                break
            hello = _hello(connection)
            if hello is None or not 0 < hello["process"] < N:
                connection.close()
                continue
            process = hello["process"]
            peer = Peer(connection, process, hello["host"])
            if process in peers:
                twice = peer
            else:
                peers[process], found[process] = peer, hello["facts"]
    order = sorted(peers)
    try:
        names = [f"process 0 ({host})", *(str(peers[process]) for process in order)]
        differing = differences(names, [facts, *(found[process] for process in order)])
        if twice is not None:
            differing.insert(0, f"{twice} is there twice, also on {peers[twice.process].host}")
        missing = [f"process {process}" for process in range(1, N) if process not in peers]
        hint = f" ({_loopback_rule(settings, host)})" if missing and _is_loopback(settings.host) else ""
        refuse([] if twice else missing, differing, processes=N, timeout=settings.timeout, hint=hint)
    except UserError as error:
        for peer in (*peers.values(), *([twice] if twice else [])):
            peer.send({"refused": f"process 0 ({host}): {one_line(str(error))}"})
            peer.connection.close()
        raise
    hosts = [host, *(peers[process].host for process in order)]
    for peer in peers.values():
        peer.send({"hosts": hosts})
    return Channel(0, hosts, [peers[process] for process in order])


def _join(settings: DistributedConfig, facts: Facts, host: str) -> Channel:
    assert settings.process is not None and settings.processes is not None
    connection = _connected(settings, host)
    peer = Peer(connection, 0, settings.host)
    peer.send({"process": settings.process, "host": host, "facts": facts})
    connection.settimeout(settings.timeout + MARGIN)
    answer: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        messages = peer.read()
        while messages == []:
            messages = peer.read()
        answer = messages[0] if messages else {}
    if "hosts" not in answer:
        connection.close()
    if "refused" in answer:
        raise UserError(answer["refused"])
    if "hosts" not in answer:
        raise UserError(
            f"distributed.coordinator {settings.coordinator!r} does not answer as process 0 of {settings.processes}, "
            "or it has ended: see what that process says"
        )
    peer.host = answer["hosts"][0]
    connection.settimeout(None)
    return Channel(settings.process, answer["hosts"], [peer])


def _connected(settings: DistributedConfig, host: str) -> socket.socket:
    """The connection to process 0, which may start later. Raises UserError after the time limit."""
    began, told = time.monotonic(), False
    until = began + settings.timeout
    while True:
        try:
            connection = socket.create_connection((settings.host, settings.port), timeout=settings.timeout)
            if connection.getsockname() == connection.getpeername():  # a free port of this host, connected to itself
                connection.close()
                raise ConnectionRefusedError("Connection refused")
            return connection
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
            if _is_loopback(settings.host):
                _refuse_other_name(settings, host)
                if not told and time.monotonic() > began + LATE:
                    told = True
                    rule = _loopback_rule(settings, host)
                    print(f"process {settings.process} waits for process 0: {rule}", file=sys.stderr, flush=True)
            if time.monotonic() + RETRY > until:
                break
            time.sleep(RETRY)
    advice = "is it running there, and may its port be reached?"
    if _is_loopback(settings.host):
        advice = _loopback_rule(settings, host)
    raise UserError(
        f"process {settings.process} ({host}) has not reached process 0 at distributed.coordinator "
        f"{settings.coordinator!r} in {settings.timeout:g} s ({reason})"
        f": {advice}"
    )


def _hello(connection: socket.socket) -> dict[str, Any] | None:
    """The first line of a connection, if it is one of ours."""
    connection.settimeout(STRANGER)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        line = b""
        while not line.endswith(b"\n") and len(line) < LONGEST_HELLO:
            received = connection.recv(2**16)
            if not received:
                return None
            line += received
        hello = json.loads(line)
        if isinstance(hello["process"], int) and isinstance(hello["host"], str) and isinstance(hello["facts"], dict):
            return dict(hello)
    return None


def _is_loopback(name: str) -> bool:
    """True if a host's name leads back to this host's loopback alone."""
    with contextlib.suppress(OSError, ValueError):
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(name, None)}
        return bool(found) and all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found)
    return False


def _refuse_other_name(settings: DistributedConfig, host: str) -> None:
    """Raise UserError if the coordinator has the name of another host, which this one resolves to itself."""
    name = settings.host.partition(".")[0].lower()
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(settings.host)
        return
    if name not in ("localhost", "localhost6", "ip6-localhost", host.partition(".")[0].lower()):
        raise UserError(
            f"distributed.coordinator {settings.coordinator!r} is a loopback address on {host}, which process "
            f"{settings.process} is on: give the address by which other hosts reach process 0 (see /etc/hosts)"
        )


def _loopback_rule(settings: DistributedConfig, host: str) -> str:
    return f"distributed.coordinator {settings.coordinator!r} is a loopback address, which only {host} itself reaches"


def few(texts: Sequence[str]) -> list[str]:
    """The first NAMED of some texts, and how many more there are."""
    more = [f"and {len(texts) - NAMED} more"] if len(texts) > NAMED else []
    return [*texts[:NAMED], *more]


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else "None" if value is None else json.dumps(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
