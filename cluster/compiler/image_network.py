"""A network for images in int8 on one chip: its graph's ops in order, each with its kernel.

Weights are in the outermost slices, values are feature maps in the others. A map lies apart from
what is read while it is written, and from what is read together with it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from chip.kernels import pixel
from chip.kernels.convolution import MOST_BESIDE, beside_maps, convolve, lay_beside, reads
from chip.kernels.convolution import Convolution as Kernel
from chip.kernels.feature_map import FeatureMap, Rooms, Wanted, channels, feature_map
from chip.kernels.lanes import LaneMap
from chip.kernels.layout import Blocks
from chip.kernels.memory import MemoryMap
from chip.kernels.stem import Stem
from chip.schedule import Buffer, Schedule
from chip.spec import EAST, WEST, ChipSpec
from cluster.model.graph.graph import Section
from cluster.model.graph.image import Convolution, Maximum, PixelMean
from cluster.model.graph.op import Op
from cluster.model.graph.values import Value

LAY_CUTS = 3  # parts of a band that are laid side by side while others are written


@dataclass
class ImageNetwork:
    """Memory and schedule of a whole network for one image; `logits` has a row for each block.

    The first convolution is over patches that the host lays out, and a maximum follows it.
    """

    spec: ChipSpec
    section: Section
    weights: dict[str, tuple[Buffer, Buffer]] = field(default_factory=dict)
    maps: dict[str, FeatureMap] = field(default_factory=dict)
    logits: tuple[Buffer, ...] = ()

    def __post_init__(self) -> None:
        self.memory, self.rooms = MemoryMap(self.spec), Rooms(self.spec)
        self.plan = Schedule(self.spec)
        self._pixels: dict[str, pixel.Pixel] = {}
        self._beside_widths: dict[int, int] = {}  # of a group of lanes: number of its first map
        for convolution in self.convolutions:
            self._place_weights(convolution)
        for op in self.section.ops:
            KERNELS[type(op)](self, op)

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """What has weights, in order."""
        return tuple(op for op in self.section.ops if isinstance(op, Convolution))

    def taps(self, op: Convolution) -> int:
        """Taps of a side as the chip sees them: a patch is one pixel."""
        return 1 if op.x == self.section.x else op.taps

    def beside(self, value: Value) -> int:
        """Neighbours in a line whose channels are laid side by side before a value is read."""
        readers = self.section.consumers(value)
        cut = channels(value.dims[-1].size, self.spec.lanes)
        if value == self.section.x or len(readers) != 1 or cut.count > 1:
            return 1
        (op,) = readers
        taps = op.taps if isinstance(op, Convolution) and op.stride == 1 else 1
        return min(taps, MOST_BESIDE, self.spec.lanes // cut.width)

    def cuts(self, op: Convolution) -> tuple[Blocks, Blocks]:
        """Blocks of input and of output channels, with those of neighbours."""
        outputs, inputs = op.weight.shape
        inputs //= self.taps(op) ** 2
        return self._cut(inputs, self.beside(op.x)), self._cut(outputs, self.beside(op.out))

    def _cut(self, total: int, beside: int) -> Blocks:
        cut = channels(total, self.spec.lanes)
        return Blocks(cut.total, cut.count, beside * cut.width)

    def tiles(self, op: Convolution) -> int:
        """Tiles of an output block."""
        taps = self.taps(op)
        return taps * len(reads(taps, self.beside(op.x))) * self.cuts(op)[0].count

    def _place_weights(self, op: Convolution) -> None:
        outs = self.cuts(op)[1]
        vectors = outs.count * self.tiles(op) * outs.width
        east, west = (
            self.memory.columns(f"{op.weight.name}.{side}", side, vectors, (1,), "i8")
            for side in (EAST, WEST)
        )
        self.weights[op.weight.name] = east, west

    @property
    def lane_maps(self) -> tuple[LaneMap, ...]:
        """Those of its program."""
        lanes = self.spec.lanes
        return tuple(m for width in self._beside_widths for m in beside_maps(width, lanes))

    # --- kernels of ops -----------------------------------------------------------------------
    def convolution(self, op: Convolution) -> None:
        """Over patches, over a map, or over the one pixel that is left."""
        what = Kernel(self.weights[op.weight.name], self.taps(op), op.stride, op.scale, op.relu)
        if op.x == self.section.x:
            self._begin(op, what)
        elif op.x.name in self._pixels:
            pixels, outs = self._pixels[op.x.name], self.cuts(op)[1]
            self.logits = pixel.classify(self.plan, self.rooms, what, pixels, outs)
        else:
            kept = None if op.residual is None else self.maps[op.residual.name]
            out = self._map(op.out, self.maps[op.x.name].slices | (kept.slices if kept else set()))
            convolve(self.plan, what, self.maps[op.x.name], out, kept)
            if self.beside(op.out) > 1:
                self._lay_beside(op.out, out)

    def _lay_beside(self, value: Value, out: FeatureMap) -> None:
        times = self.beside(value)
        size = out.height, out.width
        name = f"{value.name}.beside"
        laid = feature_map(self.rooms, Wanted(name, size, out.channels, times), out.slices)
        width = out.channels.width // times
        self._beside_widths.setdefault(width, len(self._beside_widths) * (MOST_BESIDE - 1))
        lay_beside(self.plan, self._beside_widths[width], out, laid)
        self.maps[value.name] = laid

    def _begin(self, op: Convolution, what: Kernel) -> None:
        (after,) = self.section.consumers(op.out)
        op.require(isinstance(after, Maximum), "a maximum must follow the first convolution")
        self.stem = Stem(self.rooms, self._map(after.out, set()), op.weight.shape[0])
        self.stem.convolve(self.plan, what)

    def maximum(self, op: Maximum) -> None:
        """Of what the first convolution has left by the parity of lines and columns."""
        op.require(op.x == self.convolutions[0].out, "a maximum must follow the first convolution")
        self.stem.maximum(self.plan)

    def pixel_mean(self, op: PixelMean) -> None:
        """One pixel, on both sides."""
        self._pixels[op.out.name] = pixel.pixel_mean(self.plan, self.rooms, self.maps[op.x.name])

    def _map(self, value: Value, avoid: set[int]) -> FeatureMap:
        """Room for a value, beside what it is read with."""
        lines, columns, depth = value.dims
        times, readers = self.beside(value), self.section.consumers(value)
        together = {other.name for op in readers for other in op.inputs}
        for name in together & self.maps.keys():
            avoid = avoid | self.maps[name].slices
        cut, size = self._cut(depth.size, times), (lines.size, columns.size)
        windows = any(isinstance(op, Convolution) and op.taps > 1 for op in readers)
        cuts = LAY_CUTS if times > 1 else 0
        wanted = Wanted(value.name, size, cut, times, windows, cuts)
        found = feature_map(self.rooms, wanted, avoid)
        self.maps[value.name] = found
        return found


KERNELS: dict[type[Op], Callable[[ImageNetwork, Any], None]] = {
    Convolution: ImageNetwork.convolution,
    Maximum: ImageNetwork.maximum,
    PixelMean: ImageNetwork.pixel_mean,
}
