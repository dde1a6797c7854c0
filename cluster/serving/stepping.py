"""What a scheduler is to whoever runs its steps."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cluster.serving.requests import Request
from cluster.serving.requests import Step


class Stepping(Protocol):
    """Says what to run next, and is told how long that took and which tokens came of it."""

    def next_step(self) -> "Step | None":
        """What the stages do next; None if there is nothing left to do."""

    def complete(self, step: "Step", cycles: int) -> "list[Request]":
        """Let the time of a step pass; return whose tokens are due, in order of their rows."""

    def token(self, request: "Request", token: int, last: bool = False) -> None:
        """A token of a request is at the host."""
