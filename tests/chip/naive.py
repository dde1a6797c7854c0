"""The chip by definition: a slow interpreter that steps a program cycle by cycle.

Independent of the linker. Stream registers are registers: what is in one moves to the next in
every cycle, and what nobody overwrites leaves at the edge. In a cycle, first all registers shift,
then every unit that issues reads its operands at its position, then what falls due is driven.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from heapq import merge
from typing import Any

import numpy as np
import numpy.typing as npt

from chip.isa import (
    ALU_BASE,
    DTYPES,
    FORMATS,
    IMMEDIATE,
    NO_STREAM,
    NUMPY_TYPES,
    STACKS,
    WIDTHS,
    Op,
    lookup,
)
from chip.isa.mxm import ADD
from chip.program import Instruction, Program
from chip.spec import EAST, SPECS, TINY
from chip.wire import unpack

BARRIER = TINY.barrier_cycles
I8 = FORMATS.index("i8")
Bytes = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]
Packets = dict[tuple[int, int], Bytes]  # (port, launch cycle) -> vector

# Inside a cycle: SRAM is read before it is written, an activation meets the tile of an earlier
# cycle, and a load that coincides with an install already goes to the next tile.
RANKS = ("mem.r", "vxm", "sxm", "c2c.s", "c2c.r", "mxm.abc", "mxm.acc", "mem.w", "mxm.iw", "mxm.lw")


class Misread(Exception):
    """An operand names a register, an ALU or a product that holds nothing in that cycle."""


class OutOfRegion(Exception):
    """An address from a stream lies outside the words its instruction names."""


@dataclass
class Result:
    sram: Bytes  # [slices, words, lanes]
    sent: Packets
    end_cycle: int


def interpret(data: bytes, sram: Bytes, arrivals: Mapping[tuple[int, int], Bytes] = {}) -> Result:
    """Run a program on a copy of `sram`, with the vectors that arrive at (port, launch cycle)."""
    return Machine(unpack(data), sram.copy(), arrivals).run()


def issues(
    queue: str, instructions: tuple[Instruction, ...], released: tuple[int, ...], lanes: int
) -> Iterator[tuple[Any, ...]]:
    """(cycle, rank, queue, index, instruction, loop step, lanes) of each issue, in order.

    `released` are the cycles in which parked queues go on; a queue with none to wait for stops.
    """
    rank = RANKS.index(queue.partition(":")[0])
    cycle = 0
    for index, instruction in enumerate(instructions):
        if instruction.op in ("icu.nop", "icu.runtime_deskew"):
            cycle += instruction.args[0]
            continue
        if instruction.op == "icu.config":
            lanes = instruction.args[0]
        (n, outer, jump), (m, inner, step) = instruction.loops
        for i in range(n):
            for j in range(m):
                at = cycle + i * outer + j * inner
                yield at, rank, queue, index, instruction, i * jump + j * step, lanes
        cycle += (n - 1) * outer + (m - 1) * inner + 1
        if instruction.op == "icu.sync":
            later = [r for r in released if r >= cycle - 1 + BARRIER]
            if not later:
                return
            cycle = later[0]


def releases(queues: dict[str, tuple[Instruction, ...]]) -> tuple[int, ...]:
    """When parked queues go on: what Notifies give that are themselves so timed."""
    found: tuple[int, ...] = ()
    while True:
        every = [one for name, queue in queues.items() for one in issues(name, queue, found, 0)]
        again = tuple(sorted(one[0] + BARRIER for one in every if one[4].op == "icu.notify"))
        if again == found:
            return found
        found = again


@dataclass
class Plane:
    """One MXM plane, or a pair in fp16: weight buffer, installed array and accumulators."""

    lanes: int
    depth: int

    def __post_init__(self) -> None:
        self.empty_buffer()
        self.installed: tuple[Array, Array] | None = None
        self.accumulators: list[Array | None] = [None] * self.depth

    def empty_buffer(self) -> None:
        self.buffer = np.zeros((self.lanes, self.lanes))
        self.loaded = np.zeros(self.lanes, bool)


@dataclass
class Machine:
    program: Program
    sram: Bytes
    arrivals: Mapping[tuple[int, int], Bytes]
    sent: Packets = field(default_factory=dict)

    def __post_init__(self) -> None:
        spec = self.spec = SPECS[self.program.spec]
        shape = (2, spec.streams, spec.positions)
        self.registers = np.zeros((*shape, spec.lanes), np.uint8)
        self.valid = np.zeros(shape, bool)
        self.planes = [Plane(spec.lanes, spec.accumulator_depth) for _ in range(4)]
        self.cycle, self.every_lane = 0, np.arange(spec.lanes)
        # What falls due, by cycle: streams (code, position, bytes), ALU results, MXM products.
        self.drives: dict[int, list[tuple[int, int, Bytes]]] = defaultdict(list)
        self.alus: dict[int, dict[int, Array]] = defaultdict(dict)
        self.products: dict[int, dict[int, Array]] = defaultdict(dict)

    def start_up(self) -> None:
        """Step the start sequence by the counter: it must end where the program starts."""
        waiting, hac, cycle = list(self.program.startup), 0, 0
        pause = 0
        while waiting or pause:
            overflow = hac == self.spec.hac_period_cycles - 1
            if pause:
                pause -= 1
            elif waiting[0].op == "icu.deskew":
                if overflow:
                    waiting.pop(0)
            elif waiting[0].op == "c2c.await":
                assert cycle <= waiting[0].args[1]
                if cycle == waiting[0].args[1]:
                    waiting.pop(0)
                    continue
            elif waiting[0].op == "c2c.transmit":
                assert hac == 0
                waiting.pop(0)
            else:
                pause = waiting.pop(0).args[0] - 1
            hac, cycle = 0 if overflow else hac + 1, cycle + 1
        if cycle != self.program.start_cycle:
            raise Misread(f"started in cycle {cycle}")

    def run(self) -> Result:
        if self.program.startup:
            self.start_up()
        end = 0
        released = releases(self.program.queues)
        upcoming = merge(
            *(issues(*q, released, self.spec.lanes) for q in self.program.queues.items())
        )
        following = next(upcoming, None)
        with np.errstate(all="ignore"):
            while following is not None:
                # The registers are a ring that turns: slot (along - cycle) is at `along`.
                self.valid[:, :, -self.cycle % self.spec.positions] = False
                while following is not None and following[0] == self.cycle:
                    end = max(end, self.issue(*following[2:]))
                    following = next(upcoming, None)
                for code, position, planes in self.drives.pop(self.cycle, ()):
                    at = self.register(code, len(planes), position)
                    self.registers[at], self.valid[at] = planes, True
                self.alus.pop(self.cycle, None)
                self.products.pop(self.cycle, None)
                self.cycle += 1
        return Result(self.sram, self.sent, self.program.start_cycle + end)

    def issue(self, queue: str, at: int, instruction: Instruction, step: int, powered: int) -> int:
        """Do one issue; returns the cycle by which its result has left the last tile."""
        self.powered = self.every_lane[:powered]
        op = lookup(instruction.op)
        family, _, index = queue.partition(":")
        unit, values = int(index), list(instruction.args)
        if op.stepped is not None:
            values[op.stepped] += step
        args = {o.name: v for o, v in zip(op.operands, values, strict=True)}
        position = self.position(family, unit)
        delay = self.spec.d_func(op.timing) if op.timing else 0
        operands = [self.operand(op, i, args, position) for i in op.sources]
        for n, operand in enumerate(operands):
            operands[n] = operand.copy()
            operands[n][powered:] = 0  # dark
        if op.name == "icu.ifetch":
            self.check_fetched(self.program.queues[queue][at + 1 :], operands[0])
        due = self.cycle + delay
        result = self.compute(op, unit, args, operands, due)
        if family == "vxm":
            self.alus[due][unit] = result
        driven = args[op.operands[op.driven].name] if op.driven is not None else NO_STREAM
        if driven != NO_STREAM:
            planes = np.ascontiguousarray(result).view(np.uint8).reshape(self.spec.lanes, -1)
            self.drives[due].append((driven, position, planes.T))
        return due + self.spec.superlanes

    def compute(
        self, op: Op, unit: int, args: dict[str, int], operands: list[Array], due: int
    ) -> Array:
        """The vector an issue makes; what it does to memory and to the MXM, it does here."""
        nothing = np.zeros(0, np.uint8)
        match op.name:
            case "mem.read":
                return self.sram[unit, args["address"]].copy()
            case "mem.write":
                self.sram[unit, args["address"], self.powered] = operands[0][self.powered]
            case "mem.gather":
                words = self.addresses(args, operands[0])
                return self.padded(self.sram[unit, words, self.powered])
            case "mem.scatter":
                words = self.addresses(args, operands[0])
                self.sram[unit, words, self.powered] = operands[1][self.powered]
            case _ if op.queue == "sxm":
                numbers = [args["count"]] if "count" in args else []
                maps = [np.array(self.program.maps[args["map"]])] if "map" in args else []
                return op.function(*numbers, *maps, *(operand[None] for operand in operands))[0]
            case "c2c.receive":
                return self.arrivals[unit, self.program.start_cycle + self.cycle]
            case "c2c.send":
                self.sent[unit, self.program.start_cycle + self.cycle] = operands[0]
            case "mxm.acc":
                return self.accumulate(unit, args)
            case "mxm.abc":
                if self.planes[unit].installed is None:
                    raise Misread(f"no tile on plane {unit} in cycle {self.cycle}")
                product = integer_product if args["format"] == I8 else float_product
                x = decoded(operands[0], args["format"])
                tile, loaded = self.planes[unit].installed
                lit = self.powered
                self.products[due][unit] = product(x[lit], tile[:, lit], loaded)
            case "mxm.iw":
                plane = self.planes[unit + args["plane"] % 2 * 2]
                assert plane.loaded.sum() == args["columns"]
                plane.installed = (plane.buffer, plane.loaded)
                plane.empty_buffer()
            case "mxm.lw":
                turn, first = divmod(args["column"], self.spec.lanes)
                columns = decoded(operands[0], args["format"]).T
                plane, where = self.planes[unit + turn % 2 * 2], slice(first, first + len(columns))
                plane.buffer[where], plane.loaded[where] = columns, True
            case "icu.sync" | "icu.notify" | "icu.config" | "icu.ifetch":
                return nothing
            case _:
                return op.function(*(operand[None] for operand in operands))[0]
        return nothing

    def accumulate(self, unit: int, args: dict[str, int]) -> Array:
        if unit not in self.products[self.cycle]:
            raise Misread(f"no product on plane {unit} in cycle {self.cycle}")
        value, slots = self.products[self.cycle][unit], self.planes[unit].accumulators
        if args["mode"] == ADD and slots[args["slot"]] is None:
            raise Misread(f"nothing to add to on plane {unit} in cycle {self.cycle}")
        nothing = np.zeros_like(value)
        held = nothing if slots[args["slot"]] is None else slots[args["slot"]].view(value.dtype)
        lit = self.every_lane < len(self.powered)
        slots[args["slot"]] = np.where(lit, held + value if args["mode"] == ADD else value, held)
        return slots[args["slot"]]

    def padded(self, values: Array) -> Array:
        return np.concatenate([values, np.zeros(self.spec.lanes - len(values), values.dtype)])

    def check_fetched(self, following: tuple[Instruction, ...], vector: Bytes) -> None:
        """One vector of an Ifetch: the fingerprints of the 20 instructions behind it."""
        for number, instruction in enumerate(following[: self.spec.lanes // 16]):
            text = str(instruction).encode()
            assert vector[16 * number :][:16].tobytes() == blake2b(text, digest_size=16).digest()

    def addresses(self, args: dict[str, int], lanes: Array) -> Array:
        """Word of each lane: the first lane of its superlane has the offset into the region."""
        offsets = lanes[self.powered][:: self.spec.superlane_lanes].astype(np.int64)
        if offsets.max() >= args["words"]:
            raise OutOfRegion(f"offset {offsets.max()} in cycle {self.cycle}")
        return np.repeat(args["base"] + offsets, self.spec.superlane_lanes)

    # --- where values are -------------------------------------------------------------------
    def operand(self, op: Op, index: int, args: dict[str, int], position: int) -> Array:
        """[lanes] of the operand's type; [lanes, 16] bytes of a weight group."""
        code = args[op.operands[index].name]
        element = op.operands[index].dtype or DTYPES[args["dtype"]]
        if element == "format":
            element = FORMATS[args["format"]]
        dtype = NUMPY_TYPES[element]
        if code == IMMEDIATE:
            word = np.array(args["imm"], "<u4")
            word = word.view("<f4") if dtype.kind == "f" else word
            return np.full(self.spec.lanes, word.astype(dtype))
        if code >= ALU_BASE:
            if code - ALU_BASE not in self.alus[self.cycle]:
                raise Misread(f"ALU {code - ALU_BASE} has no result in cycle {self.cycle}")
            return self.alus[self.cycle][code - ALU_BASE]
        at = self.register(code, WIDTHS[element], position)
        if not self.valid[at].all():
            raise Misread(f"stream {code} is empty at {position} in cycle {self.cycle}")
        planes = self.registers[at].T.copy()
        return planes if element in STACKS else planes.view(dtype)[:, 0]

    def register(self, code: int, width: int, position: int) -> tuple[int, slice, int]:
        direction, stream = divmod(code, self.spec.streams)
        along = position if direction == EAST else self.spec.positions - 1 - position
        return direction, slice(stream, stream + width), (along - self.cycle) % self.spec.positions

    def position(self, family: str, unit: int) -> int:
        kind = family.partition(".")[0]
        if kind == "mem":
            return self.spec.slice_position(unit)
        if kind == "vxm":
            return self.spec.vxm_position
        side = unit // self.spec.sxm_queues if kind == "sxm" else unit % 2
        return self.spec.edge_position(kind, side)


def decoded(elements: Array, format: int) -> Array:
    """Numbers of an MXM format; of a weight group [lanes, 16] bytes, the columns of all lanes."""
    name = FORMATS[format]
    if name in ("f16", "i8"):
        return elements.view({"f16": "<f2", "i8": "i1"}[name]).astype(float)
    bits, split = elements.view(np.uint8).astype(int), {"e4m3": 3, "e5m2": 2}[name]
    bias, top = {"e4m3": (7, 15), "e5m2": (15, 31)}[name]
    sign, exponent, rest = bits >> 7, bits >> split & top, bits & (1 << split) - 1
    leading = (exponent > 0) * (1 << split)
    value = np.ldexp(leading + rest + 0.0, np.maximum(exponent, 1) - bias - split)
    if name == "e5m2":
        value = np.where(exponent == top, np.where(rest > 0, np.nan, np.inf), value)
    else:
        value = np.where((exponent == top) & (rest == 7), np.nan, value)
    return np.where(sign == 1, -value, value)


def integer_product(x: Array, tile: Array, loaded: Array) -> Array:
    """int32 [columns]: the exact sum of all products."""
    return (tile.astype(np.int64) @ x.astype(np.int64)).astype(np.int32)


def float_product(x: Array, tile: Array, loaded: Array) -> Array:
    """fp32 [columns]: exact fp16 products, summed exactly, rounded once; 0 where nothing loaded."""
    out = np.zeros(len(tile), np.float32)
    terms = tile[loaded].astype(np.float64) * x.astype(np.float64)  # 22 bits: exact
    units = np.where(np.isfinite(terms), np.ldexp(terms, 48), 0)  # integers below 2**80
    high = np.floor(np.ldexp(units, -40))
    low = units - np.ldexp(high, 40)
    highs, lows = (part.astype(np.int64).sum(axis=1).tolist() for part in (high, low))
    sums = [rounded((a << 40) + b) for a, b in zip(highs, lows, strict=True)]
    special = [special_sum(row) for row in terms]
    out[loaded] = [s if x is None else x for s, x in zip(sums, special, strict=True)]
    return out


def rounded(total: int) -> float:
    """total * 2**-48, rounded once to fp32, ties to even."""
    shift = max(abs(total).bit_length() - 24, 0)
    kept, rest = divmod(abs(total), 1 << shift)
    half = (1 << shift) >> 1
    kept += rest > half or (shift > 0 and rest == half and kept % 2)
    return float(np.ldexp(float(kept if total >= 0 else -kept), shift - 48))


def special_sum(terms: Array) -> float | None:
    """The sum of terms that are not all finite; None if they are."""
    special = terms[~np.isfinite(terms)]
    if not len(special):
        return None
    return float(special[0]) if (special == special[0]).all() else np.nan
