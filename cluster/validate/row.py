"""A row of the validation table."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

EXACT, BOUND, REPORTED = "exact", "lower bound", "reported"


@dataclass(frozen=True)
class Row:
    """One published number and ours.

    `tolerance` says in words what may differ. `ok` is None for what is reported without a claim;
    `reason` then says what makes the difference.
    A fact of many `numbers` (what, published, ours) counts those that hold.
    """

    id: str
    what: str
    published: float
    emulated: float
    tolerance: str
    ok: bool | None
    source: str
    configuration: str
    reason: str = ""
    numbers: tuple[tuple[str, float, float], ...] = ()

    @property
    def error(self) -> float:
        """Relative difference of ours from the published number."""
        return self.emulated / self.published - 1

    @property
    def status(self) -> str:
        """Return holds, fails or reported."""
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


def figures(row: Row) -> tuple[str, str, str]:
    """Published, ours and the error, as tables show them."""
    return f"{row.published:.5g}", f"{row.emulated:.5g}", f"{100 * row.error:+.2g} %"


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
