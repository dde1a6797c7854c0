"""Random programs: instructions that read where something passes, and overwrite each other."""

from dataclasses import dataclass, field
from random import Random
from typing import Any

from chip.isa import ALU_BASE, DTYPES, FORMATS, IMMEDIATE, NO_STREAM, OPS, SUMS, WIDTHS, Op, lookup
from chip.program import Instruction, Program, word_columns
from chip.spec import EAST, TINY
from tests.chip.programs import At, at, program

STREAMS = 8  # of each direction that the chaos uses: few, so that values run over each other
ROWS = 24
INDICES = (8, 9)  # slices whose words are small numbers as u16: addresses
WEIGHTS = 16  # first of the slices and streams that only weights use
SPAN = 64  # gathered words
POINTWISE = {
    d: [o.name for o in OPS.values() if o.queue == "vxm" and d in (*o.dtypes, o.operands[0].dtype)]
    for d in (*DTYPES, "e4m3", "e5m2")
}
Loops = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Passing:
    """A value on a stream or, for one cycle, in an ALU."""

    code: int
    dtype: str
    position: int
    cycle: int
    loops: Loops


@dataclass
class Chaos:
    seed: int
    placed: list[At] = field(default_factory=list)
    passing: list[Passing] = field(default_factory=list)
    taken: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    stalls: list[tuple[int, int]] = field(default_factory=list)  # Runtime deskews: (cycle, stall)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)

    def program(self) -> Program:
        self.act()
        if self.random.random() < 0.2:
            self.stall()
            self.act()
        lanes = [self.random.choice([*range(16), 0xFFFF]) for _ in range(16)]
        maps = (tuple(self.random.sample(range(320), 320)), tuple(lanes))
        maps += (tuple(self.random.choice([0, 1]) for _ in range(320)),)
        self.control()
        return program(*self.placed, maps=maps, **self.start())

    def act(self) -> None:
        actions = [self.read, self.read, self.compute, self.compute, self.write, self.write]
        actions += [self.move, self.gather, self.scatter, self.link, self.matmul, self.group_move]
        for _ in range(4):
            self.read()
        for _ in range(self.random.randrange(4, 30)):
            self.random.choice(actions)()

    def stall(self) -> None:
        """All queues stall, most often after all that went before; what passes now is lost."""
        ends = [end for busy in self.taken.values() for _, end in busy]
        self.stalls.append((max(ends) + self.random.randint(1, 60), self.random.randint(1, 9)))
        self.passing.clear()

    def start(self) -> dict[str, Any]:
        """A start at any cycle; or through a start sequence, of a root or of another chip."""
        if self.random.random() < 0.7:
            return {"start_cycle": self.random.choice([0, 1000])}
        deskew, period = Instruction("icu.deskew", ()), TINY.hac_period_cycles
        wait = self.random.randrange(1, 3 * period)
        first = Instruction("c2c.await", (1, wait))
        if self.random.random() < 0.5:
            first = Instruction("icu.nop", (wait,))
        transmit = Instruction("c2c.transmit", (self.random.randrange(1, 16),))
        release = Instruction("icu.nop", (TINY.barrier_cycles,))
        aligned = (-(-wait // period) + 1) * period
        start = aligned + TINY.barrier_cycles + self.random.choice([0] * 9 + [1])
        return {"start_cycle": start, "startup": (first, deskew, transmit, deskew, release)}

    def control(self) -> None:
        """Now and then all queues wait for a Notify first, or work with fewer lanes."""
        queues = sorted({one.queue for one in self.placed})
        for cycle, stall in self.stalls:
            self.placed += [at(queue, cycle, "icu.runtime_deskew", stall) for queue in queues]
        if min(one.cycle for one in self.placed) < 2:
            return
        if self.random.random() < 0.2:
            self.placed += [at(queue, 0, "icu.sync") for queue in queues]
            self.placed.append(at("c2c.s:9", self.random.randrange(9), "icu.notify"))
        if self.random.random() < 0.2:
            lanes = 16 * self.random.randint(1, 20)
            self.placed += [at(queue, 1, "icu.config", lanes) for queue in queues]

    # --- instructions -----------------------------------------------------------------------
    def read(self) -> None:
        dtype = self.random.choice(DTYPES)
        width = WIDTHS[dtype]
        first = self.random.choice([*range(0, 8, width), *range(44, 52, width)])
        if dtype == "u16":
            first = INDICES[0]
        code, loops, cycle = self.group(width), self.loops(), self.soon(20, 70)
        step, row = self.random.choice([0, 1, 1, 2]), self.random.randrange(4)
        for byte in range(width):
            self.add(f"mem.r:{first + byte}", self.byte_cycle(first, byte, code, cycle), "mem.read",
                     row, code + byte, loops=loops, step=step)  # fmt: skip
        self.drive(code, dtype, TINY.slice_position(first), cycle + TINY.d_func("mem.read"), loops)

    def write(self) -> None:
        value = self.pick()
        if value is None or value.code >= ALU_BASE:
            return
        width = WIDTHS[value.dtype]
        first = self.random.choice([*range(0, 8, width), *range(44, 52, width)])
        cycle = self.meet(value, TINY.slice_position(first))
        if cycle is None:
            return
        row, step, loops = (
            self.random.randrange(ROWS - 12),
            self.random.choice([1, 1, 2]),
            value.loops,
        )
        if self.random.random() < 0.3:
            loops = (loops[0], (self.random.randint(1, loops[1][0]), loops[1][1]))
        for byte in range(width):
            if self.random.random() < 0.95:
                self.add(f"mem.w:{first + byte}", self.byte_cycle(first, byte, value.code, cycle),
                         "mem.write", row, value.code + byte, loops=loops, step=step)  # fmt: skip

    def compute(self) -> None:
        value = self.pick()
        cycle = None if value is None else self.meet(value, TINY.vxm_position)
        if value is None or cycle is None:
            return
        op = OPS[self.random.choice(POINTWISE[value.dtype])]
        args = self.arguments(op, value, cycle)
        if args is None:
            return
        assert op.driven is not None
        dtype = op.element(op.driven, tuple(args))
        out = self.random.choice([NO_STREAM, self.group(WIDTHS[dtype])])
        alu, ready = self.random.randrange(TINY.vxm_alus), cycle + TINY.d_func(op.timing)
        if self.add(f"vxm:{alu}", cycle, op.name, *args[:-1], out, loops=value.loops):
            self.drive(ALU_BASE + alu, dtype, TINY.vxm_position, ready, value.loops)
            if out != NO_STREAM:
                self.drive(out, dtype, TINY.vxm_position, ready, value.loops)

    def arguments(self, op: Op, value: Passing, cycle: int) -> list[int] | None:
        """Operands for an op of a value's type, among what passes with it; None if it has none.

        The value takes a random place of its type, and the immediate may take one other.
        """
        args = [0] * len(op.operands)
        if op.dtypes:
            args[0] = DTYPES.index(value.dtype)
        places = [i for i in op.sources if op.element(i, tuple(args)) == value.dtype]
        mine, immediate = self.random.choice(places), self.random.random() < 0.4
        for index in op.sources:
            element = op.element(index, tuple(args))
            fitting = [p for p in self.passing if (p.dtype, p.loops) == (element, value.loops)]
            codes = [p.code for p in fitting if self.meet(p, TINY.vxm_position) == cycle]
            if index == mine:
                args[index] = value.code
            elif immediate and op.constant(index):
                args[index], immediate = IMMEDIATE, False
            elif codes:
                args[index] = self.random.choice(codes)
            else:
                return None
        if any(o.kind == "imm" for o in op.operands):
            args[op.index("imm")] = self.random.choice([0, 3, 0x40490FDB, 0xFFFFFFFE])
        return args

    def move(self) -> None:
        value, side = self.pick(), self.random.randrange(2)
        position = TINY.edge_position("sxm", side)
        cycle = None if value is None else self.meet(value, position)
        if value is None or cycle is None or value.code >= ALU_BASE or value.dtype not in DTYPES:
            return
        name = self.random.choice(["permute", "distribute", "shift_up", "shift_down", "select"])
        number = {"permute": 0, "distribute": 1, "select": 2}.get(name, self.random.randrange(40))
        args = [DTYPES.index(value.dtype), number, value.code]
        if name == "select":
            fitting = [p for p in self.passing if (p.dtype, p.loops) == (value.dtype, value.loops)]
            codes = [p.code for p in fitting if self.meet(p, position) == cycle]
            args.append(self.random.choice(codes))
        out = self.group(WIDTHS[value.dtype])
        if self.on_sxm(side, cycle, name, *args, out, loops=value.loops):
            delay = TINY.d_func(lookup(f"sxm.{name}").timing)
            self.drive(out, value.dtype, position, cycle + delay, value.loops)

    def on_sxm(self, side: int, cycle: int, name: str, *args: int, loops: Loops) -> bool:
        queue = side * TINY.sxm_queues + self.random.randrange(TINY.sxm_queues)
        return self.add(f"sxm:{queue}", cycle, f"sxm.{name}", *args, loops=loops)

    def group_move(self) -> None:
        """A rotation of bytes, or a transposition of 16 slices, onto one of the upper groups."""
        side, value = self.random.randrange(2), self.pick()
        position = TINY.edge_position("sxm", side)
        cycle = None if value is None else self.meet(value, position)
        if value is None or cycle is None or value.code >= ALU_BASE:
            return
        name, width = self.random.choice([("rotate3", 9), ("rotate4", 16), ("transpose", 16)])
        code, out = value.code, self.random.randrange(2) * TINY.streams + WEIGHTS
        if name == "transpose":
            code = side * TINY.streams + WEIGHTS
            for plane in range(16):
                index = (0 if side == EAST else TINY.hemisphere_slices) + WEIGHTS + plane
                away = abs(TINY.slice_position(index) - position) + TINY.d_func("mem.read")
                self.add(f"mem.r:{index}", cycle - away, "mem.read", 0, code + plane,
                         loops=value.loops, step=1)  # fmt: skip
        if self.on_sxm(side, cycle, name, code, out, loops=value.loops):
            delay = TINY.d_func(lookup(f"sxm.{name}").timing)
            for plane in self.random.sample(range(width), 4):
                self.drive(out + plane, "u8", position, cycle + delay, value.loops)

    def gather(self) -> None:
        value, index = self.pick("u16"), self.random.choice([0, 3, 44, 47])
        cycle = None if value is None else self.meet(value, TINY.slice_position(index))
        if value is None or cycle is None or value.code >= ALU_BASE:
            return
        out, delay = self.group(1), TINY.d_func("mem.gather")
        args = (0, SPAN, value.code, out)
        if self.add(f"mem.r:{index}", cycle, "mem.gather", *args, loops=value.loops):
            self.drive(out, "u8", TINY.slice_position(index), cycle + delay, value.loops)

    def scatter(self) -> None:
        value, index = self.pick("u16"), self.random.choice([1, 2, 45])
        position = TINY.slice_position(index)
        cycle = None if value is None else self.meet(value, position)
        others = [p for p in self.passing if self.meet(p, position) == cycle and p.code < ALU_BASE]
        if value is None or cycle is None or value.code >= ALU_BASE:
            return
        data = self.random.choice(others)
        loops = value.loops if data.loops == value.loops else ((1, 1), (1, 1))
        self.add(
            f"mem.w:{index}", cycle, "mem.scatter", 32, SPAN, value.code, data.code, loops=loops
        )

    def link(self) -> None:
        port, loops, code = self.random.randrange(4), self.loops(), self.group(1)
        position = TINY.edge_position("c2c", port % 2)
        if self.random.random() < 0.5:
            cycle = self.soon(0, 60)
            if self.add(f"c2c.r:{port}", cycle, "c2c.receive", code, loops=loops):
                self.drive(code, "u8", position, cycle + TINY.d_func("c2c.receive"), loops)
            return
        value = self.pick()
        cycle = None if value is None else self.meet(value, position)
        if value is not None and cycle is not None and value.code < ALU_BASE:
            self.add(f"c2c.s:{port}", cycle, "c2c.send", value.code, loops=value.loops)

    def matmul(self) -> None:
        """Tiles from 16 slices, or from whatever passes, in a format; activations likewise."""
        format = self.random.choice(["f16", "f16", "f16", "i8", "i8", "e4m3", "e5m2"])
        value, side = self.pick("f16" if format == "f16" else "u8"), self.random.randrange(2)
        position = TINY.edge_position("mxm", side)
        start = None if value is None else self.meet(value, position)
        if value is None or start is None or value.code >= ALU_BASE:
            return
        words, tiles = self.random.choice([1, 2, 3]), value.loops[0][0]
        if tiles > 1 and words > value.loops[0][1]:
            return
        load = start - 1 - words - self.random.randrange(3)
        code = side * TINY.streams + WEIGHTS
        loops = ((tiles, value.loops[0][1]), (words, 1))
        for plane in range(16):
            index = (0 if side == EAST else TINY.hemisphere_slices) + WEIGHTS + plane
            away = abs(TINY.slice_position(index) - position) + TINY.d_func("mem.read")
            step, outer = self.random.choice([(1, words), (1, words), (1, words), (0, 0)])
            if plane and self.random.random() < 0.99:
                step, outer = 1, words
            self.add(f"mem.r:{index}", load - away, "mem.read", 0, code + plane, loops=loops,
                     step=step, outer=outer)  # fmt: skip
        half = 0 if format == "f16" else self.random.randrange(2)
        kind, group, unit = FORMATS.index(format), word_columns(format), side + 2 * half
        column = group * self.random.randrange(240 // group) + 320 * half
        if self.random.random() < 0.1:
            code = side * TINY.streams
        self.add(f"mxm.lw:{side}", load, "mxm.lw", kind, column, code, loops=loops, step=group)
        once = (loops[0], (1, 1))
        self.add(f"mxm.iw:{side}", start - 1, "mxm.iw", kind, half, group * words, loops=once)
        self.add(f"mxm.abc:{unit}", start, "mxm.abc", kind, value.code, loops=value.loops)
        done, out = start + TINY.d_func("mxm.abc"), self.random.choice([NO_STREAM, self.group(4)])
        mode, outer = self.random.choice([(0, value.loops[1][0]), (0, 0), (1, value.loops[1][0])])
        args = (kind, mode, self.random.randrange(8), out)
        if self.add(f"mxm.acc:{unit}", done, "mxm.acc", *args, loops=value.loops, step=1,
                    outer=outer) and out != NO_STREAM:  # fmt: skip
            self.drive(out, SUMS[format], position, done + TINY.d_func("mxm.acc"), value.loops)

    # --- choices ----------------------------------------------------------------------------
    def soon(self, low: int, high: int) -> int:
        """A cycle within a range after the last stall."""
        return max((c + t for c, t in self.stalls), default=0) + self.random.randrange(low, high)

    def loops(self) -> Loops:
        interval, inner = self.random.choice([1, 1, 2, 3]), self.random.choice([1, 2, 4])
        outer = self.random.choice([1, 1, 2])
        return (outer, interval * inner + self.random.randrange(5)), (inner, interval)

    def group(self, width: int) -> int:
        return self.random.randrange(2) * TINY.streams + self.random.randrange(0, STREAMS, width)

    def pick(self, dtype: str = "") -> Passing | None:
        fitting = [p for p in self.passing if dtype in ("", p.dtype)]
        return self.random.choice(fitting) if fitting else None

    def meet(self, value: Passing, position: int) -> int | None:
        """Cycle in which a value passes a position downstream of its driver."""
        if value.code >= ALU_BASE:
            return value.cycle if position == TINY.vxm_position else None
        direction = value.code // TINY.streams
        away = TINY.along(direction, position) - TINY.along(direction, value.position)
        return value.cycle + away if away > 0 else None

    def byte_cycle(self, first: int, byte: int, code: int, cycle: int) -> int:
        """Cycle on slice `first` + `byte`, so that all bytes of an element are on one diagonal."""
        along = [
            TINY.along(code // TINY.streams, TINY.slice_position(i)) for i in (first, first + byte)
        ]
        return cycle + along[1] - along[0]

    def drive(self, code: int, dtype: str, position: int, cycle: int, loops: Loops) -> None:
        self.passing.append(Passing(code, dtype, position, cycle, loops))

    def add(
        self,
        queue: str,
        cycle: int,
        op: str,
        *args: int,
        loops: Loops,
        step: int = 0,
        outer: int = 0,
    ) -> bool:
        (n, far), (m, near) = loops
        end = cycle + (n - 1) * far + (m - 1) * near
        busy = self.taken.setdefault(queue, []) + [(c, c + t - 1) for c, t in self.stalls]
        if cycle < 0 or any(cycle <= high and low <= end for low, high in busy):
            return False
        self.taken[queue].append((cycle, end))
        both = ((n, far, outer or step * m if step else outer), (m, near, step))
        self.placed.append(at(queue, cycle, op, *args, loops=both))
        return True
