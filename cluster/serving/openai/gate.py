"""What every request passes: key, size, and the count of its response."""

import hmac
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.serving.openai.errors import GONE, ApiError

GUARDED = ("/v1/", "/openai/v1/")
OTHER = "other"  # paths that there are none of: names of clients' making are no labels


class Gate:
    """Refuses what has no key or is too large; tells `responded` path, status and seconds.

    A client that hangs up is counted as 499, whatever it has been sent.
    """

    def __init__(
        self,
        app: ASGIApp,
        paths: frozenset[str],
        key: str | None,
        body_bytes: int,
        responded: Callable[[str, int, float], None],
    ) -> None:
        self._app, self._paths, self._key = app, paths, key
        self._body_bytes, self._responded = body_bytes, responded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status, whole, read = time.perf_counter(), 500, False, 0

        async def sent(message: Message) -> None:
            nonlocal status, whole
            if message["type"] == "http.response.start":
                status = message["status"]
            whole = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        async def received() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._body_bytes:
                raise self._too_large()
            return message

        try:
            refused = self._refused(scope)
            if refused is None:
                await self._app(scope, received, sent)
            else:
                await refused.response()(scope, receive, sent)
        finally:
            path = scope["path"] if scope["path"] in self._paths else OTHER
            self._responded(path, status if whole else GONE, time.perf_counter() - start)

    def _refused(self, scope: Scope) -> ApiError | None:
        headers = dict(scope["headers"])
        if self._key is not None and scope["path"].startswith(GUARDED):
            kind, _, given = headers.get(b"authorization", b"").partition(b" ")
            if kind.lower() != b"bearer" or not hmac.compare_digest(given, self._key.encode()):
                said = "wrong API key" if given else "no API key; send 'Authorization: Bearer KEY'"
                return ApiError(401, said, code="invalid_api_key")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._body_bytes:
            return self._too_large()
        return None

    def _too_large(self) -> ApiError:
        said = f"the body is larger than {self._body_bytes:,} bytes"
        return ApiError(413, said, code="request_too_large")
