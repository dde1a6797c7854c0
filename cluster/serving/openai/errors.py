"""Errors in the form of OpenAI's API, which its clients turn into exceptions of their own."""

from typing import Any

from pydantic import ValidationError
from starlette.responses import JSONResponse

from cluster.serving.loop import QueueFull
from cluster.serving.openai.schemas import UNSUPPORTED

GONE = 499  # nginx's number for a client that has hung up
TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    405: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


TAGS = {"str", "int", "float", "bool"}  # by which pydantic says which of several types it tried


class ApiError(Exception):
    """An answer that is an error: HTTP status, what is wrong, with which parameter, and a code."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(status, message, param, code)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_s: int | None = None

    def response(self) -> JSONResponse:
        """Return it as JSON."""
        error: dict[str, Any] = {
            "message": self.message,
            "type": TYPES.get(self.status, "invalid_request_error"),
            "param": self.param,
            "code": self.code,
        }
        headers = {} if self.retry_s is None else {"retry-after": str(self.retry_s)}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return JSONResponse({"error": error}, self.status, headers)


def queue_full(error: QueueFull) -> ApiError:
    """Return 429 with Retry-After."""
    found = ApiError(429, str(error), code="rate_limit_exceeded")
    found.retry_s = error.retry_s
    return found


def wrong_body(error: ValidationError) -> ApiError:
    """Return 400 for a parameter that there is not, 422 for a value that cannot be."""
    first = error.errors()[0]
    place = [part for part in map(str, first["loc"]) if part not in TAGS]
    param = ".".join(part for part in place if part.isidentifier() or part.isdigit()) or None
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"unknown parameter: '{param}'", param, "unknown_parameter")
    if first["type"] == UNSUPPORTED:
        return ApiError(400, first["msg"], first["ctx"]["name"], UNSUPPORTED)
    said = first["msg"].removeprefix("Value error, ")
    return ApiError(422, f"{param or 'body'}: {said}", param, "invalid_value")
