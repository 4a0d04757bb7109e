"""Errors of requests, as OpenAI's API writes them."""

from typing import Any

from starlette.responses import JSONResponse


class ApiError(Exception):
    """A request that is not answered, with its HTTP status."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    @property
    def body(self) -> dict[str, Any]:
        """{"error": {"message", "type", "param", "code"}}."""
        kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The error as an answer."""
        headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}, 503: {"Retry-After": "1"}}
        return JSONResponse(self.body, self.status, headers.get(self.status))


def refused(param: str, message: str, code: str = "invalid_value") -> ApiError:
    """400 for a field of a request: the message begins with its name."""
    return ApiError(400, f"{param} {message}", param=param, code=code)
