"""Reservation tables: when a resource is taken."""

from bisect import bisect_right


class Busy:
    """Disjoint half-open intervals of integers in which a resource is taken."""

    __slots__ = ("ends", "starts")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []

    def delay(self, low: int, high: int) -> int:
        """Smallest shift >= 0 by which [low, high) becomes free."""
        starts, ends = self.starts, self.ends
        if not ends or ends[-1] <= low:
            return 0
        at = bisect_right(starts, low) - 1
        shifted, length = low, high - low
        if at >= 0 and ends[at] > shifted:
            shifted = ends[at]
        at += 1
        while at < len(starts) and starts[at] < shifted + length:
            shifted = ends[at]
            at += 1
        return shifted - low

    def take(self, low: int, high: int) -> None:
        """Take [low, high), which is free."""
        if not self.ends or self.ends[-1] < low:  # the usual case
            self.starts.append(low)
            self.ends.append(high)
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

    def release(self, low: int, high: int) -> None:
        """Undo a `take` of the same interval."""
        at = bisect_right(self.starts, low) - 1
        start, end = self.starts[at], self.ends[at]
        pieces = [(s, e) for s, e in ((start, low), (high, end)) if s < e]
        self.starts[at : at + 1] = [s for s, _ in pieces]
        self.ends[at : at + 1] = [e for _, e in pieces]


def fixed_fit(fixed: list[tuple[Busy, list[tuple[int, int]]]], start: int) -> int:
    """First cycle from `start` on from which all these spans are free."""
    moved = True
    while moved:
        moved = False
        for table, spans in fixed:
            for low, high in spans:
                wait = table.delay(low + start, high + start)
                if wait:
                    start, moved = start + wait, True
    return start
