"""Where a running Ray is, and whether it lets us in.

Looked at before Ray does: it tries for half a minute where a token is missing, and ends the process
where the file of one is.
"""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import BadValue

KNOCK_TIMEOUT_S = 10.0
_HOST_AND_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\[\]:/\s]+)):(\d{1,5})")
_SCHEMES = {
    "ray": "is of Ray Client, which has no channels between actors",
    "http": "is of Ray's dashboard, which takes jobs",
    "https": "is of Ray's dashboard, which takes jobs",
}
_MAKE_ONE = "`ray get-auth-token --generate` makes one"


@dataclass(frozen=True)
class Place:
    """A Ray cluster by its address, which came from `option`; the token to show it, or ''."""

    option: str
    address: str
    token: str

    def error(self, problem: str) -> BadValue:
        """Return the error to raise about this address."""
        return BadValue(self.option, self.address, problem)

    def knock(self, messages: Any, stubs: Any) -> None:
        """Raise BadValue when no Ray head answers there, or when it wants another token.

        `messages` and `stubs` are Ray's modules of its control service.
        """
        if self.listens():
            self._ask(messages, stubs)

    def listens(self) -> bool:
        """Whether it is known to be there: `auto` is not looked at. Raises BadValue if it is not.

        This needs nothing of Ray.
        """
        match = _HOST_AND_PORT.fullmatch(self.address)
        if match is None:
            return False
        try:
            where = match[1] or match[2], int(match[3])
            socket.create_connection(where, timeout=KNOCK_TIMEOUT_S).close()
        except (OSError, OverflowError) as error:
            raise self.error(f"no Ray cluster there: {error}") from None
        return True

    def _ask(self, messages: Any, stubs: Any) -> None:
        import grpc  # Ray brings it

        shown = [("authorization", f"Bearer {self.token}")] if self.token else []
        with grpc.insecure_channel(self.address) as channel:
            service = stubs.NodeInfoGcsServiceStub(channel)
            try:
                question = messages.GetClusterIdRequest()
                service.GetClusterId(question, timeout=KNOCK_TIMEOUT_S, metadata=shown)
            except grpc.RpcError as error:
                code = error.code()
                if code is grpc.StatusCode.UNAUTHENTICATED:
                    wrong = "it refuses the token it was shown"
                    none = "it wants a token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
                    raise self.error(wrong if self.token else none) from None
                problem = f"what listens there is no Ray head ({code.name.lower()})"
                raise self.error(problem) from None


def place(address: str | None, environment: Mapping[str, str]) -> Place | None:
    """Return the cluster at `address` or at $RAY_ADDRESS; None is one of our own.

    Raises BadValue for an address that no run can use, and where a token is wanted but not there.
    """
    token = _token(environment)
    option, found = "--address", address
    if found is None:
        option, found = "RAY_ADDRESS", environment.get("RAY_ADDRESS")
    if not found or found == "local":
        return None
    here = Place(option, found, token)
    scheme, colon, _ = found.partition("://")
    if colon:
        problem = _SCHEMES.get(scheme, "is none of Ray's")
        raise here.error(f"{problem}; give HOST:PORT of the head, or submit the run as a job")
    if found != "auto" and not _HOST_AND_PORT.fullmatch(found):
        raise here.error("must be HOST:PORT, [IPV6]:PORT or auto")
    return here


def _token(environment: Mapping[str, str]) -> str:
    """Return the token that Ray would take from this environment, '' without tokens."""
    if environment.get("RAY_AUTH_MODE", "").lower() != "token":
        return ""
    if environment.get("RAY_AUTH_TOKEN"):
        return environment["RAY_AUTH_TOKEN"].strip()
    given = environment.get("RAY_AUTH_TOKEN_PATH")
    path = Path(given) if given else Path(environment.get("HOME", "/"), ".ray", "auth_token")
    option = "RAY_AUTH_TOKEN_PATH" if given else "RAY_AUTH_MODE=token needs"
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is not text"
        raise BadValue(option, path, f"{reason}; {_MAKE_ONE}") from None
    if not token:
        raise BadValue(option, path, f"is empty; {_MAKE_ONE}")
    return token
