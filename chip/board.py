"""Several chips wired by cables: who receives which packet, and in which order segments run.

Pure data: the machines of `cluster` and a bare script of chips run the same `Wiring`.
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from chip.errors import HazardError, NothingArrives, OrderError, PortBusy

if TYPE_CHECKING:
    from chip.linker import Linked, Startup, Transfer


@dataclass(frozen=True)
class Cable:
    """A full-duplex cable between a port of one chip and a port of another."""

    chip: int
    port: int
    other_chip: int
    other_port: int
    latency_cycles: int
    cycles_per_vector: Fraction
    hac_latency_cycles: int = 217  # [ISCA22, Table 2] from counter to counter, what notices take


Ends = dict[tuple[int, int], tuple[int, int, Cable]]  # (chip, port) -> chip, port, cable


@dataclass(frozen=True)
class Call:
    """One segment of one chip: what feeds its receives, and the issues of what it sends."""

    chip: int
    segment: int
    packets: tuple[tuple[int, int, int], ...]  # (receive issue, sending chip, send issue)
    sends: tuple[int, ...]


@dataclass(frozen=True)
class Crossing:
    """A run of vectors from chip to chip, by the launch cycles of its Sends and its Receives."""

    sender: int
    receiver: int
    sent_cycles: tuple[int, ...]
    received_cycles: tuple[int, ...]


@dataclass(frozen=True)
class Wiring:
    """Segment calls of one launch, in an order in which every packet exists when it is needed.

    `crossings` are all vectors on cables, `aligned_cycles` the ends of each chip's deskews.
    """

    calls: tuple[Call, ...]
    end_cycle: int
    crossings: tuple[Crossing, ...]
    aligned_cycles: dict[int, tuple[int, ...]]


@dataclass(frozen=True)
class Facts:
    """What the rest of the board must know of a linked program: small, and picklable."""

    start_cycle: int
    end_cycle: int
    segments: int
    sends: "tuple[Transfer, ...]"
    receives: "tuple[Transfer, ...]"
    startup: "Startup"
    aligned_cycles: tuple[int, ...]  # of the launch: the ends of its deskews


def facts(linked: "Linked") -> Facts:
    """The facts of a linked program."""
    start, end = linked.program.start_cycle, linked.end_cycle
    deskews = (start + cycle + stall for cycle, stall in linked.deskews)
    aligned = (linked.startup.aligned_cycle, *deskews)
    segments, transfers = len(linked.segments), (linked.sends, linked.receives)
    return Facts(start, end, segments, *transfers, linked.startup, aligned)


def wire(linked: Mapping[int, Facts], cables: tuple[Cable, ...]) -> Wiring:
    """Match all sends to receives; raises PortBusy, NothingArrives or PacketLost (a hazard)."""
    ends: Ends = {}
    for cable in cables:
        ends[cable.chip, cable.port] = (cable.other_chip, cable.other_port, cable)
        ends[cable.other_chip, cable.other_port] = (cable.chip, cable.port, cable)
    _check_starts(linked, ends)
    arriving: dict[tuple[int, int, int], tuple[int, Transfer, tuple[int, ...]]] = {}
    for chip, program in linked.items():
        _check_ports(chip, program, ends)
        for send in program.sends:
            if (chip, send.port) not in ends:
                raise _hazard(PacketLost, chip, send, "c2c.s", "no cable on this port")
            peer, port, cable = ends[chip, send.port]
            cycles = tuple(c + cable.latency_cycles for c in send.cycles)
            arriving[peer, port, cycles[0]] = (chip, send, cycles)
    feeds = _match(linked, arriving)
    for chip, send, _ in arriving.values():
        raise _hazard(PacketLost, chip, send, "c2c.s", "the other end does not receive it then")
    end = max((program.end_cycle for program in linked.values()), default=0)
    crossings = tuple(
        Crossing(feeds[chip, one.issue][0], chip, feeds[chip, one.issue][1].cycles, one.cycles)
        for chip, program in linked.items()
        for one in program.receives
    )
    aligned = {chip: program.aligned_cycles for chip, program in linked.items()}
    return Wiring(_order(linked, feeds), end, crossings, aligned)


class PacketLost(HazardError):
    """A Send whose vectors nobody receives in the cycle they arrive."""

    rule = "Send that nobody receives"


def _check_starts(linked: Mapping[int, Facts], ends: Ends) -> None:
    """Every start that a chip waits for is sent to it, and arrives in the cycle it names."""
    sent: dict[tuple[int, int], int] = {}
    for chip, program in linked.items():
        for port, cycle in program.startup.transmits:
            if (chip, port) not in ends:
                detail = "no cable on this port"
                raise PacketLost(chip, "icu", cycle, f"c2c.transmit port {port}", detail)
            peer, other, cable = ends[chip, port]
            sent[peer, other] = cycle + cable.hac_latency_cycles
    for chip, program in linked.items():
        for port, cycle in program.startup.awaits:
            if sent.pop((chip, port), None) != cycle:
                detail = "no start comes then"
                raise NothingArrives(chip, "icu", cycle, f"c2c.await port {port}", detail)
    for (chip, port), cycle in sent.items():
        detail = "the chip does not await a start at this port"
        raise PacketLost(chip, "icu", cycle, f"c2c.transmit port {port}", detail)


def _match(
    linked: Mapping[int, Facts],
    arriving: "dict[tuple[int, int, int], tuple[int, Transfer, tuple[int, ...]]]",
) -> "dict[tuple[int, int], tuple[int, Transfer]]":
    """(chip, receive issue) -> (sending chip, send); removes what it matches from `arriving`."""
    feeds = {}
    for chip, program in linked.items():
        for receive in program.receives:
            key = (chip, receive.port, receive.cycles[0])
            if key not in arriving:
                raise _hazard(NothingArrives, chip, receive, "c2c.r", "no vector is sent for it")
            sender, send, cycles = arriving.pop(key)
            if cycles != receive.cycles:
                detail = f"{len(cycles)} vectors come, at other cycles than it expects"
                raise _hazard(NothingArrives, chip, receive, "c2c.r", detail)
            feeds[chip, receive.issue] = (sender, send)
    return feeds


def _check_ports(chip: int, program: Facts, ends: Ends) -> None:
    """Vectors of one port leave no closer than its cable's rate, counted from each run's start."""
    by_port: dict[int, list[Transfer]] = {}
    for send in program.sends:
        by_port.setdefault(send.port, []).append(send)
    for port, sends in by_port.items():
        rate = ends[chip, port][2].cycles_per_vector if (chip, port) in ends else Fraction(1)
        cycles, vectors, free = rate.numerator, rate.denominator, 0
        for send in sorted(sends, key=lambda s: s.cycles[0]):
            first = send.cycles[0]
            for number, cycle in enumerate(send.cycles):
                if cycle < max(free, first + -(-number * cycles // vectors)):  # rounded up
                    detail = f"port {port} takes a vector every {rate} cycles"
                    raise _hazard(PortBusy, chip, send, "c2c.s", detail, cycle)
            free = first + -(-len(send.cycles) * cycles // vectors)


def _hazard(
    kind: type[HazardError],
    chip: int,
    transfer: "Transfer",
    family: str,
    detail: str,
    cycle: int | None = None,
) -> HazardError:
    op = "c2c.send" if family == "c2c.s" else "c2c.receive"
    text = f"{op} x{len(transfer.cycles)}"
    at = transfer.cycles[0] if cycle is None else cycle
    return kind(chip, f"{family}:{transfer.port}", at, text, detail)


def _order(
    linked: Mapping[int, Facts], feeds: "dict[tuple[int, int], tuple[int, Transfer]]"
) -> tuple[Call, ...]:
    """Segments in dependence order, earliest first packet first."""
    packets: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    needs: dict[tuple[int, int], set[tuple[int, int]]] = {}
    first_cycle: dict[tuple[int, int], int] = {}
    sends: dict[tuple[int, int], list[int]] = {}
    for chip, program in linked.items():
        for send in program.sends:
            sends.setdefault((chip, send.segment), []).append(send.issue)
        for segment in range(program.segments):
            needs[chip, segment] = {(chip, segment - 1)} if segment else set()
            first_cycle[chip, segment] = program.start_cycle
        for receive in program.receives:
            sender, send = feeds[chip, receive.issue]
            key = (chip, receive.segment)
            packets.setdefault(key, []).append((receive.issue, sender, send.issue))
            needs[key].add((sender, send.segment))
            first_cycle[key] = max(first_cycle[key], receive.cycles[0])
    followers: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for key, before in needs.items():
        for other in before:
            followers.setdefault(other, []).append(key)
    ready = [(first_cycle[key], key) for key, before in needs.items() if not before]
    heapq.heapify(ready)
    calls = []
    while ready:
        _, key = heapq.heappop(ready)
        calls.append(Call(*key, tuple(packets.get(key, ())), tuple(sends.get(key, ()))))
        for follower in followers.get(key, ()):
            needs[follower].discard(key)
            if not needs[follower]:
                heapq.heappush(ready, (first_cycle[follower], follower))
    stuck = [(first_cycle[key], key) for key, before in needs.items() if before]
    if stuck:
        cycle, (chip, segment) = min(stuck)
        detail = "what it sends waits, chip by chip, for a packet that ends later than its own"
        raise OrderError(chip, "c2c.r", cycle, f"segment {segment}", detail)
    return tuple(calls)
