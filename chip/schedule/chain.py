"""Chains: instruction schedules SRAM -> units -> SRAM whose offsets the time law fixes.

A chain is written as data flow (`read`, `vxm`, `sxm`, `matmul`, `write`). Cycles are relative to
the chain; which streams, ALUs and SXM queues it takes is left open (`Need`) until it is placed.
Values are either *at rest* (`Rows`: read when and as often as a consumer wants) or *in flight*
(`Flow`: on a stream or an ALU at fixed cycles). Two flows that meet must meet in time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from chip.errors import ProgramError
from chip.isa import (
    ALU_BASE,
    DTYPES,
    IMMEDIATE,
    NO_STREAM,
    WIDTHS,
    immediate_bits,
    lookup,
)
from chip.schedule.flows import (
    ONCE,
    Access,
    Buffer,
    Doing,
    Extent,
    Flow,
    Further,
    Hold,
    Loops,
    Need,
    Piece,
    Queue,
    Rows,
    Stepped,
    Streams,
    Taken,
    dtype_of,
    pattern,
    row_span,
    span,
    stepped,
)
from chip.schedule.footprint import footprint
from chip.spec import EAST, WEST, ChipSpec

APART_ROWS = 8  # of a loop with gaps that is an instruction for each row instead


@dataclass
class Chain:
    """A set of instructions with fixed relative cycles; see the module's docstring."""

    spec: ChipSpec
    label: str
    member: int = 0
    maps: tuple[tuple[int, ...], ...] = ()  # lane maps of the program
    pieces: list[Piece] = field(default_factory=list)
    needs: list[Need] = field(default_factory=list)
    fixed: dict[Hold, list[Taken]] = field(default_factory=dict)
    member_spans: dict[int, Extent] = field(default_factory=dict)
    accesses: list[Access] = field(default_factory=list)
    values: int = 0
    footprint = cached_property(footprint)  # nothing is added to a chain that was asked for it

    @cached_property
    def where(self) -> tuple[Further, ...]:
        """Its accesses where it says that they are."""
        return tuple(Further(access.rows.buffer) for access in self.accesses)

    # --- at rest -> in flight ---------------------------------------------------------------
    def arrive(self, rows: Rows, position: int, cycle: int, loops: Loops) -> Flow:
        """Read rows so that they pass `position` from `cycle` on."""
        region = rows.buffer.region
        width = WIDTHS[region.dtype]
        first = self.spec.slice_position(region.index)
        direction = EAST if first < position else WEST
        along = self.spec.along(direction, position)
        need, name = self.stream(direction, width, cycle - along, loops), self.name()
        flow = Flow(self.member, region.dtype, loops, cycle, position, name, need, direction)
        self._read(flow, rows, cycle)
        return flow

    def follow(self, flow: Flow, rows: Rows, cycle: int) -> None:
        """Read as many other rows onto the streams of a flow, to pass its position from `cycle` on.

        To who reads these streams they are all one value.
        """
        assert flow.need is not None
        self.needs[flow.need].high += cycle - flow.cycle
        self._read(flow, rows, cycle)

    def _read(self, flow: Flow, rows: Rows, cycle: int) -> None:
        region, delay = rows.buffer.region, self.spec.d_func("mem.read")
        slices = range(region.index, region.index + WIDTHS[region.dtype])
        spots = map(self.spec.slice_position, slices)
        issues = [cycle - abs(flow.position - spot) - delay for spot in spots]
        assert flow.need is not None
        self.memory("mem.read", issues, rows, flow.loops, Streams(flow.need, flow.name))

    # --- units ------------------------------------------------------------------------------
    def vxm(
        self,
        op: str,
        *operands: "Flow | Rows | float",
        loops: Loops | None = None,
        dtype: str = "",
        at: int = 0,
    ) -> Flow:
        """One VXM instruction over flows, rows and at most one immediate.

        `dtype` is that of the first operand that is not an immediate, unless given.
        Without a flow among the operands it issues at cycle `at`, with `loops`.
        """
        spec, position = lookup(f"vxm.{op}"), self.spec.vxm_position
        flows = [o for o in operands if isinstance(o, Flow)]
        loops = flows[0].loops if flows else loops
        if loops is None:
            raise ProgramError(f"{self.label}: vxm.{op} needs loops")
        cycle = self._meet(flows, position) if flows else at
        args, names = [0] * len(spec.operands), []
        dtype = dtype or dtype_of(operands, spec)
        needs: dict[int, tuple[int, int]] = {}
        for index, operand in zip(spec.sources, operands, strict=True):
            if isinstance(operand, Rows):
                operand = self.arrive(operand, position, cycle, loops)
            if isinstance(operand, Flow):
                self._source(operand, index, args, needs)
                names.append(operand.name)
            else:
                args[index] = IMMEDIATE
                args[spec.index("imm")] = immediate_bits(operand, dtype)
                names.append(0)
        if spec.typed is not None:
            args[spec.typed] = DTYPES.index(dtype)
        driven = spec.driven
        assert driven is not None
        args[driven] = NO_STREAM
        delay, name = self.spec.d_func(spec.timing), self.name()
        # the quickest may not follow so closely that its result comes with this one's
        alu = self.queue("vxm", 0, cycle, span(loops) + delay - self.spec.quickest("vxm"))
        doing = Doing(spec.name, args, needs, [*names, name])
        piece = self.add(Queue("vxm", 0, alu), [cycle], doing, stepped(loops))
        made = spec.element(driven, tuple(args))
        return Flow(self.member, made, loops, cycle + delay, position, name, alu=alu, piece=piece)

    def twin(self, value: Flow) -> Flow:
        """A VXM result once more, from another ALU at the same time: each can go one way."""
        piece, alu = value.piece, value.alu
        assert piece is not None and alu is not None
        driven, name, need = lookup(piece.op).driven, self.name(), self.needs[alu]
        assert driven is not None
        args = [NO_STREAM if n == driven else arg for n, arg in enumerate(piece.args)]
        needs = {n: source for n, source in piece.needs.items() if n != driven}
        other = self.queue("vxm", 0, need.low, need.high - need.low)
        doing = Doing(piece.op, args, needs, [*piece.names[:-1], name])
        made = self.add(Queue("vxm", 0, other), piece.cycles, doing, stepped(value.loops))
        return replace(value, name=name, need=None, direction=None, alu=other, piece=made)

    def wait(self, value: Flow, cycle: int) -> Flow:
        """A VXM result again, as copies bring it to `cycle` or just beyond."""
        while value.cycle < cycle:
            value = self.vxm("copy", value)
        return value

    @staticmethod
    def part(value: Flow, loops: Loops, later: int) -> Flow:
        """Some iterations of a VXM result, which begin so many cycles after the first."""
        return replace(value, loops=loops, cycle=value.cycle + later)

    def sxm(
        self, op: str, lane_map: int, value: Flow, side: int, other: Flow | None = None
    ) -> Flow:
        """One SXM instruction at hemisphere `side`, of one flow or two; its result flows inward."""
        position, spec = self.spec.edge_position("sxm", side), lookup(f"sxm.{op}")
        if value.need is None:
            self.emit(value, side)
        flows = [value] if other is None else [value, other]
        issue = self._meet(flows, position)
        cycle = issue + self.spec.d_func(spec.timing)
        inward = WEST if side == EAST else EAST
        low = cycle - self.spec.along(inward, position)
        need = self.stream(inward, WIDTHS[value.dtype], low, value.loops)
        queue = self.queue("sxm", side, issue, span(value.loops))
        name, needs = self.name(), {spec.index("out"): (need, 0)}
        for operand, flow in zip(spec.sources, flows, strict=True):
            assert flow.need is not None
            needs[operand] = flow.need, 0
        args, names = [DTYPES.index(value.dtype), lane_map, 0, 0, 0], [f.name for f in flows]
        doing = Doing(spec.name, args[: len(spec.operands)], needs, [*names, name])
        self.add(Queue("sxm", side, queue), [issue], doing, stepped(value.loops))
        return Flow(self.member, value.dtype, value.loops, cycle, position, name, need, inward)

    # --- in flight -> at rest ---------------------------------------------------------------
    def emit(self, value: Flow, direction: int) -> None:
        """Put a VXM result on a stream of `direction`."""
        assert value.piece is not None and value.need is None
        low = value.cycle - self.spec.along(direction, value.position)
        value.need = self.stream(direction, WIDTHS[value.dtype], low, value.loops)
        value.direction = direction
        driven = lookup(value.piece.op).driven
        assert driven is not None
        value.piece.needs[driven] = (value.need, 0)

    def write(self, value: Flow, rows: Rows, every: int = 1, phase: int = 0) -> None:
        """Write a passing value to rows; `every` and `phase` pick some of its inner iterations."""
        region = rows.buffer.region
        first = self.spec.slice_position(region.index)
        if value.need is None:
            self.emit(value, EAST if first > value.position else WEST)
        assert value.need is not None
        if (first > value.position) != (value.direction == EAST):
            raise ProgramError(f"{self.label}: {rows.buffer.name} is upstream of its value")
        (n, outer), (m, inner) = value.loops
        loops = ((n, outer), (m // every, inner * every))
        cycle = value.cycle + phase * inner
        width = WIDTHS[region.dtype]
        spots = map(self.spec.slice_position, range(region.index, region.index + width))
        issues = [cycle + abs(spot - value.position) for spot in spots]
        self.memory("mem.write", issues, rows, loops, Streams(value.need, value.name))

    # --- bookkeeping ------------------------------------------------------------------------
    def name(self) -> int:
        self.values += 1
        return self.values

    def stream(self, direction: int, width: int, low: int, loops: Loops) -> int:
        return self._need("stream", direction, width, low, span(loops))

    def queue(self, kind: str, side: int, cycle: int, length: int) -> int:
        return self._need(kind, side, 1, cycle, length)

    def _need(self, kind: str, side: int, width: int, low: int, length: int) -> int:
        self.needs.append(Need(self.member, kind, side, width, low, low + length))
        return len(self.needs) - 1

    def hold(self, low: int, length: int, family: str, unit: int, plane: int = 0) -> None:
        """Reserve a fixed unit of this chain's chip."""
        self.take(Hold(self.member, family, unit, plane), low, length)

    def take(self, hold: Hold, low: int, length: int, pattern: int | None = None) -> None:
        """Reserve units for `length` cycles from `low` on, or for those of a pattern of bits."""
        known = self.fixed.setdefault(hold, [])
        if pattern is None and known:
            first, before, other = known[-1]
            if other is None and first + before == low:
                known[-1] = first, before + length, None
                return
        known.append((low, length, pattern))

    def memory(
        self, op: str, issues: list[int], rows: Rows, loops: Loops, streams: Streams
    ) -> None:
        """Read or write rows, one byte plane per slice, at each of `issues`.

        Each has a stream, or they take turns on the only one.
        """
        (n, _), (m, _) = loops
        if n * m <= APART_ROWS and span(loops) > n * m and not rows.buffer.any_bank:
            self.memory_apart(op, issues, rows, loops, streams)
            return
        if rows.buffer.in_turn:
            self._memory_in_turn(op, issues, rows, loops, streams)
            return
        region, family = rows.buffer.region, lookup(op).queue
        if rows.buffer.any_bank:
            banks = tuple(range(self.spec.slice_banks))
        else:
            ends = row_span(rows, loops)
            banks = tuple(sorted({self.spec.bank(region.address + row) for row in ends}))
        length = span(loops)
        if length == loops[0][0] * loops[1][0]:
            self.take(self.slices(family, rows.buffer, issues, banks), issues[0], length)
        else:  # the queue is not free between two iterations, its banks are
            self.take(self.slices(family, rows.buffer, issues, ()), issues[0], length)
            alone = self.slices("", rows.buffer, issues, banks)
            self.take(alone, issues[0], length, pattern(loops))
        args = [region.address + rows.first, 0]
        doing, mine = Doing(op, args, {}, [streams.name]), stepped(loops, rows.steps)
        spread = (1, streams.need, streams.plane)
        self.add(Queue(family, region.index), issues, doing, mine, spread)
        self.access(rows, issues, loops, writes=op == "mem.write")

    def _memory_in_turn(
        self, op: str, issues: list[int], rows: Rows, loops: Loops, streams: Streams
    ) -> None:
        """As `memory`, of rows that are in both banks in turn."""
        buffer, family, spread = rows.buffer, lookup(op).queue, (1, streams.need, streams.plane)
        for later, words, (count, interval) in rows.turns(loops):
            at, every = [issue + later for issue in issues], interval * len(words)
            mine: Loops = ((count, every), (len(words), interval))
            self.take(self.slices(family, buffer, at, ()), at[0], span(mine))
            each: Loops = ((1, 1), (count, every))
            for turn, word in enumerate(words):
                alone = self.slices("", buffer, at, (self.spec.bank(word),))
                self.take(alone, at[0] + turn * interval, span(each), pattern(each))
            doing = Doing(op, [words[0], 0], {}, [streams.name])
            steps = stepped(mine, (1, words[-1] - words[0]))
            self.add(Queue(family, buffer.region.index), at, doing, steps, spread)
        self.access(rows, issues, loops, writes=op == "mem.write")

    def slices(
        self, family: str, buffer: Buffer, issues: list[int], banks: tuple[int, ...]
    ) -> Hold:
        """The slices of a buffer, each at one of `issues`, with some of their banks."""
        offsets = tuple([issue - issues[0] for issue in issues])
        alone = buffer.name if buffer.virtual else ""
        return Hold(self.member, family, buffer.region.index, 0, offsets, banks, alone)

    def memory_apart(
        self, op: str, issues: list[int], rows: Rows, loops: Loops, streams: Streams
    ) -> None:
        """As `memory`, by an instruction per row, which leave their slices to others in between."""
        buffer, family = rows.buffer, lookup(op).queue
        first, apart = buffer.word(rows.first), rows.apart(loops)
        at: dict[int, int] = {}  # cycles in each bank
        for cycle, word in apart:
            bank = self.spec.bank(first + word)
            at[bank] = at.get(bank, 0) | 1 << cycle
        for bank, mine in at.items():
            hold = self.slices(family, rows.buffer, issues, (bank,))
            self.take(hold, issues[0], span(loops), mine)
        doing, spread = Doing(op, [first, 0], {}, [streams.name]), (1, streams.need, streams.plane)
        queue = Queue(family, buffer.region.index)
        self.add(queue, issues, doing, stepped(ONCE), spread, apart)
        self.access(rows, issues, loops, op == "mem.write", apart=True)

    def access(
        self, rows: Rows, issues: list[int], loops: Loops, writes: bool, apart: bool = False
    ) -> None:
        """Note that rows are touched, first at each of `issues` (one per byte plane).

        Planes `apart` are there, and wanted, plane by plane.
        """
        ends = min(issues), max(issues)
        self.accesses.append(
            Access(self.member, rows, loops, *ends, writes, issues if apart else ())
        )

    def _meet(self, flows: list[Flow], position: int) -> int:
        one = flows[0]
        cycle = one.cycle + abs(position - one.position)
        for other in flows[1:]:
            if other.cycle + abs(position - other.position) != cycle or other.loops != one.loops:
                cycles = {f.cycle + abs(position - f.position) for f in flows}
                raise ProgramError(f"{self.label}: values meet at cycles {sorted(cycles)}")
        return cycle

    def _source(
        self, flow: Flow, index: int, args: list[int], needs: dict[int, tuple[int, int]]
    ) -> None:
        if flow.alu is not None:
            needs[index] = (flow.alu, ALU_BASE)
        else:
            assert flow.need is not None
            needs[index] = (flow.need, 0)

    def add(
        self,
        queue: Queue,
        cycles: Sequence[int],
        doing: Doing,
        loops: Stepped,
        spread: tuple[int, int, int] | None = None,
        apart: Sequence[tuple[int, int]] = ((0, 0),),
    ) -> Piece:
        """Note an instruction, or one each of those `apart`; see Piece."""
        spec, (family, unit, _), (op, args, needs, names) = self.spec, queue, doing
        how = loops, spread, apart
        piece = Piece(self.member, *queue, cycles, op, args, needs, names, *how)
        piece.access = len(self.accesses)
        self.pieces.append(piece)
        if family != "vxm":
            for number in (*(need for need, _ in needs.values()), *((spread or ())[1:2])):
                self.needs[number].passes(family, unit, spec.hemisphere_slices)
        (n, outer, _), (m, inner, _) = loops
        timing = lookup(op).timing
        last = (n - 1) * outer + (m - 1) * inner + apart[-1][0]
        if timing:
            last += spec.d_func(timing)
        first, end = min(cycles), max(cycles) + last
        extent = self.member_spans.get(self.member)
        if extent is None:
            extent = self.member_spans[self.member] = Extent(first, end)
        extent.first = min(extent.first, first)
        extent.end = max(extent.end, end)
        extent.instructions += len(cycles) * len(apart)
        return piece
