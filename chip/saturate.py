"""Programs that use one resource of the chip in every cycle, to measure what it carries.

Each is a `Draft`: instructions at cycles, from which the queues are filled. Regions are fixed:
what is read rests in words from 0 on, what is written in the other bank.
"""

from dataclasses import dataclass, field

from chip.isa import DTYPES, FORMATS, NO_STREAM, WIDTHS
from chip.own_spec import identity
from chip.program import ONCE, Instruction, Program, fill_queue, word_columns
from chip.spec import EAST, WEST, ChipSpec

Loop = tuple[int, int, int]
START = 300  # a cycle by which anything has come from anywhere
WEIGHTS, ACTIVATIONS, SUMS = 16, 4, 8  # first slice of each, counted in its hemisphere


@dataclass
class Draft:
    """Instructions at cycles, in any order."""

    spec: ChipSpec
    placed: dict[str, list[tuple[int, Instruction]]] = field(default_factory=dict)

    def at(
        self,
        queue: str,
        cycle: int,
        op: str,
        *args: int,
        outer: Loop = ONCE,
        inner: Loop = ONCE,
    ) -> None:
        """Put an instruction on a queue."""
        instruction = Instruction(op, args, (outer, inner))
        self.placed.setdefault(queue, []).append((cycle, instruction))

    def read(
        self, index: int, stream: int, cycle: int, position: int, outer: Loop, inner: Loop
    ) -> None:
        """Read a slice from word 0 on so that it passes a position from a cycle on."""
        away = abs(position - self.spec.slice_position(index)) + self.spec.d_func("mem.read")
        queue = f"mem.r:{index}"
        self.at(queue, cycle - away, "mem.read", 0, stream, outer=outer, inner=inner)

    def write(self, index: int, stream: int, cycle: int, position: int, inner: Loop) -> None:
        """Write, into the upper bank of a slice, what passes a position from a cycle on."""
        away = abs(position - self.spec.slice_position(index))
        where = self.spec.bank_words
        self.at(f"mem.w:{index}", cycle + away, "mem.write", where, stream, inner=inner)

    def program(self, maps: tuple[tuple[int, ...], ...] = ()) -> Program:
        """The program of what was placed."""
        queues = {name: fill_queue(placed, name) for name, placed in self.placed.items()}
        return Program(0, identity(self.spec), 0, queues, maps)


def streams(spec: ChipSpec, count: int) -> Program:
    """All streams carry a vector across the VXM in each of `count` cycles.

    As many slices of each side as there are streams read one, and write one of the other side's.
    """
    draft, run = Draft(spec), (count, 1, 1)
    half, middle = spec.hemisphere_slices, spec.vxm_position
    for n in range(min(spec.streams, half)):
        draft.read(half + n, n, START, middle, ONCE, run)
        draft.write(n, n, START, middle, run)
        draft.read(n, spec.streams + n, START, middle, ONCE, run)
        draft.write(half + n, spec.streams + n, START, middle, run)
    return draft.program()


def sram(spec: ChipSpec, count: int) -> Program:
    """Every slice reads and writes in each of `count` cycles, in opposite banks.

    What a slice reads goes east to its neighbour; of the last in the row, back west to the first.
    """
    draft, run = Draft(spec), (count, 1, 1)
    row = sorted(range(spec.slices), key=spec.slice_position)
    for n, index in enumerate(row):
        target = row[(n + 1) % len(row)]
        stream = spec.streams * (target == row[0]) + n % spec.streams
        draft.at(f"mem.r:{index}", START, "mem.read", 0, stream, inner=run)
        position = spec.slice_position(index)
        draft.write(target, stream, START + spec.d_func("mem.read"), position, run)
    return draft.program()


def published_queues(spec: ChipSpec) -> list[str]:
    """The queues of the published split: 44 MEM, 14 SXM and 6 MXM per side, 16 VXM."""
    mxm = {"lw": 2, "iw": 2, "abc": spec.mxm_planes, "acc": spec.mxm_planes}
    return [
        *(f"mem.r:{n}" for n in range(spec.slices)),
        *(f"sxm:{n}" for n in range(2 * spec.sxm_queues)),
        *(f"mxm.{kind}:{n}" for kind, count in mxm.items() for n in range(count)),
        *(f"vxm:{n}" for n in range(spec.vxm_alus)),
    ]


def fetch(queues: list[str], spec: ChipSpec) -> Program:
    """An instruction on each of these queues in cycle 0."""
    config = Instruction("icu.config", (spec.lanes,))
    return Program(0, identity(spec), 0, dict.fromkeys(queues, (config,)))


def barrier(notify: int, spec: ChipSpec) -> Program:
    """Parked readers in all slices, and a Notify in some cycle."""
    queues = {
        f"mem.r:{n}": (Instruction("icu.sync", ()), Instruction("mem.read", (0, 0)))
        for n in range(0, spec.slices, spec.streams)
    }
    wait = (Instruction("icu.nop", (notify,)), Instruction("icu.notify", ()))
    return Program(0, identity(spec), 0, {**queues, "vxm:0": wait})


def products(spec: ChipSpec, format: str, count: int) -> Program:
    """All planes hold a full tile, and take vectors as fast as they can, `count` each."""
    draft = Draft(spec)
    for side in (EAST, WEST):
        _load(draft, format, side)
        for plane in range(planes(spec, format)):
            _stream(draft, format, side, plane, count)
    return draft.program()


def planes(spec: ChipSpec, format: str) -> int:
    """Tiles of a format that one side holds at a time: fp16 takes both planes for one."""
    return spec.mxm_planes // 2 // WIDTHS[format]


def loads(spec: ChipSpec, format: str) -> int:
    """LWs that fill a tile."""
    return spec.lanes // word_columns(format)


def _load(draft: Draft, format: str, side: int) -> None:
    """Fill and install the tiles of a side, one load a cycle; the last is in at START - 2."""
    spec, kind = draft.spec, FORMATS.index(format)
    words, tiles = loads(spec, format), planes(spec, format)
    position, code = spec.edge_position("mxm", side), spec.streams * side + 16
    first = START - 1 - words * tiles
    outer, inner = (tiles, words, words), (words, 1, 1)
    for n in range(spec.lw_streams):
        index = spec.hemisphere_slices * side + WEIGHTS + n
        draft.read(index, code + n, first, position, outer, inner)
    steps = (tiles, words, spec.lanes), (words, 1, word_columns(format))
    draft.at(f"mxm.lw:{side}", first, "mxm.lw", kind, 0, code, outer=steps[0], inner=steps[1])
    turns = (tiles, words, 1)
    draft.at(f"mxm.iw:{side}", first + words, "mxm.iw", kind, 0, spec.lanes, inner=turns)


def _stream(draft: Draft, format: str, side: int, plane: int, count: int) -> None:
    """Activations of a plane, from its own slices, and its sums back to others."""
    spec, kind, unit = draft.spec, FORMATS.index(format), side + 2 * plane
    position, base = spec.edge_position("mxm", side), spec.hemisphere_slices * side
    every, width = WIDTHS[format], WIDTHS[format]
    code, run = spec.streams * side + 4 * plane, (count, every, 1)
    for byte in range(width):
        index = base + ACTIVATIONS + width * plane + byte
        draft.read(index, code + byte, START + 1, position, ONCE, run)
    args, still = (kind, code), (count, every, 0)
    draft.at(f"mxm.abc:{unit}", START + 1, "mxm.abc", *args, inner=still)
    done, out = START + 1 + spec.d_func("mxm.abc"), spec.streams * (1 - side) + 4 * plane
    draft.at(f"mxm.acc:{unit}", done, "mxm.acc", kind, 0, 0, out, inner=run)
    for byte in range(4):
        index = base + SUMS + 4 * plane + byte
        draft.write(index, out + byte, done + spec.d_func("mxm.acc"), position, run)


def one_value(spec: ChipSpec, kind: str, unit: int, stream: int) -> tuple[Draft, int]:
    """One value on a stream: (the draft, the cycle in which its producer drives it)."""
    draft = Draft(spec)
    if kind == "mem":
        draft.at(f"mem.r:{unit}", START - spec.d_func("mem.read"), "mem.read", 0, stream)
        return draft, START
    if kind == "vxm":
        issue = START - spec.d_func("vxm.alu")
        feed = (stream + spec.streams) % (2 * spec.streams)  # comes the other way
        far = spec.hemisphere_slices if feed < spec.streams else 0
        draft.read(far, feed, issue, spec.vxm_position, ONCE, ONCE)
        draft.at(f"vxm:{unit}", issue, "vxm.copy", DTYPES.index("u8"), feed, stream)
        return draft, START
    position = spec.edge_position(kind, unit % 2)
    if kind == "c2c":
        issue = START - spec.d_func("c2c.receive")
        draft.at(f"c2c.r:{unit}", issue, "c2c.receive", stream)
    elif kind == "sxm":
        issue, outward = START - spec.d_func("sxm.shift"), spec.streams * (unit % 2) + 16
        draft.read(spec.hemisphere_slices * unit + 30, outward, issue, position, ONCE, ONCE)
        args = (DTYPES.index("u8"), 1, outward, stream)
        draft.at(f"sxm:{spec.sxm_queues * unit}", issue, "sxm.shift_up", *args)
    else:
        _sum(draft, unit, stream)
    return draft, START


def _sum(draft: Draft, side: int, stream: int) -> None:
    """One fp32 sum of the MXM of a side, driven at START."""
    spec, kind = draft.spec, FORMATS.index("f16")
    acc = START - spec.d_func("mxm.acc")
    abc, position = acc - spec.d_func("mxm.abc"), spec.edge_position("mxm", side)
    base, code = spec.hemisphere_slices * side, spec.streams * side
    for n in range(spec.lw_streams):
        draft.read(base + WEIGHTS + n, code + 16 + n, abc - 2, position, ONCE, ONCE)
    draft.at(f"mxm.lw:{side}", abc - 2, "mxm.lw", kind, 0, code + 16)
    draft.at(f"mxm.iw:{side}", abc - 1, "mxm.iw", kind, 0, word_columns("f16"))
    for byte in (0, 1):
        draft.read(base + ACTIVATIONS + byte, code + 8 + byte, abc, position, ONCE, ONCE)
    draft.at(f"mxm.abc:{side}", abc, "mxm.abc", kind, code + 8)
    draft.at(f"mxm.acc:{side}", acc, "mxm.acc", kind, 0, 0, stream)


def look(draft: Draft, kind: str, unit: int, cycle: int, stream: int) -> None:
    """A consumer of one byte stream at a cycle; a result of it is driven to nobody."""
    spec = draft.spec
    if kind == "mem":
        draft.at(f"mem.w:{unit}", cycle, "mem.write", spec.bank_words, stream)
    elif kind == "vxm":
        draft.at(f"vxm:{unit}", cycle, "vxm.copy", DTYPES.index("u8"), stream, NO_STREAM)
    elif kind == "sxm":
        queue, out = f"sxm:{spec.sxm_queues * unit + 1}", spec.streams * (1 - unit) + 20
        draft.at(queue, cycle, "sxm.shift_up", DTYPES.index("u8"), 1, stream, out)
    else:
        draft.at(f"c2c.s:{unit}", cycle, "c2c.send", stream)
