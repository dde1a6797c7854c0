"""x from a stage to the next: all of it from each rank, or a share that is handed round there."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

from chip.isa import WIDTHS
from chip.kernels.allreduce import TEAM
from chip.kernels.collective import APART_ROWS
from chip.kernels.transfer import Moved, multicast, transfer
from chip.schedule import Buffer, Rows, Schedule
from chip.spec import ChipSpec
from cluster.compiler.place import Placement
from cluster.compiler.stage import Stage
from cluster.compiler.timeline import P, in_parts
from cluster.compiler.wires import Wires
from cluster.compiler.wiring import Onward, Path, Paths, as_paths


@dataclass(frozen=True)
class Sender:
    """A rank of a stage, on its `path` to one of the next.

    What comes there goes `onward` to the others of its team: it is then a share, number `part`.
    """

    stage: int
    path: Path
    onward: tuple[Path, ...] = ()
    part: int = 0

    @property
    def whole(self) -> "Sender":
        """The same, of all rows."""
        return replace(self, onward=(), part=0)

    def share(self, rows: int) -> tuple[int, int]:
        """The rows, from one to another, that it sends of so many."""
        parts = len(self.onward) + 1
        return rows * self.part // parts, rows * (self.part + 1) // parts

    def some(self, rows: int, first: int, last: int) -> tuple[int, int]:
        """Those of its share from number `first` to `last`, if it has so many."""
        low, high = self.share(rows)
        return min(high, low + first), min(high, low + last)


def senders(
    paths: Iterable[Path], onward: Sequence[tuple[Path, ...]], stage: int = 0
) -> Iterator[Sender]:
    """Every rank of a stage, by the paths of a link to the ranks of the next in their order."""
    for rank, path in enumerate(paths):
        yield Sender(stage, path, onward[rank], rank % TEAM) if onward else Sender(stage, path)


def step_senders(wires: Wires, placement: Placement) -> Iterator[Sender]:
    """Every rank of all stages but the last; members are chips."""
    for number in reversed(range(len(placement) - 1)):
        link = wires.link(placement[number], placement[number + 1])

        def among_chips(path: Path, chips: tuple[int, ...] = link.chips) -> Path:
            return tuple(
                hop._replace(member=chips[hop.member], to_member=chips[hop.to_member])
                for hop in path
            )

        paths = as_paths(map(among_chips, link.paths))
        onward = tuple(tuple(map(among_chips, some)) for some in link.onward)
        yield from senders(paths, onward, number)


Some = Callable[[Sequence[Sender], int, int], P]  # of rows of each share, from one to another


def quickest_parts(
    every: Sequence[Sender], rows: int, limit_cycles: int | None, sent: Some[P], round_: Some[P]
) -> list[P]:
    """What brings so many rows of x on, by the quicker way, in parts within the limit if possible.

    Either each rank sends everything, or all shares are `sent` first, and then handed `round_`.
    Everything is not tried where its cables must be busy for longer than shares take.
    """
    shared: list[P] = []
    if any(one.onward for one in every):
        shared = _in_parts(every, rows, limit_cycles, sent)
        most = _most(every, rows)
        shared += in_parts(most, limit_cycles, partial(round_, every))
        if rows * row_cycles(one.path for one in every) > _total_cycles(shared):
            return shared
    whole = _in_parts([one.whole for one in every], rows, limit_cycles, sent)
    return min((one for one in (whole, shared) if one), key=_total_cycles, default=whole)


def _in_parts(
    some: Sequence[Sender], rows: int, limit_cycles: int | None, sent: Some[P]
) -> list[P]:
    least = row_cycles(one.path for one in some)
    return in_parts(_most(some, rows), limit_cycles, partial(sent, some), least)


def _most(some: Sequence[Sender], rows: int) -> int:
    """Rows of the largest share."""
    return max((high - low for low, high in (one.share(rows) for one in some)), default=0)


def _total_cycles(parts: Iterable[P]) -> int:
    return sum(part.end_cycle for part in parts)


def send(plan: Schedule, path: Path, ends: tuple[Buffer, Buffer], rows: tuple[int, int]) -> None:
    """Add rows, from one to another, from a buffer to another along a path."""
    first, last = rows
    if first < last:
        moved = Moved(Rows(ends[0], first), Rows(ends[1], first), last - first)
        transfer(plan, path, moved)


def hand_round(
    plan: Schedule, onward: Sequence[Path], buffer: Buffer, rows: tuple[int, int]
) -> None:
    """Add rows, from one to another, along all paths to the same place.

    An instruction reads or writes a row, so that those of many chips take turns at their slices.
    """
    for first in range(*rows, APART_ROWS) if onward else ():
        some, count = Rows(buffer, first), min(APART_ROWS, rows[1] - first)
        multicast(plan, list(onward), some, [some] * len(onward), count, apart=True)


def send_activations(
    plan: Schedule, stage: Stage, following: Stage, paths: Iterable[Path], rows: tuple[int, int]
) -> Schedule:
    """Add rows of x of each rank, from one to another, from `x0` to `x0` along a path each."""
    for path in paths:
        send(plan, path, (stage.memory["x0"], following.memory["x0"]), rows)
    return plan


def row_cycles(paths: Iterable[Path]) -> int:
    """Cycles that the busiest cable takes at least for a row of x along each of the paths."""
    return _busiest_cycles((path, 1) for path in paths)


def least_cycles(paths: Paths, onward: Onward, rows: int) -> int:
    """Cycles that so many rows of x take at least to the next stage, by the quicker way."""
    some = list(senders(paths, onward))
    shares = ((one.path, high - low) for one in some for low, high in [one.share(rows)])
    nearest = min(sum(hop.latency_cycles for hop in path) for path in paths)
    return nearest + min(rows * row_cycles(paths), _busiest_cycles(shares))


def _busiest_cycles(moved: Iterable[tuple[Path, int]]) -> int:
    """Cycles that the busiest cable takes at least for so many rows along each path."""
    busy = Counter[tuple[int, int]]()
    for path, rows in moved:
        cycles = rows * max(hop.interval_cycles for hop in path)
        busy.update({(hop.member, hop.port): cycles for hop in path})
    return WIDTHS["f32"] * max(busy.values(), default=0)


def send_shares(
    stage: Stage, following: Stage, paths: Paths, onward: Onward, rows: tuple[int, int]
) -> Schedule | None:
    """Rows of x, from one to another: each rank sends its share, which goes onward in its team.

    None where ranks are alone. Not to be added to: equal ones are made once.
    """
    if not any(onward):
        return None
    ends = stage.memory["x0"], following.memory["x0"]
    return _in_shares(stage.spec, ends, paths, onward, rows)


@lru_cache(maxsize=256)
def _in_shares(
    spec: ChipSpec, ends: tuple[Buffer, Buffer], paths: Paths, onward: Onward, rows: tuple[int, int]
) -> Schedule:
    plan, (first, last) = Schedule(spec), rows
    shares = []
    for one in senders(paths, onward):
        low, high = one.share(last - first)
        shares.append((one, (first + low, first + high)))
    for one, share in shares:
        send(plan, one.path, ends, share)
    for one, share in shares:
        hand_round(plan, one.onward, ends[1], share)
    return plan


def quicker(paths: Iterable[Path], rows: int, whole: Callable[[], P], shared: P | None) -> P:
    """What is over earlier, of two ways to the next stage; `shared` if that is plain to see."""
    if shared is not None and rows * row_cycles(paths) >= shared.end_cycle:
        return shared
    way = whole()
    return shared if shared is not None and shared.end_cycle < way.end_cycle else way
