"""Collectives of `topology` as programs: who is which member, over which port, in which rows."""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from chip.board import Cable
from chip.collection import uncollected
from chip.core import Array
from chip.kernels.collective import Compiler, Home
from chip.kernels.collective_items import Addition, Items, Message
from chip.kernels.transfer import Hop
from chip.own_spec import identity
from chip.program import Program, Region
from chip.schedule import Buffer
from chip.spec import ChipSpec
from chip.wire import pack
from cluster.compiler.clocking import Clocking
from cluster.compiler.launch import Launch
from cluster.compiler.messages import ROW_VECTORS, items_of
from cluster.compiler.wires import Wires
from cluster.errors import BadValue
from topology.collectives import Collective

APART_ROWS = 128  # of a message; and of all: more are left to loops, which are fewer instructions
MOST_APART_ROWS = 60_000  # those of 1 MiB on 32 chips in nodes of eight
CLOSE = 1.02  # of the timetable's cycles: then no other memory is tried
LAUNCH, INPUT, OUTPUT = "collective", "x", "y"


@dataclass(frozen=True)
class _OneSpec:
    spec: ChipSpec


@dataclass(frozen=True)
class LoweredCollective:
    """A collective of its own on chips, as machines load it."""

    plan: _OneSpec
    placement: tuple[tuple[int, ...], ...]
    launches: dict[str, Launch]
    cables: tuple[Cable, ...]
    transit_chips: tuple[int, ...]
    buffer_bytes: int
    clocking: Clocking | None = None

    @property
    def chips(self) -> tuple[int, ...]:
        """Return the group."""
        return self.placement[0]

    def sram_bytes(self, stage: int) -> int:
        """Return the bytes of SRAM that each chip uses."""
        return self.buffer_bytes

    def constants(
        self, wanted: Container[int] | None = None
    ) -> Iterator[tuple[int, Region, Array]]:
        """Yield nothing: what is sent is input of the launch."""
        return iter(())


@uncollected()
def lower_collective(timed: Collective, wires: Wires, spec: ChipSpec) -> LoweredCollective:
    """Programs that carry out a timed collective of whole fp32 rows; raises BadValue."""
    chips = list(timed.chips)
    edges = timed.fabric.channel_edge[np.flatnonzero(timed.channel_vectors())]
    on_way = {*timed.fabric.tail[edges].tolist(), *timed.fabric.head[edges].tolist()}
    chips += sorted(on_way - set(chips))
    members = {chip: number for number, chip in enumerate(chips)}

    def hop(a: int, b: int, cable: int) -> Hop:
        return wires.hop(a, b, cable)._replace(member=members[a], to_member=members[b])

    made = items_of(timed, hop, members)
    result = timed.messages.result_slot
    names = {0: INPUT} if result == 0 else {0: INPUT, result: OUTPUT}
    count = timed.vectors // ROW_VECTORS
    pool_rows = _most_pool_rows(made, names)
    maps = [_memory(spec, names, count, pool_rows, outside) for outside in (False, True)]
    moved = sum(item.source.length for item in made if isinstance(item, Message))
    apart = APART_ROWS if moved <= MOST_APART_ROWS else 1
    plan, homes = Compiler(spec, *maps[0], apart_rows=apart).compile(made), maps[0][0]
    if plan.end_cycle > CLOSE * timed.cycles:
        other = Compiler(spec, *maps[1], apart_rows=apart).compile(made)
        plan, homes = min((plan, homes), (other, maps[1][0]), key=lambda one: one[0].end_cycle)
    regions = {name: homes[slot].pieces[0][1].region for slot, name in names.items()}
    inputs, outputs = {INPUT: regions[INPUT]}, {OUTPUT: regions[names[result]]}
    programs, ends, counts = {}, {}, {}
    for chip, member in members.items():
        bare = Program(chip, identity(spec), 0, {})
        if member < len(timed.chips):
            bare = Program(chip, identity(spec), 0, {}, inputs=inputs, outputs=outputs)
        elif member not in plan.members:
            continue
        programs[chip] = pack(plan.program(member, bare))
        ends[chip] = plan.member_end_cycles.get(member, 0)
        counts[chip] = plan.instructions(member) if member in plan.members else 0
    launch = Launch(LAUNCH, 0, 0, programs, ends, counts)
    cables = tuple(c for c in wires.cables() if c.chip in programs and c.other_chip in programs)
    transit = tuple(chip for chip in programs if chip not in timed.chips)
    rows = count * len(names) + pool_rows
    size = rows * ROW_VECTORS * spec.lanes
    return LoweredCollective(
        _OneSpec(spec), (timed.chips,), {LAUNCH: launch}, cables, transit, size
    )


def _most_pool_rows(made: Items, homes: Mapping[int, str]) -> int:
    """Rows to land and keep things in on any member, if none is used twice.

    Twice as many, as first fit leaves rests, and some for sums of more operands than a chain has.
    """
    rows = np.zeros(1 + max(_member(item) for item in made), np.int64)
    for item in made:
        apart = isinstance(item, Message) and item.lands
        if apart or item.target.slot not in homes:
            rows[_member(item)] += item.target.length
    return 2 * int(rows.max()) + max(item.target.length for item in made)


def _member(item: Message | Addition) -> int:
    return item.hops[-1].to_member if isinstance(item, Message) else item.member


def _memory(
    spec: ChipSpec, names: Mapping[int, str], rows: int, pool_rows: int, outside: bool
) -> tuple[dict[int, Home], list[Buffer]]:
    """Homes of the slots, and what lands in the slices next to the VXM, where it is added.

    Homes are there too or, `outside`, near the ports: nearer for some ports and what only passes
    on, farther for the ports on the other side. Raises BadValue.
    """
    half, width = spec.hemisphere_slices, ROW_VECTORS
    # East and west of the VXM in turn, from the inside out: (slice, bank).
    places = [
        (side * half + first, bank)
        for first in range(0, half, width)
        for side in (0, 1)
        for bank in range(spec.slice_banks)
    ]
    if rows > spec.bank_words:
        most = spec.bank_words * width * spec.lanes
        raise BadValue("--bytes", rows * width * spec.lanes, f"--execute takes at most {most:,}")
    homes = {}
    for slot, name in names.items():
        index, bank = places.pop(-2 * spec.slice_banks if outside else 0)
        region = Region(index, bank * spec.bank_words, rows, "f32")
        homes[slot] = Home(((0, Buffer(name, region)),))
    pool, left = [], pool_rows
    share = max(rows, -(-pool_rows // len(places)))
    for number, (index, bank) in enumerate(places):
        if left <= 0:
            break
        size = min(share, spec.bank_words)
        region = Region(index, bank * spec.bank_words, size, "f32")
        pool.append(Buffer(f"part{number}", region))
        left -= size
    if left > 0:
        rule = f"needs {pool_rows:,} rows beside its buffers on a chip; name another --algorithm"
        raise BadValue("--execute", "", rule)
    return homes, pool
