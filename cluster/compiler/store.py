"""What keeps things that were made once, such as a folder of files."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Store(Protocol):
    """Keeps what was made once, by what it was made of."""

    def __hash__(self) -> int:
        """Equal for stores of one place."""

    def kept(
        self,
        kind: str,
        key: object,
        make: Callable[[], T],
        plain: Callable[[T], Any],
        read: Callable[[Any], T],
    ) -> T:
        """What `make` returns, perhaps from before; `plain` and `read` are to JSON and back."""
