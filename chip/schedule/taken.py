"""What the units of chips are taken for, and what of them is chosen for a chain."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence

from chip.schedule.busy import Busy, Cycles
from chip.schedule.flows import Key

Kind = tuple[str, int, int, tuple[int, ...]]  # of a Need: kind, side, width, halves
Candidate = tuple[int, list[Busy]]  # index of a unit or of the first stream, its tables


class Candidates:
    """What there is to choose from, in order; tables are made once somebody looks at them."""

    __slots__ = ("made", "rest")

    def __init__(self, rest: Iterator[Candidate]) -> None:
        self.made: list[Candidate] = []
        self.rest = rest

    def more(self) -> bool:
        """Make the next of them; False if there is none."""
        found = next(self.rest, None)
        if found is None:
            return False
        self.made.append(found)
        return True


def wait_for(candidates: Candidates, low: int, high: int, start: int) -> int:
    """Cycles until something that a need can choose is free."""
    best, at, made = 0, 0, candidates.made
    while at < len(made) or candidates.more():
        wait = max([table.delay(low + start, high + start) for table in made[at][1]])
        if not wait:
            return 0
        best = min(best, wait) if best else wait
        at += 1
    return best


def choose(
    choices: Sequence[tuple[Candidates, int, int]], start: int
) -> tuple[list[int], int, int | None]:
    """Indices chosen for every need; or how long to wait, and for which of them."""
    chosen: list[int] = []
    taken: list[tuple[Busy, int, int]] = []
    for number, (candidates, low, high) in enumerate(choices):
        low += start
        high += start
        at, made = 0, candidates.made
        while at < len(made) or candidates.more():
            index, tables = made[at]
            for table in tables:
                if table.last > low:  # where the last is over before, it is free: most are
                    after = bisect_right(table.starts, low)
                    if after and table.ends[after - 1] > low:
                        break
                    if after < len(table.starts) and table.starts[after] < high:
                        break
            else:
                for table in tables:
                    table.take(low, high)
                    taken.append((table, low, high))
                chosen.append(index)
                break
            at += 1
        else:
            wait = wait_for(candidates, low - start, high - start, start)
            for table, lower, upper in reversed(taken):
                table.release(lower, upper)
            return [], wait, number
    return chosen, 0, None


class Units(dict[Key, Cycles]):
    """When each unit of a chip is taken, begun with what it does `beside`."""

    def __init__(self, beside: "Units | None" = None) -> None:
        super().__init__()
        self.beside: dict[Key, Cycles] = beside or {}

    def __missing__(self, key: Key) -> Cycles:
        found = self[key] = Cycles()
        taken = self.beside.get(key)
        if taken:
            found.bits = taken.bits
        return found


class Members(dict[int, Units]):
    """Those of each member, once somebody asks."""

    def __init__(self, make: Callable[[int], Units]) -> None:
        super().__init__()
        self.make = make

    def __missing__(self, member: int) -> Units:
        found = self[member] = self.make(member)
        return found
