"""The dozen rows of a comparison that people look at first: the best makes for its question.

The question is speed for one user, and energy: of every make its fastest size for one user, and the
size and users with the least energy per token; of these the best.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cluster.compare.table import Row

FASTEST, FRUGAL, PUBLISHED = 5, 4, 1


@dataclass(frozen=True)
class Shown:
    """A row, and the same with what such devices achieve (None: not known)."""

    row: Row
    achieved: Row | None


def nearest_context(rows: Sequence[Row]) -> int:
    """The context of the rooflines that is nearest to that of the emulated rows."""
    ours = next(r.context for r in rows if r.kind == "emulated")
    return min({r.context for r in rows if r.kind == "roofline"}, key=lambda c: abs(c - ours))


def shortlist(rows: Sequence[Row]) -> list[Shown]:
    """LPUs first, then the others from the fastest on."""
    context = nearest_context(rows)
    near = [r for r in rows if r.context == context]
    achieved = {_size(r): r for r in near if r.kind == "achieved"}
    limits = [r for r in near if r.kind == "roofline"]
    alone = _best_of_makes((r for r in limits if r.batch == 1), _slowness)[:FASTEST]
    metered = (r for r in limits if r.joules_per_token is not None)
    frugal = _best_of_makes(metered, lambda r: r.joules_per_token or 0.0)[:FRUGAL]
    others = {_size(r): r for r in (*alone, *frugal)}
    found = [Shown(r, achieved.get(size)) for size, r in others.items()]
    published = sorted((r for r in rows if r.kind == "published"), key=_slowness)[:PUBLISHED]
    found += [Shown(r, r) for r in published]
    found.sort(key=lambda one: _slowness(one.row))
    ours = [r for r in rows if r.kind == "emulated"]
    same = len({r.batch for r in ours}) == 1
    return [*(Shown(r, None) for r in ours[same:]), *found]


def _best_of_makes(rows: Iterable[Row], cost: Callable[[Row], float]) -> list[Row]:
    """The row of each device that costs least, the least first."""
    best: dict[str, Row] = {}
    for row in sorted(rows, key=cost):
        best.setdefault(row.device, row)
    return list(best.values())


def _size(row: Row) -> tuple[str, int, int]:
    return row.device, row.count, row.batch


def _slowness(row: Row) -> float:
    return -row.tokens_per_s_per_user
