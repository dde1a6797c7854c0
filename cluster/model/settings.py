"""The settings of a model, whatever format they come in: each read is checked, no key is ignored.

Formats translate their keys to those of a `config.json`, so that architectures read one language;
`spelled` keeps the original ones for messages. A key is used, known to be harmless, neutral (it
changes nothing at the values listed), or refused by name when the settings are closed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, TypeVar

from cluster.errors import ModelError

T = TypeVar("T")


@dataclass(frozen=True)
class Lists:
    """Keys that need no reading: harmless at any value, or neutral at one of those given."""

    harmless: frozenset[str] = frozenset()
    neutral: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


class Settings:
    """A table of settings from `source`; null is read as absent, as the public readers do."""

    def __init__(
        self,
        source: str,
        values: Mapping[str, Any],
        lists: Lists,
        spelled: Mapping[str, str] | None = None,
        prefix: str = "",
    ) -> None:
        self.source, self._values, self._lists = source, values, lists
        self._spelled, self._prefix = spelled or {}, prefix
        self._tables: list[Settings] = []
        self.used: set[str] = set()

    def error(self, problem: str, advice: str = "") -> ModelError:
        """Return the error to raise about this source."""
        return ModelError(self.source, problem, advice)

    def spelling(self, key: str) -> str:
        """The key as the source writes it."""
        return self._spelled.get(key, f"{self._prefix}{key}")

    def kept(self, key: str) -> Any:
        """What a key says to others than the graph, unread; None if it is not there."""
        return self._values.get(key)

    def has(self, key: str) -> bool:
        """Whether the key is there and not null; it counts as used."""
        self.used.add(key)
        return self._values.get(key) is not None

    def _read(self, key: str, kind: type[T], what: str, default: T | None) -> T:
        if not self.has(key):
            if default is None:
                raise self.error(f"has no '{self.spelling(key)}'")
            return default
        value = self._values[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.error(f"'{self.spelling(key)}' is {value!r}, expected {what}")
        return value

    def number(self, key: str, default: float | None = None, positive: bool = True) -> float:
        """A finite number, above 0 if `positive`; without `default` the key must be there."""
        value: Any = self._read(key, int | float, "a number", default)  # type: ignore[arg-type]
        if not isfinite(value) or (positive and value <= 0):
            rule = "must be positive" if isfinite(value) else "must be finite"
            raise self.error(f"'{self.spelling(key)}' is {value}, it {rule}")
        return float(value)

    def whole(self, key: str, default: int | None = None, least: int = 1, most: int = 2**31) -> int:
        """An integer from `least` to `most`."""
        if isinstance(self._values.get(key), str):
            self.number(key)
        value = self._read(key, int, "an integer", default)
        if not least <= value <= most:
            raise self.error(f"'{self.spelling(key)}' is {value}, it must be {least} to {most}")
        return value

    def flag(self, key: str, default: bool | None = None) -> bool:
        """A boolean."""
        return self._read(key, bool, "true or false", default)

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        return self._read(key, str, "a string", default)

    def items(self, key: str) -> tuple[Any, ...]:
        """A list; empty where there is none."""
        return tuple(self._read(key, list, "a list", []))

    def table(self, *keys: str) -> "Settings":
        """The tables under `keys` as one; a later one wins. It is closed with this one."""
        merged: dict[str, Any] = {}
        prefix = ""
        for key in keys:
            if self.has(key):
                merged |= self._read(key, dict, "an object", None)
                prefix = f"{self.spelling(key)}."
        inner = Settings(self.source, merged, self._lists, self._spelled, prefix)
        self._tables.append(inner)
        return inner

    def close(self) -> None:
        """Raise ModelError for a key that nobody has read and that may mean something."""
        for key, value in self._values.items():
            if key in self.used or value is None or key in self._lists.harmless:
                continue
            name = self.spelling(key)
            if key not in self._lists.neutral:
                raise self.error(f"has the setting '{name}', whose meaning here is not known")
            if value not in self._lists.neutral[key]:
                usual = self._lists.neutral[key][0]
                raise self.error(f"'{name}' is {value!r}, only {usual!r} can be computed")
        for table in self._tables:
            table.close()
