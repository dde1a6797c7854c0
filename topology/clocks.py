"""Clocks that nearly agree: what it costs to start, and how much margin a schedule must hold.

Every chip has its own oscillator (plesiosynchronous). Neighbours exchange and reflect their
hardware aligned counters (HAC, a free-running counter of `hac_period_cycles`), which gives each
link's latency; over a spanning tree each child nudges its HAC to parent + latency. A program
counts in its software aligned counter (SAC). DESKEW stops issue until the next HAC overflow, so
all chips begin on an epoch; program start ripples down the tree by TRANSMIT and RECEIVE; RUNTIME
DESKEW stalls t +- dt cycles now and then to bring the SAC back to the HAC (ISCA'22, section on
synchronous communication).

A vector leaves by the sender's clock and is received by the receiver's. It must be there at the
cycle the schedule says; the margin is what the schedule allows beyond the mean link latency.
"""

import math
from dataclasses import dataclass

import networkx as nx
import numpy as np

from topology.fabric import Fabric, Ints, compiled
from topology.routes import hop_levels

MOST_ROOTS = 1024  # of a spanning tree, that are tried
BLOCK_ROOTS = 64  # that are searched from at a time
PUBLISHED_JITTER_STD_CYCLES = 2.8  # ISCA'22 Table 2: 2.63 to 2.93


@dataclass(frozen=True)
class ClockSpec:
    """Clock facts and design choices; the schedule is made for these."""

    # ISCA'22: the period is below 256 cycles, 252 in one account of it.
    hac_period_cycles: int = 252
    # ISCA'22 Table 2: seven links, 100,000 exchanges each.
    link_mean_cycles: tuple[float, ...] = (216.87, 216.87, 216.41, 216.47, 216.27, 216.48, 217.35)
    jitter_std_cycles: float = PUBLISHED_JITTER_STD_CYCLES
    jitter_early_cycles: float = 7.5  # no exchange was faster than 209 or slower than 228
    jitter_late_cycles: float = 11.0
    # ASSUMPTIONS, unpublished: the oscillators' tolerance; the part of a hop's send and receive
    # overhead that is there as margin; exchanges averaged for one characterisation; the cycles
    # that a child's HAC may be nudged per epoch.
    drift_ppm: float = 50.0
    margin_cycles: int = 24
    exchanges: int = 1024
    nudge_cycles_per_epoch: int = 1


@dataclass(frozen=True)
class ClockPlan:
    """What the compiler inserts, and what it costs, on one graph."""

    spec: ClockSpec
    root: int
    height: int  # of the spanning tree, in hops
    link_latency_cycles: int
    startup_epochs: int  # (floor(L / P) + 1) * h
    startup_cycles: int
    jitter_cycles: int  # of the margin
    alignment_cycles: int  # of the margin
    drift_cycles: int  # of the margin: what is left
    runtime_deskew_interval_cycles: int
    runtime_deskew_cycles: int  # stall t of one Runtime deskew; dt is at most as large

    @property
    def deskew_cycles(self) -> int:
        """Most cycles that the first DESKEW can wait."""
        return self.spec.hac_period_cycles

    @property
    def overhead(self) -> float:
        """Share of all cycles spent in Runtime deskew."""
        return self.runtime_deskew_cycles / self.runtime_deskew_interval_cycles


def clock_plan(graph: nx.Graph, spec: ClockSpec | None = None) -> ClockPlan:
    """Return start-up cost, margins and the Runtime deskew interval that the drift demands.

    Two neighbours may drift apart at twice `drift_ppm`. If jitter and alignment alone fill the
    margin, no drift is allowed for and the interval is one epoch; `simulate` then names a link.
    """
    return fabric_clock_plan(compiled(graph), spec)


def fabric_clock_plan(fabric: Fabric, spec: ClockSpec | None = None) -> ClockPlan:
    """Return the plan of a graph in array form; see clock_plan."""
    return tree_clock_plan(*tree_root(fabric), spec or ClockSpec())


def tree_clock_plan(root: int, height: int, spec: ClockSpec) -> ClockPlan:
    """Return the plan of a graph by its lowest spanning tree."""
    latency = round(sum(spec.link_mean_cycles) / len(spec.link_mean_cycles))
    epochs = startup_epochs(latency, spec.hac_period_cycles, height)
    jitter = math.ceil(spec.jitter_late_cycles)
    alignment = alignment_cycles(spec, height)
    drift = max(0, spec.margin_cycles - jitter - alignment)
    rate = 2 * spec.drift_ppm * 1e-6
    interval = int(drift / rate) if rate > 0 else 1 << 40
    interval = max(spec.hac_period_cycles, interval)
    return ClockPlan(
        spec=spec,
        root=root,
        height=height,
        link_latency_cycles=latency,
        startup_epochs=epochs,
        startup_cycles=epochs * spec.hac_period_cycles,
        jitter_cycles=jitter,
        alignment_cycles=alignment,
        drift_cycles=drift,
        runtime_deskew_interval_cycles=interval,
        runtime_deskew_cycles=math.ceil(interval * spec.drift_ppm * 1e-6) + 1,
    )


def startup_epochs(latency_cycles: int, period_cycles: int, height: int) -> int:
    """Return the epochs in which a start ripples down a tree, counted by walking it.

    A parent transmits at an epoch boundary; the child hears it `latency_cycles` later and starts
    at its next boundary. Closed form: (floor(L / P) + 1) * h.
    """
    cycle = 0
    for _ in range(height):
        heard = cycle + latency_cycles
        cycle = (heard // period_cycles + 1) * period_cycles
    return cycle // period_cycles


def alignment_cycles(spec: ClockSpec, height: int) -> int:
    """Return how far apart the counters of two neighbours may be after alignment.

    Every level of the tree adds the error of a mean over `exchanges` and of moving by whole
    cycles (uniform, half a cycle each way). Two neighbours may be in different branches of the
    tree: five standard deviations over both, plus half a cycle for the SAC.
    """
    per_level = spec.jitter_std_cycles**2 / spec.exchanges + 1 / 12
    return math.ceil(5 * math.sqrt(2 * height * per_level) + 0.5)


def spanning_tree_depths(graph: nx.Graph) -> tuple[int, Ints]:
    """Return the root that makes the tree lowest (lowest id first) and every chip's depth.

    Of large graphs the first 1,024 chips are tried as roots. Dead chips have depth 0.
    """
    return tree_depths(compiled(graph))


def tree_depths(fabric: Fabric) -> tuple[int, Ints]:
    """Return the same of a graph in array form."""
    root, _ = tree_root(fabric)
    depth = np.zeros(fabric.chips, np.int64)
    for level, fresh in hop_levels(fabric, np.array([root])):
        depth[fresh[:, 0] > 0] = level
    return root, depth


def tree_root(fabric: Fabric) -> tuple[int, int]:
    """Return the root of the lowest tree, and its height.

    A chip is as far from the farthest as from any at least: no root is searched from that cannot
    be better for what earlier searches say. The first are from chips all over.
    """
    roots = fabric.alive[:MOST_ROOTS]
    least, height = np.zeros(fabric.chips, np.int64), np.full(fabric.chips, -1)
    some = np.unique(fabric.alive[np.linspace(0, len(fabric.alive) - 1, BLOCK_ROOTS).astype(int)])
    best = fabric.chips, -1
    while len(some):
        for level, fresh in hop_levels(fabric, some):
            reached = np.bitwise_or.reduce(fresh, axis=0).view(np.uint8)
            bits = np.unpackbits(reached, bitorder="little")[: len(some)]
            height[some[bits.astype(bool)]] = level
            near = fresh[:, 0] != 0
            least[near] = np.maximum(least[near], level)
        known = roots[height[roots] >= 0]
        if len(known):
            root = int(known[height[known].argmin()])
            best = int(height[root]), root
        left = roots[height[roots] < 0]
        left = left[(least[left] < best[0]) | ((least[left] == best[0]) & (left < best[1]))]
        some = np.sort(left[np.argsort(least[left], kind="stable")][:BLOCK_ROOTS])
    return best[1], best[0]


def spanning_tree_parents(fabric: Fabric, depth: Ints) -> Ints:
    """Return each chip's parent: the lowest neighbour one level up; the root is its own."""
    parent = np.arange(fabric.chips)
    up = depth[fabric.head] == depth[fabric.tail] - 1
    tails, first = np.unique(fabric.tail[up], return_index=True)
    parent[tails] = fabric.head[up][first]
    return parent
