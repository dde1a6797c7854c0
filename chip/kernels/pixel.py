"""The end of a network for images: the mean of all pixels, and a product with that one pixel."""

from chip.kernels.convolution import Convolution
from chip.kernels.feature_map import CHANNEL_GROUP, FeatureMap, Rooms
from chip.kernels.layout import Blocks
from chip.kernels.matmul import Pass, matmul
from chip.schedule import Buffer, Chain, Flow, Rows, Schedule, run
from chip.spec import EAST, WEST

Pixel = tuple[tuple[Buffer, Buffer], ...]  # int8, of each block of channels: east and west


def pixel_mean(plan: Schedule, rooms: Rooms, x: FeatureMap) -> Pixel:
    """int8 of the mean over pixels."""
    found = []
    for block in range(x.channels.count):
        sides = [side for side in (EAST, WEST) if x.of_side(side)]
        sums = [_sum(plan, rooms, x, side, block) for side in sides]
        found.append(_mean(plan, rooms, sums, block, x.height * x.width))
    return tuple(found)


def _sum(plan: Schedule, rooms: Rooms, x: FeatureMap, side: int, block: int) -> Buffer:
    """Sum of a half's pixels in fp32, exact: a pixel is read when the sum before is there."""
    chain, pace = Chain(plan.spec, "mean"), plan.spec.d_func("vxm.alu")
    pixels = [
        Rows(band.copies[0][block], band.row(y, column), (0, 0))
        for band in x.of_side(side)
        for y in band.lines
        for column in range(x.width)
    ]
    total: Flow | None = None
    for number, rows in enumerate(pixels):
        value = chain.arrive(rows, plan.spec.vxm_position, number * pace, run(1))
        value = chain.vxm("to_f32", value, dtype="i8")
        total = chain.vxm("add", value, total) if total else chain.vxm("copy", value)
    assert total is not None
    taken = {rows.buffer.region.index for rows in pixels}
    out = rooms.take(f"sum.{side}.{block}", side, 1, taken, "f32")
    chain.write(total, Rows(out))
    plan.place(chain)
    return out


def _mean(
    plan: Schedule, rooms: Rooms, sums: list[Buffer], block: int, pixels: int
) -> tuple[Buffer, Buffer]:
    """int8 of the mean, on both sides."""
    chain = Chain(plan.spec, "mean")
    if len(sums) == 1:
        total = chain.vxm("copy", Rows(sums[0]), loops=run(1))
    else:
        total = chain.vxm("add", Rows(sums[0]), Rows(sums[1]), loops=run(1))
    mean = chain.vxm("mul", total, 1.0 / pixels)
    taken = {buffer.region.index + n for buffer in sums for n in range(4)}
    out = []
    for side in (EAST, WEST):
        out.append(rooms.take(f"mean.{side}.{block}", side, 1, taken))
        chain.write(chain.vxm("to_i8", mean), Rows(out[-1]))
    plan.place(chain)
    return out[0], out[1]


def classify(
    plan: Schedule, rooms: Rooms, what: Convolution, x: Pixel, outs: Blocks
) -> tuple[Buffer, ...]:
    """The convolution of one pixel by one tap, in fp32: a row for each block of channels."""
    words, found = outs.width // CHANNEL_GROUP, []
    for block in range(outs.count):
        side = (EAST, WEST)[block % 2]
        chain = Chain(plan.spec, "classes")
        passes = [
            Pass(
                what.weights[side],
                (block * len(x) + number) * words,
                1,
                words,
                Rows(both[side]),
                1,
                first=number == 0,
                last=number == len(x) - 1,
            )
            for number, both in enumerate(x)
        ]
        (flow,) = matmul(chain, side, passes)
        value = chain.vxm("mul", chain.vxm("to_f32", flow, dtype="i32"), what.scale)
        found.append(rooms.take(f"logits.{block}", side, 1, set(), "f32"))
        chain.write(value, Rows(found[-1]))
        plan.place(chain)
    return tuple(found)
