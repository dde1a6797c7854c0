"""int8 convolution: one matrix product per tap, all of them added up in the accumulators.

The activations of a tap are the pixels of the image moved by it, which the two loops of a read
reach as they stand: im2col without copies. Sums are scaled, a residual may be added, and rounded to
int8 again on their way back to SRAM.
"""

from dataclasses import dataclass, replace

from chip.isa.mxm import PLANES
from chip.kernels.feature_map import CHANNEL_GROUP, FeatureMap
from chip.kernels.matmul import Pass, matmul
from chip.schedule import Buffer, Chain, Flow, Rows, Schedule
from chip.spec import EAST, WEST


@dataclass(frozen=True)
class Convolution:
    """Weights [out, in, taps, taps] at rest on both sides, and the image they meet.

    Column order: output block, tap (y, then x), input block. `scale` brings its sums to the units
    of int8.
    """

    weights: tuple[Buffer, Buffer]
    taps: int
    stride: int
    scale: float
    relu: bool = True


def convolve(
    plan: Schedule,
    what: Convolution,
    source: FeatureMap,
    out: FeatureMap,
    residual: FeatureMap | None = None,
) -> None:
    """out = int8(relu(convolution of source + residual)), both halves.

    Where the source has a copy, chains go to the two planes of a side in turn.
    """
    label = f"{what.taps} x {what.taps} convolutions at {out.height} x {out.width}"
    for side in (EAST, WEST):
        lines, turn = out.lines(side), 0
        most = max(1, plan.spec.accumulator_depth // out.width)
        if source.copies:
            most = min(most, max(1, -(-len(lines) // PLANES)))
        for start in range(lines.start, lines.stop, most):
            part = range(start, min(start + most, lines.stop))
            for block in range(out.channels.count):
                chain, plane = Chain(plan.spec, label), turn % PLANES if source.copies else None
                flow = _products(chain, side, what, source, out, part, block, plane)
                turn += 1
                value = _finish(chain, side, flow, what, residual, part, block)
                _store(chain, side, value, out, part, block)
                plan.place(chain)


def _products(
    chain: Chain,
    side: int,
    what: Convolution,
    source: FeatureMap,
    out: FeatureMap,
    part: range,
    block: int,
    plane: int | None,
) -> Flow:
    """int32 sums of the taps, for the lines of `part`."""
    halves = source.copies if plane and source.copies else source.halves
    words = out.channels.width // CHANNEL_GROUP
    reach = what.taps // 2
    steps = (what.stride * source.pitch, what.stride)
    places = [(tap, inner) for tap in range(what.taps**2) for inner in range(source.channels.count)]
    passes = []
    for number, (tap, inner) in enumerate(places):
        y, x = tap // what.taps - reach, tap % what.taps - reach
        first = source.row(side, part.start * what.stride + y, x)
        passes.append(
            Pass(
                what.weights[side],
                (block * len(places) + number) * words,
                1,
                words,
                Rows(halves[side][inner], first, steps),
                out.width,
                first=number == 0,
                last=number == len(places) - 1,
                lines=len(part),
                plane=plane,
            )
        )
    (flow,) = matmul(chain, side, passes)
    return flow


def _finish(
    chain: Chain,
    side: int,
    flow: Flow,
    what: Convolution,
    residual: FeatureMap | None,
    part: range,
    block: int,
) -> Flow:
    """Scaled sums, and the residual, rounded to int8."""
    value = chain.vxm("to_f32", flow, dtype="i32")
    value = chain.vxm("mul", value, what.scale)
    if residual is not None:
        spec = chain.spec
        early = value.cycle - spec.d_func("vxm.convert")
        first = residual.row(side, part.start, 0)
        rows = Rows(residual.halves[side][block], first, (residual.pitch, 1))
        kept = chain.arrive(rows, spec.vxm_position, early, flow.loops)
        kept = chain.vxm("to_f32", kept, dtype="i8")
        value = chain.vxm("add", value, kept)
    if what.relu:
        value = chain.vxm("max", value, 0.0)
    return chain.vxm("to_i8", value)


def _store(chain: Chain, side: int, value: Flow, out: FeatureMap, part: range, block: int) -> None:
    """Write lines to their half, and a line at the cut to the other half as well."""
    for buffer in out.all_of(side, block):
        chain.write(value, Rows(buffer, out.row(side, part.start, 0), (out.pitch, 1)))
    other = WEST if side == EAST else EAST
    border = out.lines(side)[-1 if side == EAST else 0]
    if border not in part or len(out.lines(other)) == 0:
        return
    again = chain.vxm("copy", value, dtype="i8")
    chain.emit(again, other)
    pitch, inner = again.loops[0][1], again.loops[1]
    cycle = again.cycle + (border - part.start) * pitch
    line = replace(again, loops=((1, pitch), inner), cycle=cycle)
    for buffer in out.all_of(other, block):
        chain.write(line, Rows(buffer, out.row(other, border, 0), (out.pitch, 1)))
