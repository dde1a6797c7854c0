"""A row of the validation table."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

EXACT, BOUND, REPORTED, SKIPPED = "exact", "lower bound", "reported", "not attempted"


@dataclass(frozen=True)
class Row:
    """One published number and ours.

    `tolerance` says in words what may differ. `ok` is None for what is reported without a claim;
    `reason` then says what makes the difference. `emulated` is None where it was not attempted.
    A fact of many `numbers` (what, published, ours) counts those that hold.
    """

    id: str
    what: str
    published: float
    emulated: float | None
    tolerance: str
    ok: bool | None
    source: str
    configuration: str
    reason: str = ""
    numbers: tuple[tuple[str, float, float], ...] = ()

    @property
    def error(self) -> float | None:
        """Relative difference of ours from the published number."""
        return None if self.emulated is None else self.emulated / self.published - 1

    @property
    def status(self) -> str:
        """Return holds, fails, reported or not attempted."""
        if self.emulated is None:
            return SKIPPED
        return REPORTED if self.ok is None else "holds" if self.ok else "fails"

    @property
    def command(self) -> str:
        """Return the command that computes this row alone."""
        return f"lpu validate --only {self.id}"


@dataclass(frozen=True)
class Family:
    """Rows that are computed together, and their ids."""

    ids: tuple[str, ...]
    rows: Callable[[], Iterable[Row]]


def within(
    ident: str, what: str, published: float, emulated: float, percent: float, source: str,
    configuration: str,
) -> Row:  # fmt: skip
    """A row that claims to lie within `percent` of the published number."""
    ok = abs(emulated / published - 1) <= percent / 100
    tolerance = f"{percent:g} %" if percent else EXACT
    return Row(ident, what, published, emulated, tolerance, ok, source, configuration)


def at_least(
    ident: str, what: str, published: float, emulated: float, source: str, configuration: str
) -> Row:
    """A row whose published number is a lower bound."""
    ok = emulated >= published
    return Row(ident, what, published, emulated, BOUND, ok, source, configuration)


def missed(row: Row, reason: str) -> Row:
    """The row without a claim, if it is out of tolerance: `reason` says why."""
    if row.ok:
        return row
    return Row(row.id, row.what, row.published, row.emulated, row.tolerance, None, row.source,
               row.configuration, reason)  # fmt: skip


def skipped(ident: str, what: str, published: float, source: str, reason: str) -> Row:
    """A row that nothing computes yet."""
    return Row(ident, what, published, None, "", None, source, "", reason)


def phases(events: Iterable[tuple[str, int, int]], end: int, most: int = 4) -> str:
    """Cycles by kind of chain, the word before a colon; each lasts until the next one starts."""
    ordered = sorted((start, label) for label, start, _ in events)
    ends = [start for start, _ in ordered[1:]] + [end]
    spent: dict[str, int] = {}
    for (start, label), until in zip(ordered, ends, strict=True):
        kind = label.split(":")[0]
        spent[kind] = spent.get(kind, 0) + until - start
    order = sorted(spent.items(), key=lambda item: -item[1])
    return ", ".join(f"{kind} {cycles:,}" for kind, cycles in order[:most])
