"""The paths of the server."""

from collections.abc import Awaitable, Callable, Sequence
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from jaxlm.server import guards
from jaxlm.server.chat import chat
from jaxlm.server.completions import completions
from jaxlm.server.failures import ApiError, refused
from jaxlm.server.fields import Fields
from jaxlm.server.served import EOS_NAME, Served
from jaxlm.server.state import State

Handler = Callable[[Request], Awaitable[Response]]
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may load: nothing but answers of this server."""


def build(state: State, hosts: Sequence[str] | None = None) -> Starlette:
    """The application. `hosts`: names beside this machine's own that requests may call it by; None: any."""

    def route(path: str, handle: Handler) -> Route:
        return Route(path, Guarded(handle, state, hosts), methods=["GET"])

    def posted(path: str, handle: Callable[[Request, State, bytes], Awaitable[Response]]) -> Route:
        async def read(request: Request) -> Response:
            return await handle(request, state, await guards.read_body(request, state.limits))

        return Route(path, Guarded(read, state, hosts), methods=["POST"])

    async def page(request: Request) -> Response:
        text = resources.files("jaxlm.server").joinpath("page.html").read_text("utf-8")
        headers = {
            "Content-Security-Policy": PAGE_POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        return HTMLResponse(text, headers=headers)

    async def health(request: Request) -> Response:
        status = "closing" if state.closing else "ok"
        return JSONResponse({"status": status}, 503 if state.closing else 200)

    async def metrics(request: Request) -> Response:
        return PlainTextResponse(state.metrics(), media_type="text/plain; version=0.0.4")

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": list(map(_about, state.runs.values()))})

    async def model(request: Request) -> Response:
        return JSONResponse(_about(state.served(request.path_params["name"])))

    async def tokenizer_info(request: Request) -> Response:
        served = state.served(request.query_params.get("model"))
        info = {"tokenizer_class": type(served.run.tokenizer).__name__, "eos_token": EOS_NAME, "bos_token": None}
        return JSONResponse({**info, "chat_template": served.template})

    routes = [
        route("/", page),
        route("/health", health),
        route("/metrics", metrics),
        route("/v1/models", models),
        route("/v1/models/{name:path}", model),
        posted("/v1/completions", completions),
        posted("/v1/chat/completions", chat),
        route("/tokenizer_info", tokenizer_info),
        posted("/tokenize", tokenize),
        posted("/detokenize", detokenize),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _no_such_path, Exception: _bug})
    app.router.redirect_slashes = False
    return app


class Guarded:
    """A path behind the guards: its answer is counted, and the client's request with its last byte."""

    def __init__(self, handle: Handler, state: State, hosts: Sequence[str] | None):
        self._handle, self._state, self._hosts = handle, state, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request, state, client = Request(scope, receive), self._state, None
        try:
            try:
                if self._hosts is not None:
                    guards.check_host(request, self._hosts)
                guards.check_key(request, state.keys)
                asks = guards.client_of(request, state)
                guards.enter(state, asks)
                client = asks
                response = await self._handle(request)
            except ApiError as error:
                response = error.response()
            except ClientDisconnect:
                return
            state.requests.add(scope["route"].path, str(response.status_code))
            await response(scope, receive, send)
        finally:
            if client is not None:
                guards.leave(state, client)


async def _bug(request: Request, error: Exception) -> Response:
    return ApiError(500, "the server failed; its log says why", code="internal_error").response()


async def _no_such_path(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 405:
        return ApiError(405, f"{path} does not take {request.method}", code="method_not_allowed").response()
    return ApiError(error.status_code, f"there is no {path} here", code="unknown_path").response()


def _about(served: Served) -> dict[str, Any]:
    """A run as /v1/models has it; beside OpenAI's fields what the page shows."""
    run = served.run
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "jaxlm",
        "kind": served.kind,
        "chats": served.chats,
        "max_model_len": run.model.max_length,
        "vocab_size": run.tokenizer.vocab_size,
        "step": run.step,
    }


async def tokenize(request: Request, state: State, body: bytes) -> Response:
    """The tokens of a text: {"prompt"} → {"tokens", "token_strs", "count", "max_model_len"}."""
    fields = Fields(body)
    served, text = state.served(fields.text("model")), fields.text("prompt")
    fields.take("add_special_tokens")
    fields.done()
    if text is None:
        raise refused("prompt", "wants a string", "missing_field")
    tokens = served.encode(text)
    names = list(map(served.spell, tokens))
    most = served.run.model.max_length
    return JSONResponse({"tokens": tokens, "token_strs": names, "count": len(tokens), "max_model_len": most})


async def detokenize(request: Request, state: State, body: bytes) -> Response:
    """The text of tokens: {"tokens"} → {"prompt"}."""
    fields = Fields(body)
    served, tokens = state.served(fields.text("model")), fields.take("tokens")
    fields.done()
    if not isinstance(tokens, list):
        raise refused("tokens", "wants a list of tokens", "invalid_type")
    return JSONResponse({"prompt": served.decode(served.checked(tokens, "tokens"))})
