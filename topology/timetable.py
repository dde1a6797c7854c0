"""The timetable: which vector leaves on which cable at which cycle, decided before anything runs.

A reservation is a run: vector k of it departs at start + ceil(k * p / q) cycles, with p/q at least
the link's own cycles per vector. Runs are kept as an arithmetic progression each, never one entry
per vector. On one cable any two vectors must be at least the link's cycles per vector apart.
"""

import json
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise

import networkx as nx
import numpy as np

from topology.errors import LinkConflict, NoRoute
from topology.fabric import Ints, compiled


@dataclass(frozen=True)
class Run:
    """`vectors` departures on one directed cable, owned by whoever booked it."""

    start_cycle: int
    vectors: int
    cycles_per_vector: Fraction
    owner: str

    @property
    def busy_cycles(self) -> int:
        """Cycles from the first departure until the cable is free again."""
        pace = self.cycles_per_vector
        return -(-self.vectors * pace.numerator // pace.denominator)

    @property
    def end_cycle(self) -> int:
        """First cycle at which another run may start on the cable."""
        return self.start_cycle + self.busy_cycles

    def departures(self) -> Ints:
        """Return the cycle of every vector of the run."""
        pace = self.cycles_per_vector
        return self.start_cycle - (-np.arange(self.vectors) * pace.numerator // pace.denominator)


class Timetable:
    """Reservations on every directed cable of a graph, each list sorted by start."""

    def __init__(self, graph: nx.Graph) -> None:
        self.graph = graph
        self.fabric = compiled(graph)
        self._runs: dict[int, list[Run]] = {}
        self._longest: dict[int, int] = {}  # busy cycles of the longest run of a channel

    def book(
        self,
        src: int,
        dst: int,
        start_cycle: int,
        vectors: int,
        owner: str,
        cable: int = 0,
        cycles_per_vector: Fraction | None = None,
    ) -> Run:
        """Reserve a run on cable `cable` of src -> dst and return it.

        `cycles_per_vector` defaults to the link's own rate; slower is allowed (a run that another
        link of its path holds back). Raises LinkConflict naming both owners, NoRoute.
        """
        channel, pace = self._channel(src, dst, cable), self._pace(src, dst)
        run = Run(start_cycle, vectors, max(pace, cycles_per_vector or pace), owner)
        clash = self.conflict(src, dst, run, cable)
        if clash is not None:
            raise clash
        runs = self._runs.setdefault(channel, [])
        runs.insert(bisect_left(runs, run.start_cycle, key=_start), run)
        self._longest[channel] = max(self._longest.get(channel, 0), run.busy_cycles)
        return run

    def conflict(self, src: int, dst: int, run: Run, cable: int = 0) -> LinkConflict | None:
        """Return the error that booking `run` would raise, or None if the cable is free for it."""
        runs = self._runs.get(self._channel(src, dst, cable), [])
        pace = self._pace(src, dst)
        # Only runs that start at most the longest run earlier can still be busy.
        longest = self._longest.get(self._channel(src, dst, cable), 0)
        first = bisect_left(runs, run.start_cycle - longest, key=_start)
        for other in runs[first : bisect_left(runs, run.end_cycle, key=_start)]:
            cycle = _clash_cycle(run, other, pace)
            if cycle is not None:
                return LinkConflict(src, dst, cable, cycle, run.owner, other.owner)
        return None

    def first_free(
        self,
        src: int,
        dst: int,
        earliest_cycle: int,
        vectors: int,
        cable: int = 0,
        cycles_per_vector: Fraction | None = None,
    ) -> int:
        """Return the first start at or after `earliest_cycle` at which the cable is free
        for a run of `vectors`, gaps between existing runs included."""
        pace = self._pace(src, dst)
        start = earliest_cycle
        wanted = Run(0, vectors, max(pace, cycles_per_vector or pace), "").busy_cycles
        channel = self._channel(src, dst, cable)
        runs = self._runs.get(channel, [])
        first = bisect_left(runs, start - self._longest.get(channel, 0), key=_start)
        for run in islice(runs, first, None):
            if start + wanted <= run.start_cycle:
                break
            start = max(start, run.end_cycle)
        return start

    def first_free_chain(
        self, chips: tuple[int, ...], earliest_cycle: int, vectors: int, cable: int = 0
    ) -> int:
        """Return the first start at which a cut-through run over the route `chips` fits:
        it leaves each chip the moment it arrives there, so all hops move together."""
        hops = list(pairwise(chips))
        pace = max((self._pace(u, v) for u, v in hops), default=Fraction(1))
        start, settled = earliest_cycle, False
        while not settled:
            offset, settled = 0, True
            for u, v in hops:
                at = self.first_free(u, v, start + offset, vectors, cable % self.cables(u, v), pace)
                if at > start + offset:
                    start, settled = at - offset, False
                offset += self.latency_cycles(u, v)
        return start

    def book_chain(
        self,
        chips: tuple[int, ...],
        start_cycle: int,
        vectors: int,
        owner: str,
        cable: int = 0,
    ) -> int:
        """Reserve a cut-through run on every hop; return the arrival of its first vector."""
        hops = list(pairwise(chips))
        pace = max((self._pace(u, v) for u, v in hops), default=Fraction(1))
        for u, v in hops:
            self.book(u, v, start_cycle, vectors, owner, cable % self.cables(u, v), pace)
            start_cycle += self.latency_cycles(u, v)
        return start_cycle

    def cables(self, src: int, dst: int) -> int:
        """Return the number of parallel cables of src -> dst."""
        return int(self.fabric.cables[self.fabric.edge(src, dst)])

    def latency_cycles(self, src: int, dst: int) -> int:
        """Return the latency of src -> dst."""
        return int(self.fabric.latency_cycles[self.fabric.edge(src, dst)])

    def runs(self) -> Iterator[tuple[int, int, int, Run]]:
        """Yield (src, dst, cable, run) in order of cable and start."""
        for channel in sorted(self._runs):
            edge = int(self.fabric.channel_edge[channel])
            cable = channel - int(self.fabric.first_channel[edge])
            ends = int(self.fabric.tail[edge]), int(self.fabric.head[edge])
            for run in self._runs[channel]:
                yield *ends, cable, run

    @property
    def end_cycle(self) -> int:
        """First cycle at which every cable is free for good."""
        return max((run.end_cycle for *_, run in self.runs()), default=0)

    def utilisation(self) -> dict[tuple[int, int, int], float]:
        """Return, per used (src, dst, cable), the share of `end_cycle` in which it transfers."""
        total = max(self.end_cycle, 1)
        busy: dict[tuple[int, int, int], Fraction] = {}
        for src, dst, cable, run in self.runs():
            key = src, dst, cable
            busy[key] = busy.get(key, Fraction(0)) + run.vectors * self._pace(src, dst)
        return {key: float(cycles / total) for key, cycles in busy.items()}

    def export(self) -> str:
        """Return all runs as JSON: src, dst, cable, start_cycle, vectors, p, q, owner."""
        rows = [
            [
                *(src, dst, cable, run.start_cycle, run.vectors),
                *(*run.cycles_per_vector.as_integer_ratio(), run.owner),
            ]
            for src, dst, cable, run in self.runs()
        ]
        columns = ["src", "dst", "cable", "start_cycle", "vectors", "p", "q", "owner"]
        return json.dumps({"columns": columns, "rows": rows})

    def _channel(self, src: int, dst: int, cable: int) -> int:
        edge = self.fabric.edge(src, dst)
        if not 0 <= cable < self.fabric.cables[edge]:
            raise NoRoute(f"{self.fabric.name} cable {cable}", src, dst)
        return int(self.fabric.first_channel[edge]) + cable

    def _pace(self, src: int, dst: int) -> Fraction:
        return self.fabric.paces[int(self.fabric.pace[self.fabric.edge(src, dst)])]


def _start(run: Run) -> int:
    return run.start_cycle


def _clash_cycle(run: Run, other: Run, pace: Fraction) -> int | None:
    """Return the first departure of `run` that is too close to one of `other`, or None."""
    if other.end_cycle <= run.start_cycle or run.end_cycle <= other.start_cycle:
        return None
    mine, theirs = run.departures(), other.departures()
    # A link of p/q cycles per vector serialises p/q cycles; departures are whole cycles, so two
    # vectors may be floor(p/q) apart only inside one run; between runs the gap is rounded up.
    gap = -(-pace.numerator // pace.denominator)
    at = np.searchsorted(theirs, mine)
    after = theirs[np.minimum(at, len(theirs) - 1)] - mine
    before = mine - theirs[np.maximum(at - 1, 0)]
    close = ((at < len(theirs)) & (after < gap)) | ((at > 0) & (before < gap))
    return int(mine[close.argmax()]) if close.any() else None
