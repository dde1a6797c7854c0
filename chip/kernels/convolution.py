"""int8 convolution: one matrix product per tap, all of them added up in the accumulators.

The activations of a tap are the pixels of the image moved by it, which the two loops of a read
reach as they stand: im2col without copies. Where an image has few channels, those of neighbours in
a line are laid side by side first, so that one product does several taps. Sums are scaled, a
residual may be added, and rounded to int8 again on their way back to SRAM.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

from chip.isa.mxm import PLANES
from chip.kernels.feature_map import CHANNEL_GROUP, Band, FeatureMap
from chip.kernels.lanes import LaneMap
from chip.kernels.matmul import Pass, matmul
from chip.schedule import Buffer, Chain, Flow, Rows, Schedule, over
from chip.spec import EAST, WEST

BUSY = 4 * PLANES  # chains of both planes keep in step where tiles take so many loads or fewer
MOST_BESIDE = 3  # taps of a line in a word: those from far reach a side's SXM, and one more


@dataclass(frozen=True)
class Convolution:
    """Weights [out, in, taps, taps] at rest on both sides, and the image they meet.

    Column order: output block, tap (y, then those of `reads`), input block. `scale` brings its sums
    to the units of int8.
    """

    weights: tuple[Buffer, Buffer]
    taps: int
    stride: int
    scale: float
    relu: bool = True


def reads(taps: int, beside: int) -> tuple[tuple[int, range], ...]:
    """Which words of a line a pixel's products read, and which taps each of them is for.

    Word x holds the pixels from x on, or from x - taps // 2 on if there are several `beside`.
    """
    lead = 0 if beside > 1 else taps // 2
    starts = [min(tap, taps - beside) for tap in range(0, taps, beside)]
    return tuple(
        (start - lead, range(max(start, number * beside), start + beside))
        for number, start in enumerate(starts)
    )


def convolve(
    plan: Schedule,
    what: Convolution,
    source: FeatureMap,
    out: FeatureMap,
    residual: FeatureMap | None = None,
) -> None:
    """out = int8(relu(convolution of source + residual)), in all bands.

    Each plane has bands of its own, or chains go to the two planes of a side in turn.
    """
    label = f"{what.taps} x {what.taps} convolutions at {out.height} x {out.width}"
    for side in (EAST, WEST):
        turn, own = 0, len(source.of_side(side)) > 1
        parts = tuple(_parts(plan, what, source, out, side))
        pace = _pace(out, parts)
        for lines in parts:
            origin = source.band_of(lines.start * what.stride)
            for block in range(out.channels.count):
                plane = source.of_side(side).index(origin) if own else turn % PLANES
                chain, turn = Chain(plan.spec, label), turn + 1
                part = _Part(lines, block, origin, 0 if own else plane, plane, pace)
                value = _finish(
                    chain, _products(chain, what, source, out, part), what, residual, part
                )
                _store(chain, value, out, part)
                plan.place(chain)


@dataclass(frozen=True)
class _Part:
    """What a chain makes: lines of a block of channels, on a plane, from a copy of a band.

    From tile to tile it takes `pace` cycles at least.
    """

    lines: range
    block: int
    origin: Band
    copy: int
    plane: int
    pace: int


def _pace(out: FeatureMap, parts: Sequence[range]) -> int:
    """Cycles from tile to tile in all chains, where weights take much of them; else any."""
    words = out.channels.width // CHANNEL_GROUP
    pixels = max((len(part) * out.width + 1 for part in parts), default=0)
    return max(pixels, PLANES * words) if pixels < BUSY * words else 0


def _parts(
    plan: Schedule, what: Convolution, source: FeatureMap, out: FeatureMap, side: int
) -> Iterator[range]:
    """Lines of a chain: in one band, here and there, and no more than accumulators hold.

    Bands take turns, as the planes do.
    """
    queues = []
    for band in out.of_side(side):
        by_origin = groupby(band.lines, lambda y: source.band_of(y * what.stride).lines)
        for _, lines in by_origin:
            mine = list(lines)
            queues.append(list(_even(plan, what, source, out, range(mine[0], mine[-1] + 1))))
    for number in range(max(map(len, queues), default=0)):
        yield from (queue[number] for queue in queues if number < len(queue))


def _even(
    plan: Schedule, what: Convolution, source: FeatureMap, out: FeatureMap, lines: range
) -> Iterator[range]:
    """Even parts of lines: the fewest, unless two planes in turn are done earlier with more."""
    least = -(-len(lines) // max(1, plan.spec.accumulator_depth // out.width))
    words = out.channels.width // CHANNEL_GROUP
    in_turn = len(source.of_side(source.band_of(lines[0] * what.stride).side)) == 1

    def cycles(parts: int) -> int:
        chains, pixels = parts * out.channels.count, -(-len(lines) // parts) * out.width
        return max(-(-chains // PLANES) * (pixels + 1), chains * words)

    count = least
    if in_turn:
        count = min(range(least, min(least + PLANES, len(lines) + 1)), key=cycles)
    bounds = [lines.start + len(lines) * n // count for n in range(count + 1)]
    yield from (range(a, b) for a, b in pairwise(bounds))


def _products(
    chain: Chain, what: Convolution, source: FeatureMap, out: FeatureMap, part: _Part
) -> Flow:
    """int32 sums of the taps."""
    band, words = part.origin, out.channels.width // CHANNEL_GROUP
    steps = (what.stride * band.pitch, what.stride)
    places = [
        (y - what.taps // 2, x, inner)
        for y in range(what.taps)
        for x, _ in reads(what.taps, source.beside)
        for inner in range(source.channels.count)
    ]
    passes = []
    for number, (y, x, inner) in enumerate(places):
        first = band.row(part.lines.start * what.stride + y, x)
        passes.append(
            Pass(
                what.weights[band.side],
                (part.block * len(places) + number) * words,
                1,
                words,
                Rows(band.copies[part.copy][inner], first, steps),
                out.width,
                first=number == 0,
                last=number == len(places) - 1,
                lines=len(part.lines),
                plane=part.plane,
                least_cycles=part.pace,
            )
        )
    (flow,) = matmul(chain, band.side, passes)
    return flow


def _finish(
    chain: Chain, flow: Flow, what: Convolution, residual: FeatureMap | None, part: _Part
) -> Flow:
    """Scaled sums, and the residual, rounded to int8."""
    value = chain.vxm("to_f32", flow, dtype="i32")
    value = chain.vxm("mul", value, what.scale)
    if residual is not None:
        spec, kept = chain.spec, residual.band_of(part.lines.start)
        early = value.cycle - spec.d_func("vxm.convert")
        added = kept.copies[part.plane % len(kept.copies)][part.block]
        rows = Rows(added, kept.row(part.lines.start, 0), (kept.pitch, 1))
        before = chain.arrive(rows, spec.vxm_position, early, flow.loops)
        value = chain.vxm("add", value, chain.vxm("to_f32", before, dtype="i8"))
    if what.relu:
        value = chain.vxm("max", value, 0.0)
    return chain.vxm("to_i8", value)


def _store(chain: Chain, value: Flow, out: FeatureMap, part: _Part) -> None:
    """Write lines to their band, and those at a cut to the next band as well."""
    lines, band = part.lines, out.band_of(part.lines.start)
    for copy in band.copies:
        chain.write(value, Rows(copy[part.block], band.row(lines.start, 0), (band.pitch, 1)))
    if not out.bordered:
        return
    number = out.bands.index(band)
    for other, line in ((number - 1, band.lines[0]), (number + 1, band.lines[-1])):
        if line not in lines or not 0 <= other < len(out.bands):
            continue
        if out.beside == 1 or out.bands[other].side != band.side:
            pitch = value.loops[0][1]
            cycle = value.cycle + (line - lines.start) * pitch
            one = replace(value, loops=((1, pitch), value.loops[1]), cycle=cycle)
            _store_line(chain, one, out.bands[other], line, part.block)


def _store_line(chain: Chain, value: Flow, band: Band, line: int, block: int) -> None:
    """Write a line to a band; a copy of it goes to the other side."""
    target = band.copies[0][block].region.index
    toward = EAST if target < chain.spec.hemisphere_slices else WEST
    if value.direction != toward:
        value = chain.vxm("copy", value, dtype="i8")
    for copy in band.copies:
        chain.write(value, Rows(copy[block], band.row(line, 0), (band.pitch, 1)))


# --- taps side by side ----------------------------------------------------------------------------
def beside_maps(width: int, lanes: int) -> tuple[LaneMap, ...]:
    """Choices of lanes: what is behind the first group of `width` lanes, behind the second."""
    return tuple(
        tuple(int(lane >= group * width) for lane in range(lanes))
        for group in range(1, MOST_BESIDE)
    )


def lay_beside(plan: Schedule, first_map: int, source: FeatureMap, out: FeatureMap) -> None:
    """Lay neighbours of a line side by side: word x of `out` has x - 1, x (and x + 1) of `source`.

    Each word of the source holds its pixel in all places; the SXM picks a place from each of its
    copies, for a third one on the other side of the chip first.
    """
    most = max(1, plan.spec.accumulator_depth // out.width)
    for target in out.bands:
        inside = range(max(0, target.lines.start - 1), min(out.height, target.lines.stop + 1))
        for band, lines in _by_band(source.of_side(target.side), inside):
            for start in range(lines.start, lines.stop, most):
                part = range(start, min(start + most, lines.stop))
                chain = Chain(plan.spec, f"taps side by side at {out.height} x {out.width}")
                _lay_part(chain, first_map, band, target, part, out.beside)
                plan.place(chain)


def _by_band(bands: tuple[Band, ...], lines: range) -> Iterator[tuple[Band, range]]:
    """Lines by the band they rest in; those of the other side are around the first or the last."""
    for number, band in enumerate(bands):
        first = band.lines.start if number else lines.start
        end = band.lines.stop if number < len(bands) - 1 else lines.stop
        mine = range(max(first, lines.start), min(end, lines.stop))
        if mine:
            yield band, mine


def _lay_part(
    chain: Chain, first_map: int, band: Band, target: Band, part: range, beside: int
) -> None:
    """One chain: lines of a band."""
    near, loops = band.side, over(band.width, len(part))
    sides = (near,) if beside == 2 else (EAST + WEST - near, near)
    edges = [chain.spec.edge_position("sxm", side) for side in sides]

    def moved(number: int, edge: int, cycle: int) -> Flow:
        first = band.row(part.start, number - 1)
        rows = Rows(band.copies[number][0], first, (band.pitch, 1))
        return chain.arrive(rows, edge, cycle, loops)

    value = moved(0, edges[0], 0)
    for number, (side, edge) in enumerate(zip(sides, edges, strict=True), 1):
        other = moved(number, edge, value.cycle + abs(edge - value.position))
        value = chain.sxm("select", first_map + number - 1, value, side, other)
    for copy in target.copies:
        chain.write(value, Rows(copy[0], target.row(part.start, 0), (target.pitch, 1)))
