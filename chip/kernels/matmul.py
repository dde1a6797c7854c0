"""Matrix products: weights stream in as columns, activations through them, sums into accumulators.

A matmul is one chain of passes on one hemisphere. In a pass every tile of a run meets the same
activations: LW of the next tile overlaps ABC of the current one (the weight buffer is the second
half of a double buffer), so a tile costs max(load cycles, 2 x activations).
"""

from dataclasses import dataclass

from chip.isa import FORMATS, NO_STREAM
from chip.isa.mxm import ADD, SET
from chip.program import COLUMN_PAIRS
from chip.schedule import Buffer, Chain, Flow, Loops, Rows
from chip.spec import EAST, WEST

F16 = FORMATS.index("f16")


@dataclass(frozen=True)
class Pass:
    """`tiles` tiles of `words` x 8 columns each, from word `word` of `weights` on, at array
    columns `column`..; `activations` are rows of fp16, `count` of them for each tile.

    Products go to accumulators `slot` + tile * count + activation: set or added (`first`), and
    leave the array if `last`.
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


@dataclass
class _Clock:
    """Where the array stands: earliest next LW, and the last IW with its activations."""

    load: int = 0
    install: int | None = None
    busy_until: int = 0


def matmul(chain: Chain, side: int, passes: list[Pass]) -> list[Flow]:
    """Add the passes to the chain; the flows that leave the MXM, one per `last` pass, as fp32."""
    clock = _Clock()
    flows = []
    first_load = first_install = first_stream = None
    for part in passes:
        load, install, period = _times(part, clock, chain.spec.abc_interval_fp16)
        first_load = load if first_load is None else first_load
        first_install = install if first_install is None else first_install
        first_stream = install + 1 if first_stream is None else first_stream
        _load_weights(chain, side, part, load, install, period)
        flow = _stream_activations(chain, side, part, install + 1, period)
        if flow is not None:
            flows.append(flow)
        last_install = install + (part.tiles - 1) * period
        clock = _Clock(
            load + (part.tiles - 1) * period + part.words,
            last_install,
            last_install + chain.spec.abc_interval_fp16 * part.count,
        )
    assert first_load is not None and first_install is not None and clock.install is not None
    assert first_stream is not None
    chain.hold(first_load, clock.install - first_load, "mxm.buffer", side)
    chain.hold(first_install, clock.busy_until - first_install, "mxm.array", side)
    delay = chain.spec.d_func("mxm.abc")
    chain.hold(first_stream + delay, clock.busy_until - first_stream, "mxm.acc", side)
    return flows


def _times(part: Pass, clock: _Clock, interval: int) -> tuple[int, int, int]:
    """(first LW, first IW, cycles per tile) of a pass that follows what the clock says."""
    period = max(part.words, interval * part.count)
    load = clock.load
    if clock.install is not None:
        load = max(load, clock.busy_until - part.words)
    return load, load + part.words, period


def _load_weights(
    chain: Chain, side: int, part: Pass, load: int, install: int, period: int
) -> None:
    spec, region = chain.spec, part.weights.region
    direction = EAST if side == EAST else WEST
    position = spec.edge_position("mxm", side)
    loops: Loops = ((part.tiles, period), (part.words, 1))
    rows = Rows(part.weights, part.word, (part.words, 1))
    low = load - spec.along(direction, position)
    need = chain.stream(direction, spec.lw_streams, low, loops)
    name, delay = chain.name(), spec.d_func("mem.read")
    issues = []
    for plane in range(spec.lw_streams):
        index = region.index + plane
        issues.append(load - abs(position - spec.slice_position(index)) - delay)
        chain.memory("mem.r", index, issues[-1], rows, loops)
        args = [region.address + part.word, 0]
        needs = {1: (need, plane)}
        chain.add_piece(
            "mem.r", index, None, issues[-1], "mem.read", args, needs, loops, [name], rows.steps
        )
    chain.access(rows, issues, loops, writes=False)
    lw = [F16, part.column, 0]
    steps = (0, COLUMN_PAIRS)
    chain.add_piece("mxm.lw", side, None, load, "mxm.lw", lw, {2: (need, 0)}, loops, [name], steps)
    once: Loops = ((part.tiles, period), (1, 1))
    columns = [F16, 0, part.words * COLUMN_PAIRS]
    chain.add_piece("mxm.iw", side, None, install, "mxm.iw", columns, {}, once, [])


def _stream_activations(
    chain: Chain, side: int, part: Pass, start: int, period: int
) -> Flow | None:
    spec = chain.spec
    position = spec.edge_position("mxm", side)
    loops: Loops = ((part.tiles, period), (part.count, spec.abc_interval_fp16))
    flow = chain.arrive(part.activations, position, start, loops)
    assert flow.need is not None
    needs = {1: (flow.need, 0)}
    chain.add_piece("mxm.abc", side, None, start, "mxm.abc", [F16, 0], needs, loops, [flow.name, 0])
    at = start + spec.d_func("mxm.abc")
    args = [F16, SET if part.first else ADD, part.slot, NO_STREAM]
    steps = part.slot_steps or (part.count, 1)
    if not part.last:
        chain.add_piece("mxm.acc", side, None, at, "mxm.acc", args, {}, loops, [0], steps)
        return None
    out_at = at + spec.d_func("mxm.acc")
    inward = WEST if side == EAST else EAST
    low = out_at - spec.along(inward, position)
    need, name = chain.stream(inward, 4, low, loops), chain.name()
    chain.add_piece(
        "mxm.acc", side, None, at, "mxm.acc", args, {3: (need, 0)}, loops, [name], steps
    )
    return Flow(chain.member, "f32", loops, out_at, position, name, need, inward)
