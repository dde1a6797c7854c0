"""Matrix products: weights stream in as columns, activations through them, sums into accumulators.

A matmul is one chain of passes on one hemisphere. In a pass every tile of a run meets the same
activations: LW of the next tile overlaps ABC of the current one (the weight buffer is the second
half of a double buffer), so a tile costs max(load cycles, streaming cycles): 40 and 2 x activations
in fp16, 20 and one more than the activations in int8. int8 tiles may go to the two planes of the
side in turn, so that the planes share the streaming. Activations of 16 bits go through each tile as
two halves in int8.
"""

from dataclasses import dataclass, field, replace

from chip.isa import FORMATS, NO_STREAM, SUMS
from chip.isa.mxm import ADD, PLANES, SET
from chip.kernels.integers16 import LowHalves
from chip.program import word_columns
from chip.schedule import Buffer, Chain, Flow, Loops, Rows, run
from chip.schedule.flows import Doing, Queue, Streams, stepped
from chip.schedule.indirect import addresses, gather
from chip.spec import EAST, WEST, ChipSpec


@dataclass(frozen=True)
class Gathered:
    """Weights of one of many matrices, each of `words` words: which one is data.

    Its `number` is in all lanes; `counted` holds rows of 0, 1, 2, ...
    """

    number: Rows
    counted: Buffer
    words: int


@dataclass(frozen=True)
class More:
    """Words of columns that a tile has beside its own, at array columns `column`.."""

    weights: Buffer
    words: int
    column: int


@dataclass(frozen=True)
class Pass:
    """`tiles` tiles of `words` words of columns each, from word `word` of `weights` on, at array
    columns `column`..; `activations` are rows of the weights' type, `count` of them for each tile.

    Products go to accumulators `slot` + tile * count + activation: set or added (`first`), and
    leave the array if `last`. A single tile may meet `lines` x `count` activations, one outer step
    of the rows from line to line. With a `copy` of the activations, which int8 only can use, odd
    tiles are the second plane's: it takes the copy, and both planes count their own tiles from 0.
    With a `plane`, in int8, all is on that plane, and the other one is free for other chains; these
    find room for their weights in between if `least_cycles` from tile to tile are the same in both.
    Words are those of one matrix of many, if they are `gathered`. A single tile may have `more`
    columns from elsewhere. With `low` halves there are twice as many activations and accumulators:
    those of the upper halves, then those of the lower ones. A pass whose sums leave has one tile
    then, or one token.
    """

    weights: Buffer
    word: int
    tiles: int
    words: int
    activations: Rows
    count: int
    column: int = 0
    slot: int = 0
    first: bool = True
    last: bool = True
    slot_steps: tuple[int, int] | None = None
    copy: Rows | None = None
    lines: int = 1
    plane: int | None = None
    least_cycles: int = 0
    gathered: Gathered | None = None
    more: More | None = None
    low: LowHalves | None = None

    @property
    def load_cycles(self) -> int:
        """Cycles in which a tile is loaded."""
        return self.words + (self.more.words if self.more else 0)

    @property
    def sums(self) -> int:
        """Accumulators of a tile."""
        return 2 * self.count if self.low else self.count

    @property
    def format(self) -> str:
        return self.weights.region.dtype

    @property
    def planes(self) -> int:
        """Planes that tiles go to in turn."""
        return PLANES if self.copy else 1

    def streaming_cycles(self, spec: ChipSpec) -> int:
        """Cycles from the IW of a tile to the next one on its plane, at least."""
        cycles = self.interval(spec) * self.count * self.lines
        if self.low:
            cycles = self.low.streaming_cycles(self.count, self.last)
        return max(cycles + (self.format != "f16"), self.least_cycles)

    def interval(self, spec: ChipSpec) -> int:
        """Cycles between two activations of a plane."""
        return spec.abc_interval_fp16 if self.format == "f16" else 1

    def period_cycles(self, spec: ChipSpec) -> int:
        """Cycles from a tile to the next."""
        return max(self.load_cycles, -(-self.streaming_cycles(spec) // self.planes))

    def on_plane(self, plane: int) -> int:
        """How many of the tiles go to a plane."""
        return -(-(self.tiles - plane) // self.planes) if plane < self.planes else 0


@dataclass
class _Clock:
    """Where the arrays stand: earliest next LW, the end of each plane's streaming."""

    load: int = 0
    busy_until: list[int] = field(default_factory=lambda: [0] * PLANES)


def matmul(chain: Chain, side: int, passes: list[Pass], begin: int = 0) -> list[Flow]:
    """Add the passes to the chain; the flows that leave the MXM, as sums (fp32, or int32 of int8).

    There is one per `last` pass and plane. The first LW is at cycle `begin`. Activations of a first
    pass come as late as its next tile lets them, so that two tiles are there before anybody has
    made them.
    """
    clock, flows, starts = _Clock(begin), [], []
    for number, part in enumerate(passes):
        more = number == 0 and len(passes) > 1 and part.planes == 1 and part.plane is None
        late = part.period_cycles(chain.spec) - part.streaming_cycles(chain.spec) if more else 0
        load = _first_load(part, clock, chain.spec)
        period = part.period_cycles(chain.spec)
        starts.append(load)
        _load_weights(chain, side, part, load, period)
        for plane in range(part.planes):
            if part.on_plane(plane):
                install = load + part.load_cycles + plane * period
                start = install + 1 + late
                if part.low:
                    flows += _stream_halves(chain, side, part, part.low, start, period)
                elif flow := _stream_activations(chain, side, plane, part, start, period):
                    flows.append(flow)
                last = install + late + (part.on_plane(plane) - 1) * period * part.planes
                clock.busy_until[plane] = last + part.streaming_cycles(chain.spec)
        if part.plane is not None:
            chain.hold(load, part.words, "mxm.lw", side)
            chain.hold(load + part.words, 1, "mxm.iw", side)
        clock.load = load + (part.tiles - 1) * period + part.load_cycles
    used = passes[0].plane
    planes = tuple(range(PLANES)) if used is None else (used,)
    _hold(chain, side, starts[0], starts[0] + passes[0].load_cycles, clock, planes)
    return flows


def hold(chain: Chain, what: str, side: int, planes: tuple[int, ...], low: int, end: int) -> None:
    """Reserve the "buffer", "array" or "acc" of planes of a side."""
    for plane in planes:
        chain.hold(low, end - low, f"mxm.{what}", side, plane)


def _hold(
    chain: Chain, side: int, load: int, install: int, clock: _Clock, planes: tuple[int, ...]
) -> None:
    """Reserve weight buffers, arrays and accumulators."""
    end, delay = max(clock.busy_until), chain.spec.d_func("mxm.abc")
    hold(chain, "buffer", side, planes, load, clock.load)
    hold(chain, "array", side, planes, install, end)
    hold(chain, "acc", side, planes, install + 1 + delay, end + delay)


def _first_load(part: Pass, clock: _Clock, spec: ChipSpec) -> int:
    """Cycle of the first LW of a pass that follows what the clock says."""
    ready = [
        busy - part.load_cycles - plane * part.period_cycles(spec)
        for plane, busy in enumerate(clock.busy_until)
        if busy and part.on_plane(plane)
    ]
    return max(clock.load, *ready) if ready else clock.load


def _load_weights(chain: Chain, side: int, part: Pass, load: int, period: int) -> None:
    spec = chain.spec
    loops: Loops = ((part.tiles, period), (part.words, 1))
    need, name = (_gathered if part.gathered else _read)(chain, side, part, load, loops)
    group, kind, turn = word_columns(part.format), FORMATS.index(part.format), part.planes - 1
    plane = part.plane or 0
    lw, steps = [kind, part.column + plane * spec.lanes, 0], (turn * spec.lanes, group)
    needs = {2: (need, 0)}
    chain.add(
        Queue("mxm.lw", side), [load], Doing("mxm.lw", lw, needs, [name]), stepped(loops, steps)
    )
    if part.more:
        more = part.more
        then = replace(part, weights=more.weights, word=0, words=more.words, more=None)
        one: Loops = ((1, 1), (more.words, 1))
        need, name = _read(chain, side, then, load + part.words, one)
        doing = Doing("mxm.lw", [kind, more.column, 0], {2: (need, 0)}, [name])
        chain.add(Queue("mxm.lw", side), [load + part.words], doing, stepped(one, (0, group)))
    once: Loops = ((part.tiles, period), (1, 1))
    iw, at = [kind, plane, part.load_cycles * group], load + part.load_cycles
    chain.add(Queue("mxm.iw", side), [at], Doing("mxm.iw", iw, {}, []), stepped(once, (turn, 0)))


def _read(chain: Chain, side: int, part: Pass, load: int, loops: Loops) -> tuple[int, int]:
    """Read words so that they are at the MXM from cycle `load` on: their streams and name."""
    spec, direction = chain.spec, EAST if side == EAST else WEST
    position = spec.edge_position("mxm", side)
    low = load - spec.along(direction, position)
    need = chain.stream(direction, spec.lw_streams, low, loops)
    name, delay = chain.name(), spec.d_func("mem.read")
    parts = _parts(part)
    each = spec.lw_streams // len(parts)
    for number, (buffer, word) in enumerate(parts):
        first = buffer.region.index
        spots = map(spec.slice_position, range(first, first + each))
        issues = [load - abs(position - spot) - delay for spot in spots]
        rows = Rows(buffer, word, (part.words, 1))
        chain.memory("mem.read", issues, rows, loops, Streams(need, name, number * each))
    return need, name


def _gathered(chain: Chain, side: int, part: Pass, load: int, loops: Loops) -> tuple[int, int]:
    """The same for words of the matrix that a number names."""
    spec, own = chain.spec, part.gathered
    assert own is not None
    position = spec.edge_position("mxm", side)
    ready = load - spec.d_func("mem.gather") - abs(position - spec.vxm_position)
    weights, counted = part.weights, Rows(own.counted, 0, (part.words, 1))
    pitch = weights.stretch(part.word).words if weights.stretches else own.words
    words = addresses(chain, own.number, pitch, counted, loops, ready)
    flow = gather(chain, _parts(part), words, position, side)
    assert flow.need is not None
    return flow.need, flow.name


def _parts(part: Pass) -> tuple[tuple[Buffer, int], ...]:
    """Where the first word of a pass lies, or each fourth of it: a buffer, and its row there."""
    weights = part.weights
    return weights.quads(part.word) if weights.stretches else ((weights, part.word),)


def _stream_activations(
    chain: Chain, side: int, plane: int, part: Pass, start: int, period: int
) -> Flow | None:
    spec, unit = chain.spec, side + 2 * (plane + (part.plane or 0))
    tiles = (part.on_plane(plane), period * part.planes)
    interval = part.interval(spec)
    lines = (part.lines, part.count * interval) if part.lines > 1 else tiles
    loops: Loops = (lines, (part.count, interval))
    flow = chain.arrive(_activations(part, plane), spec.edge_position("mxm", side), start, loops)
    return _multiply(chain, unit, part, flow, part.slot_steps or (part.count, 1))


def _stream_halves(
    chain: Chain, side: int, part: Pass, low: LowHalves, start: int, period: int
) -> list[Flow]:
    """Upper and lower halves: of all tokens in turn, or, where sums leave, group by group."""
    position, count, tiles = chain.spec.edge_position("mxm", side), part.count, (part.tiles, period)
    assert part.planes == 1 and part.lines == 1 and part.plane is None

    def meet(
        first: int, each: Loops, both: Loops, later: int, steps: tuple[int, int]
    ) -> Flow | None:
        flow = chain.arrive(part.activations.behind(first), position, start, each)
        chain.follow(flow, low.rows.behind(first), start + later)
        mine = replace(part, slot=part.slot + first)
        return _multiply(chain, side, mine, replace(flow, loops=both), steps)

    if not part.last:
        meet(0, (tiles, (count, 1)), (tiles, (2 * count, 1)), count, (2 * count, 1))
        return []
    gap, flows = low.gap_cycles, []
    if count == 1:
        flows.append(meet(0, (tiles, (1, 1)), (tiles, (2, gap)), gap, (2, 1)))
    else:
        assert part.tiles == 1, "sums of some tokens leave tile by tile"
        for first in low.groups(count):
            some = min(gap, count - first)
            flows.append(meet(first, run(some), ((2, gap), (some, 1)), gap, (count, 1)))
            start += gap + some
    return [flow for flow in flows if flow]


def _multiply(
    chain: Chain, unit: int, part: Pass, flow: Flow, steps: tuple[int, int]
) -> Flow | None:
    """Products with what comes to the array, and their sums: these are a flow if they leave."""
    spec, loops, start, position = chain.spec, flow.loops, flow.cycle, flow.position
    assert flow.need is not None
    needs, kind, names = {1: (flow.need, 0)}, FORMATS.index(part.format), [flow.name, 0]
    chain.add(
        Queue("mxm.abc", unit), [start], Doing("mxm.abc", [kind, 0], needs, names), stepped(loops)
    )
    at = start + spec.d_func("mxm.abc")
    args = [kind, SET if part.first else ADD, part.slot, NO_STREAM]
    if not part.last:
        chain.add(
            Queue("mxm.acc", unit), [at], Doing("mxm.acc", args, {}, [0]), stepped(loops, steps)
        )
        return None
    out_at = at + spec.d_func("mxm.acc")
    inward = WEST if flow.direction == EAST else EAST
    low = out_at - spec.along(inward, position)
    need, name = chain.stream(inward, 4, low, loops), chain.name()
    chain.add(
        Queue("mxm.acc", unit),
        [at],
        Doing("mxm.acc", args, {3: (need, 0)}, [name]),
        stepped(loops, steps),
    )
    return Flow(chain.member, SUMS[part.format], loops, out_at, position, name, need, inward)


def _activations(part: Pass, plane: int) -> Rows:
    """Rows that a plane's tiles meet."""
    rows = part.copy if plane and part.copy else part.activations
    outer, inner = rows.steps
    return Rows(rows.buffer, rows.first + plane * outer, (part.planes * outer, inner))
