"""The first layers of ResNet: a 7 x 7 convolution of stride 2, and the maximum over 3 x 3 windows.

The host lays out the patches of the image as rows, 147 numbers each, by the parity of their line
and column. Results of a parity are stored as often as one pooling window has pixels of it, since a
slice serves one read a cycle; the maximum is then over nine reads.
"""

from dataclasses import dataclass, field

from chip.kernels.convolution import Convolution
from chip.kernels.feature_map import Band, FeatureMap, Rooms, half_lines
from chip.kernels.matmul import Pass, matmul
from chip.schedule import Buffer, Chain, Flow, Rows, Schedule, over
from chip.spec import EAST, WEST

PARITIES = ((0, 0), (0, 1), (1, 0), (1, 1))


@dataclass
class Stem:
    """Inputs and parity images for an output of `out.height` x `out.width` pixels after pooling."""

    rooms: Rooms
    out: FeatureMap
    channels: int
    inputs: dict[tuple[int, int, int], Buffer] = field(default_factory=dict)
    copies: dict[tuple[int, int, int], list[Buffer]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for side in (EAST, WEST):
            avoid = set(self.out.slices)
            for y, x in PARITIES:
                key = (side, y, x)
                for number in range((1 + y) * (1 + x)):
                    rows = (len(half_lines(self.out.height, side)) + y) * (self.out.width + x)
                    name = f"stem.{side}{y}{x}.{number}"
                    self.copies.setdefault(key, []).append(self.rooms.take(name, side, rows, avoid))
                    avoid |= {self.copies[key][-1].region.index}
        for side in (EAST, WEST):
            for y, x in PARITIES:
                key = (side, y, x)
                taken = {buffer.region.index for buffer in self.copies[key]}
                rows = len(self.lines(side, y)) * self.out.width
                self.inputs[key] = self.rooms.take(f"image.{side}{y}{x}", side, rows, taken)

    def lines(self, side: int, y: int) -> range:
        """Lines j of a parity, of image line 2 j + y, that a side computes."""
        mine = half_lines(self.out.height, side)
        return range(max(0, mine.start - y), mine.stop)

    def convolve(self, plan: Schedule, what: Convolution) -> None:
        """The convolution of all parities."""
        for side in (EAST, WEST):
            for y, x in PARITIES:
                self._convolve(plan, what, side, y, x)

    def maximum(self, plan: Schedule) -> None:
        """The maximum over windows, as the lines of a convolution come."""
        for band in self.out.bands:
            most = max(1, plan.spec.accumulator_depth // self.out.width)
            for start in range(band.lines.start, band.lines.stop, most):
                self._maximum(plan, band, range(start, min(start + most, band.lines.stop)))

    def _convolve(self, plan: Schedule, what: Convolution, side: int, y: int, x: int) -> None:
        width, lines = self.out.width, self.lines(side, y)
        most = max(1, plan.spec.accumulator_depth // width)
        top = half_lines(self.out.height, side).start - y  # line of the first row of a copy
        for start in range(lines.start, lines.stop, most):
            count = min(most, lines.stop - start)
            chain = Chain(plan.spec, "stem: convolution")
            rows = Rows(self.inputs[side, y, x], (start - lines.start) * width, (width, 1))
            words = what.weights[side].region.words
            part = Pass(what.weights[side], 0, 1, words, rows, width, lines=count, plane=x)
            (flow,) = matmul(chain, side, [part])
            value = chain.vxm("mul", chain.vxm("to_f32", flow, dtype="i32"), what.scale)
            value = chain.vxm("to_i8", chain.vxm("max", value, 0.0))
            for buffer in self.copies[side, y, x]:
                first = (start - top) * (width + x) + x
                chain.write(value, Rows(buffer, first, (width + x, 1)))
            plan.place(chain)

    def _maximum(self, plan: Schedule, band: Band, part: range) -> None:
        """out = the largest of nine; a border of zeros does not matter after a ReLU.

        What reads it are 1 x 1 convolutions, so that a cut needs no lines of the next band.
        """
        loops = over(self.out.width, len(part))
        chain, pace = Chain(plan.spec, "maximum 3 x 3"), plan.spec.d_func("vxm.alu")
        above = part.start - half_lines(self.out.height, band.side).start
        largest: Flow | None = None
        number = 0
        for y, x in PARITIES:
            for which, buffer in enumerate(self.copies[band.side, y, x]):
                down, right = divmod(which, 1 + x)
                pitch = self.out.width + x
                rows = Rows(buffer, (above + down) * pitch + right, (pitch, 1))
                cycle = pace * max(0, number - 1)  # when the largest of those before is there
                value = chain.arrive(rows, plan.spec.vxm_position, cycle, loops)
                largest = chain.vxm("max", largest, value, dtype="i8") if largest else value
                number += 1
        assert largest is not None
        for copy in band.copies:
            chain.write(largest, Rows(copy[0], band.row(part.start, 0), (band.pitch, 1)))
        plan.place(chain)
