"""The clocks of a plan: how its programs start together, and how often they re-align.

Every launch is a program: the host starts the chip at the root of a spanning tree over the chips
in use, at cycle 0 of the launch. The root's Deskew waits for its counter's overflow (a whole epoch,
counted at its longest), then the start ripples down the tree, (floor(L / P) + 1) epochs a level.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import networkx as nx
import numpy as np

from chip.board import Wiring
from chip.program import Instruction
from chip.schedule import Pace
from chip.spec import ChipSpec
from topology.clocks import (
    ClockPlan,
    ClockSpec,
    clock_plan,
    spanning_tree_depths,
    spanning_tree_parents,
    tree_clock_plan,
    tree_root,
)
from topology.fabric import Fabric, compiled, part_of
from topology.receives import Receives

Ports = Mapping[int, Mapping[int, tuple[int, ...]]]
DESKEW = Instruction("icu.deskew", ())


@dataclass(frozen=True)
class Pacing:
    """What the clocks of the chips in use cost any program on them."""

    plan: ClockPlan
    spec: ChipSpec

    @property
    def epoch_cycles(self) -> int:
        """Cycles from one overflow of a counter to the next."""
        return self.spec.hac_period_cycles

    @property
    def start_cycle(self) -> int:
        """First cycle in which a program may issue: Deskew, the ripple, the release of queues."""
        return self.epoch_cycles + self.plan.startup_cycles + self.spec.barrier_cycles

    @property
    def interval_cycles(self) -> int:
        """Most cycles from a deskew to any instruction after it."""
        return self.plan.runtime_deskew_interval_cycles

    @property
    def stall_cycles(self) -> int:
        """Nominal stall of a Runtime deskew."""
        return self.plan.runtime_deskew_cycles

    @property
    def lead_cycles(self) -> int:
        """Most cycles from the last Deskew of a start sequence to the program's first."""
        return self.epoch_cycles + self.spec.barrier_cycles

    def pace(self, since_cycles: int) -> Pace:
        """When a stage must stall whose chips have been at work for `since_cycles`."""
        return Pace(self.stall_cycles, self.interval_cycles - self.lead_cycles, since_cycles)


@dataclass(frozen=True)
class Clocking(Pacing):
    """The same, with the graph of these chips and where each of them is in the spanning tree."""

    graph: nx.Graph
    depth: Mapping[int, int]
    parent: Mapping[int, int]
    ports: Ports

    def startup(self, chip: int, start_cycle: int) -> tuple[Instruction, ...]:
        """The start sequence of a chip whose program starts at `start_cycle` of the launch.

        A chip with nothing to do for long deskews again in the last epoch before. The NOP before
        that Deskew ends in the middle of an epoch, as its clock may be off by then.
        """
        period, hac = self.epoch_cycles, self.plan.link_latency_cycles
        level = self.plan.startup_epochs // max(1, self.plan.height) * period
        epoch = period + self.depth[chip] * level
        found, now = [DESKEW], epoch
        if self.depth[chip]:
            port = self.ports[chip][self.parent[chip]][0]
            found.insert(0, Instruction("c2c.await", (port, epoch - level + hac)))
        children = [c for c in self.depth if self.parent[c] == chip != c]
        if children:
            mask = sum(1 << self.ports[chip][child][0] for child in children)
            found.append(Instruction("c2c.transmit", (mask,)))
            now += 1
        last = (start_cycle - self.spec.barrier_cycles) // period * period
        if last > epoch:
            wait = last - period // 2 - now
            found += [Instruction("icu.nop", (wait,))] if wait > 0 else []
            found.append(DESKEW)
            now = last
        return (*found, Instruction("icu.nop", (start_cycle - now,)))


def clocking(
    graph: nx.Graph,
    chips: Iterable[int],
    ports: Ports,
    spec: ChipSpec,
    clock: ClockSpec | None = None,
) -> Clocking | None:
    """The clocks of these chips; None for a single chip, which has nobody to agree with."""
    used = sorted(set(chips))
    if len(used) < 2:
        return None
    part = graph.subgraph(used)
    clock = clock or clock_of(spec)
    _, depth = spanning_tree_depths(part)
    parent = spanning_tree_parents(compiled(part), depth)
    of_chip = {c: int(depth[c]) for c in used}, {c: int(parent[c]) for c in used}
    return Clocking(clock_plan(part, clock), spec, part, *of_chip, ports)


def clock_of(spec: ChipSpec) -> ClockSpec:
    """The clocks of a chip where nothing else is said of them."""
    return ClockSpec(hac_period_cycles=spec.hac_period_cycles)


def pacing(fabric: Fabric, chips: Collection[int], spec: ChipSpec) -> Pacing | None:
    """What `clocking` without a clock costs, from the graph in array form."""
    if len(chips) < 2:
        return None
    return paced(tree_root(part_of(fabric, chips)), spec)


def paced(tree: tuple[int, int], spec: ChipSpec) -> Pacing:
    """What chips with a spanning tree of that root and height cost."""
    return Pacing(tree_clock_plan(*tree, clock_of(spec)), spec)


def receives(wiring: Wiring) -> Receives:
    """All vectors of a launch, and how long their two chips count by themselves by then."""
    columns: list[list[np.ndarray]] = [[], [], [], [], []]
    for crossing in wiring.crossings:
        sent, received = np.array(crossing.sent_cycles), np.array(crossing.received_cycles)
        row = (
            np.full(len(sent), crossing.sender),
            np.full(len(sent), crossing.receiver),
            received,
            sent - _last_deskew(wiring.aligned_cycles[crossing.sender], sent),
            received - _last_deskew(wiring.aligned_cycles[crossing.receiver], received),
        )
        for column, values in zip(columns, row, strict=True):
            column.append(values)
    none = np.zeros(0, np.int64)
    return Receives(*(np.concatenate([none, *column]) for column in columns))


def _last_deskew(aligned: tuple[int, ...], cycles: np.ndarray) -> np.ndarray:
    ends = np.array(aligned)
    last: np.ndarray = ends[np.searchsorted(ends, cycles, side="right") - 1]
    return last
