"""Place runs over routes one by one, each at the first start at which every cable is free.

A run moves through all cables of its route at fixed offsets, without waiting; gaps that earlier
runs left are used. Plain Python on purpose: each placement depends on all before it.
"""

from bisect import bisect_right, insort
from collections.abc import Sequence

from topology.fabric import Ints

_FAR = 1 << 62
# Only the latest gaps are kept: early ones are rarely large enough, and searching them costs time.
GAPS_KEPT = 8


class Cable:
    """Busy until `end`, but for the gaps: (end, begin) of each, sorted."""

    __slots__ = ("end", "gaps")

    def __init__(self, end: int) -> None:
        self.end = end
        self.gaps: list[tuple[int, int]] = []

    def first_free(self, at: int, need: int) -> int:
        """Return the first start from `at` on, which is before `end`."""
        if self.gaps:
            for gap_end, gap_begin in self.gaps[bisect_right(self.gaps, (at + need - 1, _FAR)) :]:
                begin = max(gap_begin, at)
                if begin + need <= gap_end:
                    return begin
        return self.end

    def take(self, at: int, need: int) -> None:
        if at >= self.end:
            if at > self.end:
                self.gaps.append((at, self.end))
                if len(self.gaps) > GAPS_KEPT:
                    del self.gaps[: GAPS_KEPT // 2]
            self.end = at + need
            return
        index = bisect_right(self.gaps, (at + need - 1, _FAR))
        gap_end, gap_begin = self.gaps.pop(index)
        if gap_begin < at:
            insort(self.gaps, (at, gap_begin))
        if at + need < gap_end:
            insort(self.gaps, (gap_end, at + need))


def first_fit(
    order: Ints, earliest: Ints, busy: Ints, first: Ints, channel: Ints, offset: Ints, free: Ints
) -> Ints:
    """Return the start of every run; `free` (per channel: busy until then) is brought up to date.

    Runs are placed in `order`; run i crosses channel[first[i]:first[i + 1]] at start + offset.
    """
    cables = {c: Cable(e) for c, e in zip(channel.tolist(), free[channel].tolist(), strict=True)}
    route, offsets, bounds = [cables[c] for c in channel.tolist()], offset.tolist(), first.tolist()
    start, needs = earliest.tolist(), busy.tolist()
    for i in order.tolist():
        begin, need = start[i], needs[i]
        hops = list(
            zip(route[bounds[i] : bounds[i + 1]], offsets[bounds[i] : bounds[i + 1]], strict=True)
        )
        begin = first_start([(cable, shift, need) for cable, shift in hops], begin)
        for cable, shift in hops:
            cable.take(begin + shift, need)
        start[i] = begin
    used = list(cables)
    free[used] = [cables[c].end for c in used]
    placed: Ints = earliest.copy()
    placed[:] = start
    return placed


def first_start(hops: Sequence[tuple[Cable, int, int]], begin: int) -> int:
    """Return the first start from `begin` on at which each cable is free, a shift later.

    Cables are given with their shifts, and with the cycles for which they are taken.
    """
    settled = False
    while not settled:
        settled = True
        for cable, shift, need in hops:
            wanted = begin + shift
            if wanted < cable.end:  # else it is free for good, the common case
                found = cable.first_free(wanted, need)
                if found > wanted:
                    begin, settled = found - shift, False
    return begin
