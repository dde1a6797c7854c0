"""Trials: what kernels ask for, when they use it, and which buffers they use at the same time.

A trial places the kernels' chains with slices of their own for each buffer. A slice serves a read
and a write a cycle, a bank one of them: so it follows which buffers must lie apart (those that meet
in one chain) and which should (those that meet otherwise), and for how many cycles.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
import numpy.typing as npt

from chip.kernels.conflicts import MUST, RATHER, SHOULD, Conflicts
from chip.kernels.memory import INNER_SLICES
from chip.kernels.work import Request
from chip.program import Region
from chip.schedule import Buffer, Chain, Loops, Rows, Schedule
from chip.schedule.busy import fixed_fit
from chip.schedule.flows import Flow, Further, Hold, Piece, Streams
from chip.schedule.footprint import Elsewhere
from chip.schedule.touched import Touched
from chip.spec import ChipSpec

Cycles = npt.NDArray[np.int64]
LONG_CYCLES = 200  # of accesses that may find no gap at once, and then come as much later


@dataclass
class TrialMemory:
    """Answers requests with buffers that have slices to themselves, and remembers them."""

    spec: ChipSpec
    requests: dict[str, Request] = field(default_factory=dict)
    lives: dict[str, list[int]] = field(default_factory=dict)  # numbers of the ops that asked
    ops: tuple[int, ...] = (0,)  # at work, or side by side with who is

    def offers(self, name: str) -> bool:
        """All is tried."""
        return True

    def take(self, request: Request) -> Buffer:
        """A virtual buffer."""
        request = self.requests.get(request.name, request).joined(request)
        self.requests[request.name] = request
        self.lives.setdefault(request.name, []).extend(self.ops)
        outside = INNER_SLICES if request.layout == "columns" else 0
        index = request.side * self.spec.hemisphere_slices + outside
        region = Region(index, 0, request.vectors, request.dtype, request.layout)
        in_turn = self.spec.bank_words if request.in_turn else 0
        is_columns = request.layout == "columns"
        return Buffer(request.name, region, is_columns, virtual=True, in_turn=in_turn)

    def of_slot(self, buffer: Buffer, slot: int) -> Buffer:
        """The same: what it meets is what that of the first slot meets."""
        return buffer


class _Silent(Chain):
    """A chain that goes through all motions and keeps nothing of them."""

    def memory(
        self, op: str, issues: list[int], rows: Rows, loops: Loops, streams: Streams
    ) -> None:
        pass

    def take(self, hold: Hold, low: int, length: int, pattern: int | None = None) -> None:
        pass

    def scatter(
        self, target: Buffer, issues: list[int], loops: Loops, words: Flow, data: Flow
    ) -> None:
        pass

    def twin(self, value: Flow) -> Flow:
        return replace(value, need=None)

    def follow(self, flow: Flow, rows: Rows, cycle: int) -> None:
        pass

    def _need(self, kind: str, side: int, width: int, low: int, length: int) -> int:
        return 0

    def add(self, *_: object, **__: object) -> Piece:
        return Piece(0, "", 0, None, (), "vxm.copy", [], {}, [], ((1, 1, 0), (1, 1, 0)))


class Unplaced(Schedule):
    """Takes chains and forgets them: for those who only want to know what is asked for."""

    def chain(self, label: str, member: int = 0, maps: tuple[tuple[int, ...], ...] = ()) -> Chain:
        """A chain of which nothing is kept."""
        return _Silent(self.spec, label, member, maps)

    def place(
        self, chain: Chain, not_before: int = 0, further: Sequence[Further] = (),
        there: Elsewhere | None = None,
    ) -> int:  # fmt: skip
        """Nothing."""
        return 0


@dataclass
class Trial(Schedule):
    """Notes when its chains touch which buffers: each as soon as its rows are ready and the fixed
    units that it needs are free, as if there were always a stream and an ALU left.

    A `close` one waits for streams and ALUs, too, and has a chain touch a buffer from its first
    access to the last: what comes in between may not leave it the gaps. So it is with a chain that
    gathers in each.
    """

    close: bool = False
    touched: list[tuple[str, bool, int, int, int]] = field(default_factory=list)
    # Whether each chain does, cycle by cycle; if it feeds the MXM so, for how long.
    gathering: list[tuple[bool, int]] = field(default_factory=list)
    begin_cycle: int = 0  # of chains to come

    def wait(self) -> None:
        """Let what comes begin when all that was touched has been."""
        self.begin_cycle = max((last for *_, last, _ in self.touched), default=0)

    def place(
        self, chain: Chain, not_before: int = 0, further: Sequence[Further] = (),
        there: Elsewhere | None = None,
    ) -> int:  # fmt: skip
        """Note the chain at the first cycle in which it could be; nothing is booked but units."""
        if self.close:
            return super().place(chain, not_before, further, there)
        further = further or chain.where
        fixed, rows = self._tables(chain), self._rows_of(chain, further)
        begin = max(not_before, self.begin_cycle)
        start = fixed_fit(fixed, self._earliest(chain, rows, begin, further))
        for table, low, pattern in fixed:
            table.bits |= pattern << (low + start)
        self._touch(chain, rows, start, further)
        return start

    def _touch(
        self, chain: Chain, touched: Sequence[Touched], start: int, further: Sequence[Further]
    ) -> None:
        super()._touch(chain, touched, start, further)
        spans: dict[tuple[str, bool, int], tuple[int, int]] = {}
        gathers = any(piece.op == "mem.gather" for piece in chain.pieces)
        for number, (access, more) in enumerate(zip(chain.accesses, further, strict=True)):
            which = 0 if self.close or gathers else number
            key = more.buffer.name, access.writes, which
            first, last = access.early, access.end
            low, high = spans.get(key, (first, last))
            spans[key] = min(low, first), max(high, last)
        for (name, writes, _), (first, last) in spans.items():
            self.touched.append((name, writes, first + start, last + start, len(self.gathering)))
        feeds = gathers and any(piece.family == "mxm.lw" for piece in chain.pieces)
        longest = max(last - first for first, last in spans.values()) if feeds else 0
        self.gathering.append((gathers, longest))


def conflicts(trials: Sequence[Trial]) -> Conflicts:
    """What the accesses of these trials say; the first of them counts most.

    Who meets a chain that gathers, cycle by cycle, is worth what one must move out of its way. What
    two of these that feed both arrays read all the while SHOULD lie apart, or one waits for the
    other; and RATHER so what the other reads or writes now and then.
    """
    found: tuple[dict[tuple[str, str], int], ...] = (defaultdict(int), defaultdict(int))
    for weight, trial in zip((8, 1, 1), trials, strict=False):
        names = sorted({name for name, *_ in trial.touched})
        numbers = {name: number for number, name in enumerate(names)}
        rows = [(numbers[name], *entry) for name, *entry in trial.touched]
        number, writes, first, last, chain = np.array(rows, np.int64).T
        gathers, feeding = np.array(trial.gathering, np.int64).T[:, chain]
        long = (2 * (last - first) >= feeding) & (feeding > 0)  # all the while, or most of it
        begins, ends = _spans_of(chain, first, last)
        last = last + np.where(last - first >= LONG_CYCLES, last - first, 0)
        one, other = (np.concatenate(pair) for pair in zip(
            _overlaps(first, last), _overlaps(chain, chain), strict=True))  # fmt: skip
        inside = np.minimum(last[one], last[other]) - np.maximum(first[one], first[other]) + 1
        moved = np.minimum(last[one] - first[other], last[other] - first[one]) + 1
        beside = np.minimum(ends[one], ends[other]) - np.maximum(begins[one], begins[other])
        feed = (feeding[one] > 0) & (feeding[other] > 0) & (chain[one] != chain[other])
        both = np.where(feed & long[one] & long[other], beside, 0)
        either = np.where(feed & (long[one] | long[other]), beside, 0)
        inside = np.where(gathers[one] | gathers[other], moved, inside)
        cycles = np.where(chain[one] == chain[other], MUST, inside * weight)
        low = np.minimum(number[one], number[other])
        pairs = low * len(names) + np.maximum(number[one], number[other])
        same = writes[one] == writes[other]
        apart = number[one] != number[other]
        for kind, met in zip((same, ~same), found, strict=True):
            chosen = kind & apart
            keys, places = np.unique(pairs[chosen], return_inverse=True)
            total, read, waits = (np.zeros(len(keys), np.int64) for _ in range(3))
            for sums, each in ((total, cycles), (read, both), (waits, either)):
                np.add.at(sums, places, each[chosen])
            least = max(feeding.max(), 1) / 2
            total += np.where(read >= least, SHOULD, np.where(waits >= least, RATHER, 0))
            for key, sum_cycles in zip(keys.tolist(), total.tolist(), strict=True):
                pair = names[key // len(names)], names[key % len(names)]
                met[pair] = min(MUST, met[pair] + sum_cycles)
    return Conflicts(dict(found[0]), dict(found[1]))


def _spans_of(chain: Cycles, first: Cycles, last: Cycles) -> tuple[Cycles, Cycles]:
    """From when to when each access's chain touches what it does."""
    begins, ends = np.full(chain.max() + 1, first.max()), np.zeros(chain.max() + 1, np.int64)
    np.minimum.at(begins, chain, first)
    np.maximum.at(ends, chain, last)
    return begins[chain], ends[chain]


def _overlaps(first: Cycles, last: Cycles) -> tuple[Cycles, Cycles]:
    """Every two of the spans from `first` to `last`, both of which are in them, that overlap."""
    order = np.argsort(first, kind="stable")
    begins = np.arange(len(order)) + 1
    counts = np.searchsorted(first[order], last[order], side="right") - begins
    one = np.repeat(order, counts)
    before = np.repeat(np.cumsum(counts) - counts, counts)
    other = order[np.repeat(begins, counts) + np.arange(len(one)) - before]
    return one, other


@dataclass(frozen=True)
class Demands:
    """What the kernels of some sections ask for, when they use it, and what meets what."""

    requests: tuple[Request, ...]
    lives: Mapping[str, tuple[int, int]]
    conflicts: Conflicts
    ops: int

    def __add__(self, other: "Demands") -> "Demands":
        """Both, one after the other."""
        requests = {request.name: request for request in self.requests}
        for request in other.requests:
            requests[request.name] = requests.get(request.name, request).joined(request)
        lives = dict(self.lives)
        for name, (first, last) in other.lives.items():  # ops go on counting
            first, last = first + self.ops, last + self.ops
            lives[name] = (min(first, lives.get(name, (first,))[0]), last)
        merged = [dict(self.conflicts.slices), dict(self.conflicts.banks)]
        for mine, more in zip(merged, (other.conflicts.slices, other.conflicts.banks), strict=True):
            for pair, cycles in more.items():
                mine[pair] = max(mine.get(pair, 0), cycles)
        met = Conflicts(merged[0], merged[1])
        return Demands(tuple(requests.values()), lives, met, self.ops + other.ops)

    def without_spare(self) -> "Demands":
        """The same but for what kernels can do without."""
        spare = {request.name for request in self.requests if request.spare}
        requests = tuple(request for request in self.requests if request.name not in spare)
        slices, banks = (
            {pair: cycles for pair, cycles in met.items() if spare.isdisjoint(pair)}
            for met in (self.conflicts.slices, self.conflicts.banks)
        )
        lives = {name: ends for name, ends in self.lives.items() if name not in spare}
        return Demands(requests, lives, Conflicts(slices, banks), self.ops)

    def renamed(self, names: Mapping[str, tuple[str, ...]]) -> "Demands":
        """The same with some buffers several times, by other names, each with its like only."""

        def of(name: str) -> tuple[str, ...]:
            return names.get(name, (name,))

        def met(cycles: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
            found: dict[tuple[str, str], int] = {}
            for (one, other), count in cycles.items():
                alike = one in names and other in names
                ways = zip if alike else product
                pairs: Iterable[tuple[str, str]] = ways(of(one), of(other))
                found |= {(min(pair), max(pair)): count for pair in pairs}
            return found

        requests = [replace(r, name=name) for r in self.requests for name in of(r.name)]
        lives = {name: life for old, life in self.lives.items() for name in of(old)}
        conflicts = Conflicts(met(self.conflicts.slices), met(self.conflicts.banks))
        return Demands(tuple(requests), lives, conflicts, self.ops)


NO_DEMANDS = Demands((), {}, Conflicts({}, {}), 0)
