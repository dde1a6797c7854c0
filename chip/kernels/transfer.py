"""Moving fp32 rows from one chip to another, byte plane by byte plane, over one or more hops.

All chips of the route are booked in one chain: a vector that passes through a chip is a Receive
and a Send in that chip's program, and holds both ports and a stream for that time.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from chip.isa import WIDTHS
from chip.schedule import Buffer, Chain, Flow, Loops, Rows, Schedule, run, span
from chip.schedule.flows import Doing, Further, Queue, Streams, stepped
from chip.schedule.footprint import Elsewhere
from chip.spec import EAST, WEST, ChipSpec


class Hop(NamedTuple):
    """One cable on the way: from a port of one member to a port of the next."""

    member: int
    port: int
    to_member: int
    to_port: int
    latency_cycles: int
    interval_cycles: int


def port_side(port: int) -> int:
    """Edge of the chip at which a port is: even ports east, odd ports west."""
    return WEST if port % 2 else EAST


@dataclass(frozen=True)
class Moved:
    """`count` fp32 rows, from where to where.

    `apart` reads and writes row by row and plane by plane: many transfers may share slices.
    """

    source: Rows
    target: Rows
    count: int
    apart: bool = False


def transfer(plan: Schedule, hops: tuple[Hop, ...], moved: Moved, over_after: int = 0) -> int:
    """Send rows along `hops`; return the cycle of the last Receive.

    The last vector is not sent before cycle `over_after`.
    """
    (way,), there = _written((hops,))
    (source, target), further = from_the_first(plan.spec, (moved.source, moved.target))
    chain, received, sent = _transfer(
        plan.spec, way, Moved(source, target, moved.count, moved.apart)
    )
    return received + plan.place(chain, max(0, over_after - sent), further, there)


def from_the_first(
    spec: ChipSpec, every: Sequence[Rows]
) -> tuple[tuple[Rows, ...], tuple[Further, ...]]:
    """Rows from the first word of the same banks, and where those that were given are.

    Buffers and words in a bank change nothing else of a chain, so that all that differ in these
    share one. Rows of buffers in several banks stay as they are.
    """
    found, where = [], []
    for rows in every:
        bank = _bank_of(spec, rows.buffer)
        if bank is None:
            found.append(rows)
            where.append(Further(rows.buffer))
        else:
            buffer, words = bank
            found.append(Rows(buffer, 0, rows.steps))
            where.append(Further(rows.buffer, rows.first, rows.first + words))
    return tuple(found), tuple(where)


@lru_cache(maxsize=4096)
def _bank_of(spec: ChipSpec, buffer: Buffer) -> tuple[Buffer, int] | None:
    """All of the bank in which a buffer is, if in one, and how many words on from its first."""
    region = buffer.region
    bank = spec.bank(region.address)
    apart = bank != spec.bank(region.address + region.vectors - 1)
    if apart or buffer.in_turn or buffer.any_bank or buffer.virtual:
        return None
    whole = replace(region, address=bank * spec.bank_words, vectors=spec.bank_words)
    return Buffer(f"bank {bank}", whole), region.address - whole.address


class Renumbering:
    """Chips and ports by the order in which they come; ports stay on their side."""

    def __init__(self) -> None:
        self.chips: dict[int, int] = {}
        self.ends: dict[tuple[int, int], tuple[int, int]] = {}  # by chip and port, as before
        self._sides: Counter[tuple[int, int]] = Counter()

    def path(self, path: tuple[Hop, ...]) -> tuple[Hop, ...]:
        """The same path by the new numbers."""
        found, known = [], self.ends.get
        for hop in path:
            here = known(hop[:2]) or self._end(*hop[:2])
            there = known(hop[2:4]) or self._end(*hop[2:4])
            found.append(Hop._make((*here, *there, *hop[4:])))
        return tuple(found)

    def _end(self, chip: int, port: int) -> tuple[int, int]:
        number, side = self.chips.setdefault(chip, len(self.chips)), port_side(port)
        found = number, 2 * self._sides[chip, side] + port % 2
        self._sides[chip, side] += 1
        self.ends[chip, port] = found
        return found


@lru_cache(maxsize=1 << 15)
def _written(
    routes: tuple[tuple[Hop, ...], ...],
) -> tuple[tuple[tuple[Hop, ...], ...], Elsewhere]:
    """Routes between members 0, 1, .. that others may go as well; and who goes these."""
    anew = Renumbering()
    ways = tuple(map(anew.path, routes))
    ports = {new: port for (_, port), new in anew.ends.items()}
    return ways, Elsewhere(tuple(anew.chips), ports)


@lru_cache(maxsize=1 << 14)
def _transfer(spec: ChipSpec, hops: tuple[Hop, ...], moved: Moved) -> tuple[Chain, int, int]:
    """The chain of a transfer, the cycle of its last Receive, and that of its last Send.

    The former is after its start, the latter after its first instruction.
    """
    chain = Chain(spec, "transfer", hops[0].member)
    planes = WIDTHS[moved.source.buffer.region.dtype]
    interval = max(hop.interval_cycles for hop in hops)
    loops = run(moved.count * planes, interval)
    side = port_side(hops[0].port)
    edge = spec.edge_position("c2c", side)
    flow = _read_planes(chain, (side, edge), moved.source, loops, moved.apart)
    flow, sent = _along(chain, hops, flow)
    _write_planes(chain, flow, moved.target, moved.apart)
    return chain, _received(chain, flow), sent - chain.footprint.first


def multicast(
    plan: Schedule,
    routes: list[tuple[Hop, ...]],
    source: Rows,
    targets: Sequence[Rows],
    count: int,
    over_after: int = 0,
    apart: bool = False,
) -> int:
    """Send `count` fp32 rows along several routes, to a target on each last chip.

    The rows are read once, on their way through the VXM, which sends a copy to the other edge.
    Returns, and takes, cycles as `transfer` does; `apart` as in `Moved`.
    """
    ways, there = _written(tuple(routes))
    (first, *ends), further = from_the_first(plan.spec, (source, *targets))
    chain, received, sent = _multicast(plan.spec, ways, (first, tuple(ends), count, apart))
    return received + plan.place(chain, max(0, over_after - sent), further, there)


@lru_cache(maxsize=4096)
def _multicast(
    spec: ChipSpec, routes: tuple[tuple[Hop, ...], ...],
    moved: tuple[Rows, tuple[Rows, ...], int, bool],
) -> tuple[Chain, int, int]:  # fmt: skip
    """As `_transfer`; of all last Receives the latest, of Sends the earliest."""
    source, targets, count, apart = moved
    chain = Chain(spec, "multicast", routes[0][0].member)
    home = chain.member
    interval = max(hop.interval_cycles for route in routes for hop in route)
    loops = run(count * WIDTHS[source.buffer.region.dtype], interval)
    sides = {port_side(route[0].port) for route in routes}
    flows = _both_edges(chain, source, loops, sides, apart)
    ends, leaves = [], []
    for route, target in zip(routes, targets, strict=True):
        chain.member = home
        flow, sent = _along(chain, route, flows[port_side(route[0].port)])
        _write_planes(chain, flow, target, apart)
        ends.append(_received(chain, flow))
        leaves.append(sent)
    return chain, max(ends), min(leaves) - chain.footprint.first


def _along(chain: Chain, hops: tuple[Hop, ...], flow: Flow) -> tuple[Flow, int]:
    """A flow that stands before the first port, over all hops; and its last cycle at that port."""
    sent = 0
    for number, hop in enumerate(hops):
        if number:
            flow = _toward_edge(chain, flow, port_side(hop.port))
        flow = _cross(chain, hop, flow)
        if not number:
            sent = _received(chain, flow) - hop.latency_cycles
    return flow, sent


def _received(chain: Chain, flow: Flow) -> int:
    """Cycle of the last Receive of a flow that has just crossed a cable."""
    return flow.cycle - chain.spec.d_func("c2c.receive") + span(flow.loops) - 1


def _both_edges(
    chain: Chain, source: Rows, loops: Loops, sides: set[int], apart: bool = False
) -> dict[int, Flow]:
    """Rows on their way to the edges of `sides`, as byte planes."""
    spec = chain.spec
    if len(sides) == 1:
        (side,) = sides
        edge = spec.edge_position("c2c", side)
        return {side: _read_planes(chain, (side, edge), source, loops, apart)}
    inner = EAST if source.buffer.region.index < spec.hemisphere_slices else WEST
    far = WEST if inner == EAST else EAST
    flow = _read_planes(chain, (far, spec.vxm_position), source, loops, apart)
    turned = chain.vxm("copy", flow, dtype="u8")
    chain.emit(turned, inner)
    return {far: flow, inner: turned}


def _plane_loops(loops: Loops, planes: int) -> Loops:
    """Those of one plane of the rows that `loops` take plane by plane."""
    return run(loops[1][0] // planes, loops[1][1] * planes)


def _read_planes(
    chain: Chain, way: tuple[int, int], source: Rows, loops: Loops, apart: bool = False
) -> Flow:
    """Rows by byte planes, on their way to a side and past a position: `way`.

    Plane b of row i passes it at (i * planes + b) * interval.
    """
    side, position = way
    spec, region = chain.spec, source.buffer.region
    planes, interval = WIDTHS[region.dtype], loops[1][1]
    part = _plane_loops(loops, planes)
    need, name = chain.stream(side, 1, -spec.along(side, position), loops), chain.name()
    spots = map(spec.slice_position, range(region.index, region.index + planes))
    delay = spec.d_func("mem.read")
    issues = [n * interval - abs(position - spot) - delay for n, spot in enumerate(spots)]
    access = chain.memory_apart if apart else chain.memory
    access("mem.read", issues, source, part, Streams(need, name))
    return Flow(chain.member, "u8", loops, 0, position, name, need, side)


def _toward_edge(chain: Chain, flow: Flow, side: int) -> Flow:
    """A received flow on a stream that runs to `side`; the VXM turns it round if need be."""
    if flow.direction == side:
        return flow
    turned = chain.vxm("copy", flow, dtype="u8")
    chain.emit(turned, side)
    return turned


def _cross(chain: Chain, hop: Hop, flow: Flow) -> Flow:
    """Send a flow at its port and receive it at the other end of the cable."""
    spec = chain.spec
    position = spec.edge_position("c2c", port_side(hop.port))
    leaves = flow.cycle + abs(position - flow.position)
    count, interval = flow.loops[1]
    assert flow.need is not None
    chain.hold(leaves, count * interval, "c2c.s", hop.port)
    sends = {0: (flow.need, 0)}
    chain.add(
        Queue("c2c.s", hop.port),
        [leaves],
        Doing("c2c.send", [0], sends, [flow.name]),
        stepped(flow.loops),
    )
    chain.member = hop.to_member
    arrives, side = leaves + hop.latency_cycles, port_side(hop.to_port)
    chain.hold(arrives, span(flow.loops), "c2c.r", hop.to_port)
    edge, inward = spec.edge_position("c2c", side), WEST if side == EAST else EAST
    cycle, name = arrives + spec.d_func("c2c.receive"), chain.name()
    need = chain.stream(inward, 1, cycle - spec.along(inward, edge), flow.loops)
    receives = {0: (need, 0)}
    chain.add(
        Queue("c2c.r", hop.to_port),
        [arrives],
        Doing("c2c.receive", [0], receives, [name]),
        stepped(flow.loops),
    )
    return Flow(chain.member, "u8", flow.loops, cycle, edge, name, need, inward)


def _write_planes(chain: Chain, flow: Flow, target: Rows, apart: bool = False) -> None:
    spec, region = chain.spec, target.buffer.region
    planes, interval = WIDTHS[region.dtype], flow.loops[1][1]
    part = _plane_loops(flow.loops, planes)
    assert flow.need is not None
    spots = map(spec.slice_position, range(region.index, region.index + planes))
    start, position = flow.cycle, flow.position
    issues = [start + n * interval + abs(position - spot) for n, spot in enumerate(spots)]
    access = chain.memory_apart if apart else chain.memory
    access("mem.write", issues, target, part, Streams(flow.need, flow.name))
