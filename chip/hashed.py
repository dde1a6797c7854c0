"""Hashes of large frozen values, taken once."""

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T", bound=type)


def hashed_once(cls: T) -> T:
    """Class decorator of a frozen dataclass: each object keeps its hash, which caches ask for.

    Pickles leave it out: strings hash differently in every process.
    """
    changed: Any = cls
    plain: Callable[[Any], int] = changed.__hash__

    def hash_once(self: Any) -> int:
        found: int | None = self.__dict__.get("_hash")
        if found is None:
            found = self.__dict__["_hash"] = plain(self)
        return found

    def state(self: Any) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_hash"}

    changed.__hash__, changed.__getstate__ = hash_once, state
    return cls
