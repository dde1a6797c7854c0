"""Reservation tables: when a resource is taken."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence

NEVER = -(1 << 62)  # before all cycles


class Busy:
    """Disjoint half-open intervals of integers in which a resource is taken."""

    __slots__ = ("ends", "last", "starts")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.last = NEVER  # the end of the last of them

    def delay(self, low: int, high: int) -> int:
        """Smallest shift >= 0 by which [low, high) becomes free."""
        if self.last <= low:
            return 0
        starts, ends = self.starts, self.ends
        at = bisect_right(starts, low) - 1
        shifted, length = low, high - low
        if at >= 0 and ends[at] > shifted:
            shifted = ends[at]
        at += 1
        while at < len(starts) and starts[at] < shifted + length:
            shifted = ends[at]
            at += 1
        return shifted - low

    def within(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        """The intervals that meet [low, high), in order."""
        at = max(0, bisect_right(self.starts, low) - 1)
        while at < len(self.starts) and self.starts[at] < high:
            if self.ends[at] > low:
                yield self.starts[at], self.ends[at]
            at += 1

    def take(self, low: int, high: int) -> None:
        """Take [low, high), which is free."""
        if self.last < low:  # the usual case
            self.starts.append(low)
            self.ends.append(high)
            self.last = high
            return
        at = bisect_right(self.starts, low)
        joins_left = at > 0 and self.ends[at - 1] == low
        joins_right = at < len(self.starts) and self.starts[at] == high
        if joins_left and joins_right:
            self.ends[at - 1] = self.ends[at]
            del self.starts[at], self.ends[at]
        elif joins_left:
            self.ends[at - 1] = high
        elif joins_right:
            self.starts[at] = low
        else:
            self.starts.insert(at, low)
            self.ends.insert(at, high)
        self.last = self.ends[-1]

    def release(self, low: int, high: int) -> None:
        """Undo a `take` of the same interval."""
        at = bisect_right(self.starts, low) - 1
        start, end = self.starts[at], self.ends[at]
        pieces = [(s, e) for s, e in ((start, low), (high, end)) if s < e]
        self.starts[at : at + 1] = [s for s, _ in pieces]
        self.ends[at : at + 1] = [e for _, e in pieces]
        self.last = self.ends[-1] if self.ends else NEVER


class Cycles:
    """Cycles in which a unit is taken: bit n of `bits` stands for cycle n.

    Patterns of cycles, be they many, are looked up and taken at once.
    """

    __slots__ = ("bits",)

    def __init__(self) -> None:
        self.bits = 0

    def delay(self, low: int, pattern: int) -> int:
        """How much later a pattern must begin than at `low`, at least; 0 if it is free there."""
        meets = (self.bits >> low) & pattern
        if not meets:
            return 0
        last = meets.bit_length() - 1
        first = (~pattern & ((1 << last) - 1)).bit_length()  # of the run of wanted cycles it is in
        taken = self.bits >> (low + last)
        return last - first + (~taken & (taken + 1)).bit_length() - 1


Fixed = tuple[Cycles, int, int]  # a table, the first cycle of a pattern, the pattern


def joined(taken: Sequence[tuple[int, int, int | None]]) -> tuple[int, int, bool]:
    """Cycles (first, length, pattern or None for all) as one pattern, by halves; its first cycle.

    And whether none of them is there twice.
    """
    if len(taken) == 1:
        ((low, length, pattern),) = taken
        return low, (1 << length) - 1 if pattern is None else pattern, True
    half = len(taken) // 2
    (low, mine, once), (other, theirs, also) = joined(taken[:half]), joined(taken[half:])
    if other < low:
        low, mine, other, theirs = other, theirs, low, mine
    theirs <<= other - low
    return low, mine | theirs, once and also and not mine & theirs


def fixed_fit(fixed: Sequence[Fixed], start: int) -> int:
    """First cycle from `start` on from which all these patterns are free."""
    moved = True
    while moved:
        moved = False
        for table, low, pattern in fixed:
            while (table.bits >> (low + start)) & pattern:
                start, moved = start + table.delay(low + start, pattern), True
    return start
