"""Where a program can be cut: between instructions, where nothing is under way.

No instruction issues across a cut, no result is still to be driven, no column waits in a weight
buffer, and nothing on a stream is read after it that was driven before it:

    driven   k k k . . .|. . . k'      diagonals of one channel, in order of issue
    read     . . k k k .|. . . . k'    a cut may lie where all k before are less than all k after
"""

import numpy as np

from chip.isa import ALU_BASE, STREAM_CODES, WIDTHS
from chip.linker.streams import PRODUCT_BASE, drive_of
from chip.linker.timeline import Kinds, Timeline
from chip.linker.weights import planes_of
from chip.program import Flags, Ints
from chip.spec import ChipSpec

FEWEST = 256  # issues below which cutting is not worth its bookkeeping
NEVER = np.iinfo(np.int64).max
ALU, PRODUCTS = -2, -3  # channels of a kind that depend on its unit; -1 is none


def cuts(issues: Timeline, spec: ChipSpec) -> list[int]:
    """First issues of the stretches of a program."""
    over = _with_loads_held(issues, spec)
    quiet = np.maximum.accumulate(over)[:-1] < issues.cycle[1:]
    possible = np.flatnonzero(quiet & ~_crossed(issues, spec)) + 1
    chosen, at = [0], 0
    while True:
        at = int(np.searchsorted(possible, chosen[-1] + FEWEST))
        if at == len(possible):
            return chosen[:1] + _prelude(issues, possible, [*chosen, len(issues)][1]) + chosen[1:]
        chosen.append(int(possible[at]))


def _prelude(issues: Timeline, possible: Ints, stop: int) -> list[int]:
    """Where the prelude ends that can be cut off a first stretch, which ends at `stop`; or none.

    The stages of a pipeline pass on packets of others and wait for their own until cycles that
    differ. What comes then is alike, so without its prelude it is linked once for all of them.
    """
    others = np.flatnonzero(~issues.have("receive", "send", "read", "write")[:FEWEST])
    most = min([FEWEST - 1, *others[:1].tolist()])
    return possible[possible <= most][-1:].tolist() if stop >= FEWEST else []


def is_after_prelude(start: int) -> bool:
    """Whether the stretch before the one that starts there is a prelude: no other is as short."""
    return 0 < start < FEWEST


def _with_loads_held(issues: Timeline, spec: ChipSpec) -> Ints:
    """Cycles by which all has been driven.

    A load is under way until the next install takes it; one never taken, for ever.
    """
    over = issues.driven.copy()
    loads, installs = (np.flatnonzero(issues.have(role)) for role in ("loads", "installs"))
    planes = {
        kind: planes_of(issues[first], spec)
        for kind, first in zip(*np.unique(issues.kind, return_index=True), strict=True)
        if issues.kinds.ops[kind].role in ("loads", "installs")
    }
    ends: dict[tuple[int, int], list[int]] = {}
    which: dict[tuple[int, int], list[int]] = {}
    for found, numbers in ((ends, installs), (which, loads)):
        pairs = zip(numbers.tolist(), issues.unit[numbers].tolist(), strict=True)
        for number, unit in pairs:
            for plane in planes[issues.kind[number]]:
                found.setdefault((unit, plane), []).append(number)
    for place, mine in which.items():
        takers = np.array(ends.get(place, []), np.int64)
        taken = np.append(issues.last[takers], NEVER)[np.searchsorted(takers, mine)]
        over[mine] = np.maximum(over[mine], taken)
    return over


def _crossed(issues: Timeline, spec: ChipSpec) -> Flags:
    """Whether something driven before a cut may be read after it, for cuts 1, 2, ..."""
    ends = _Ends(issues, spec)
    driven, read = ends.driven(), ends.read()
    change = np.zeros(len(issues) + 1, np.int64)
    for channel in np.unique(read[1]).tolist():
        (drivers, _, last), (readers, _, first) = (
            side[:, slice(*np.searchsorted(side[1], (channel, channel + 1)))]
            for side in (driven, read)
        )
        earliest = np.searchsorted(np.maximum.accumulate(last), first)
        inside = np.flatnonzero(earliest < len(drivers))
        begin, end = drivers[earliest[inside]], readers[inside]
        apart = begin < end
        np.add.at(change, begin[apart], 1)
        np.add.at(change, end[apart], -1)
    return np.cumsum(change)[: len(issues) - 1] > 0


class _Ends:
    """What issues drive and read: arrays [issue, channel, diagonal], by channel and issue."""

    def __init__(self, issues: Timeline, spec: ChipSpec) -> None:
        self.issues, self.spec = issues, spec
        ways = [[spec.along(way, at) for way in (0, 1)] for *_, at in issues.places]
        self._along = np.array(ways, np.int64).reshape(-1, 2)

    def driven(self) -> Ints:
        """The last diagonal of each channel that an issue drives."""
        first, width = _drives(self.issues.kinds)
        forwards = np.where(self.issues.kinds.have("pointwise"), ALU, -1)
        parts = [(first, width), (forwards, np.ones_like(width))]
        return self._spread(parts, self.issues.driven)

    def read(self) -> Ints:
        """The first diagonal of each channel that an issue reads."""
        return self._spread(_reads(self.issues.kinds, self.spec), self.issues.cycle)

    def _spread(self, parts: list[tuple[Ints, Ints]], cycle: Ints) -> Ints:
        """Channels of each kind, and how many, of the issues that have any."""
        issues, found = self.issues, []
        for channels, widths in parts:
            at = np.flatnonzero(channels[issues.kind] != -1)
            channel, unit = channels[issues.kind[at]], issues.unit[at]
            way = np.clip(channel // self.spec.streams, 0, 1)
            moves = (channel >= 0) & (channel < STREAM_CODES)
            along = np.where(moves, self._along[issues.queue[at], way], 0)
            channel = np.where(channel == ALU, ALU_BASE + unit, channel)
            channel = np.where(channel == PRODUCTS, PRODUCT_BASE + unit, channel)
            width = widths[issues.kind[at]]
            column = np.stack([at, channel, cycle[at] - along])
            spread = np.repeat(column, width, axis=1)
            starts = np.repeat(np.cumsum(width) - width, width)
            spread[1] += np.arange(spread.shape[1]) - starts
            found.append(spread)
        together = np.concatenate(found, axis=1)
        return together[:, np.lexsort((together[0], together[1]))]


def _drives(kinds: Kinds) -> tuple[Ints, Ints]:
    """First channel that each kind drives on streams or as products, and how many."""
    first, width = np.full(len(kinds.ops), -1), np.ones(len(kinds.ops), np.int64)
    for number, (op, sample) in enumerate(zip(kinds.ops, kinds.samples, strict=True)):
        driven = drive_of(op, sample)
        if driven is not None and (driven[0] < STREAM_CODES):
            first[number], width[number] = driven
        elif op.role == "products":
            first[number] = PRODUCTS
    return first, width


def _reads(kinds: Kinds, spec: ChipSpec) -> list[tuple[Ints, Ints]]:
    """The same of what it reads: by operand, then of products."""
    most = max((len(op.sources) for op in kinds.ops), default=0)
    first = np.full((most, len(kinds.ops)), -1)
    width = np.ones_like(first)
    for number, (op, sample) in enumerate(zip(kinds.ops, kinds.samples, strict=True)):
        for place, operand in enumerate(op.sources):
            code = sample.args[operand]
            if code < ALU_BASE + spec.vxm_alus:
                first[place, number] = code
            if code < STREAM_CODES:
                width[place, number] = WIDTHS[op.element(operand, sample.args)]
    sums = np.where(kinds.have("sums"), PRODUCTS, -1)
    return [*zip(first, width, strict=True), (sums, np.ones_like(sums))]
