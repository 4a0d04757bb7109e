"""What a request must pass before it is read: the host that it names, its key, the number of its client's requests."""

import asyncio
import hashlib
import hmac
from collections.abc import Sequence

from starlette.requests import Request

from jaxlm.cli.server_command import Limits
from jaxlm.server.failures import ApiError
from jaxlm.server.state import State

OPEN_PATHS = ("/", "/health")
"""Paths without secrets: they are answered without a key."""
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
BODY_SECONDS = 30.0
"""Within which a request's body must have come."""


def check_host(request: Request, names: Sequence[str]) -> None:
    """Raise ApiError unless the Host header names this machine, or one of `names`.

    A page of somebody else's whose name is made to lead here (DNS rebinding) would otherwise reach the server through
    the user's browser.
    """
    host = request.headers.get("host", "")
    name = host.rpartition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    if name.lower() not in (*LOCAL_NAMES, *names):
        raise ApiError(400, f"the Host header names {name!r}: allow it with --allow-host {name}", code="invalid_host")


def check_key(request: Request, keys: Sequence[str]) -> None:
    """Raise ApiError unless there are no keys or the request brings one; the time tells nothing about them."""
    if not keys or request.url.path in OPEN_PATHS:
        return
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not given:
        raise ApiError(401, "an API key is wanted: Authorization: Bearer KEY", code="missing_api_key")
    digest = _digest(given.strip())
    matches = [hmac.compare_digest(digest, _digest(key)) for key in keys]
    if not any(matches):
        raise ApiError(401, "the API key is not one of this server's", code="invalid_api_key")


def client_of(request: Request, state: State) -> str:
    """Whose request it is: that of a key, else of an address."""
    if state.keys:
        return _digest(request.headers.get("authorization", "")).hex()
    return request.client.host if request.client else ""


def enter(state: State, client: str) -> None:
    """Count a request of a client. Raises ApiError 429 where it has too many at once."""
    if state.clients[client] >= state.limits.concurrency:
        raise ApiError(
            429,
            f"{state.limits.concurrency} requests of one client at once are the most (--concurrency)",
            code="too_many_requests",
        )
    state.clients[client] += 1


def leave(state: State, client: str) -> None:
    """Count a client's request no more."""
    state.clients[client] -= 1
    if not state.clients[client]:
        del state.clients[client]


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body of a request. Raises ApiError where it is too large, slow, or not said to be JSON.

    A browser asks before it sends JSON to a server of another name, and is not allowed to; other types it just sends.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, f"Content-Type wants application/json, got {kind or 'none'}", code="invalid_content_type")
    too_large = ApiError(413, f"the body has more than {limits.body} bytes (--body)", code="body_too_large")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limits.body:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.body:
                    raise too_large
    except TimeoutError:
        raise ApiError(408, f"the body did not come within {BODY_SECONDS:g} s", code="timeout") from None
    return bytes(body)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
