"""A listening socket and uvicorn on it: ready when it says so, drained when it is told to end."""

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread

import uvicorn
from starlette.types import ASGIApp

from cluster.errors import BadValue

BACKLOG = 2048


def bind(host: str, port: int) -> socket.socket:
    """A socket of its own at that address, which nobody can connect to yet; raises BadValue."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        said = getattr(error, "strerror", None) or "is no name of a host"
        raise BadValue("--host", host, said) from None
    found = socket.socket(family, kind, protocol)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(address)
        found.listen(BACKLOG)
        found.close()
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        found.close()
        advice = "; take another, or 0 for any that is free"
        raise BadValue("--port", port, f"{host}: {error.strerror}{advice}") from None
    return found


def url_of(listener: socket.socket) -> str:
    """Where clients find it."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Calls `ready` when clients can connect; the first SIGTERM or SIGINT lets answers end."""

    def __init__(self, app: ASGIApp, drain_s: int, ready: Callable[[], None]) -> None:
        config = uvicorn.Config(
            app, http="h11", loop="asyncio", ws="none", lifespan="on", log_level="critical",
            access_log=False, server_header=False, backlog=BACKLOG,
            timeout_graceful_shutdown=drain_s,
        )  # fmt: skip
        super().__init__(config)
        self._ready = ready
        self.interrupted = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals meanwhile; they are not raised again: to be told to end is no failure."""
        if current_thread() is not main_thread():
            yield
            return

        def handle(number: int, frame: object) -> None:
            self.interrupted = self.interrupted or number == signal.SIGINT
            self.force_exit = self.force_exit or self.should_exit
            self.should_exit = True

        before = {one: signal.signal(one, handle) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
