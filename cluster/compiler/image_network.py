"""A network for images in int8 on one chip: its graph's ops in order, each with its kernel.

Values are feature maps in the inner slices. A map lies apart from what is read while it is written,
and from what is read together with it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from chip.kernels import pixel
from chip.kernels.convolution import Convolution as Kernel
from chip.kernels.convolution import convolve
from chip.kernels.feature_map import FeatureMap, Rooms, channels, feature_map
from chip.kernels.layout import Blocks
from chip.kernels.memory import Conflicts, MemoryMap
from chip.kernels.stem import Stem
from chip.kernels.work import CONSTANT, Request
from chip.schedule import Buffer, Schedule
from chip.spec import EAST, WEST, ChipSpec
from cluster.model.graph.graph import Section
from cluster.model.graph.image import Convolution, Maximum, PixelMean
from cluster.model.graph.op import Op
from cluster.model.graph.values import Value


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

    def cuts(self, op: Convolution) -> tuple[Blocks, Blocks]:
        """Blocks of input and of output channels."""
        outputs, inputs = op.weight.shape
        lanes = self.spec.lanes
        return channels(inputs // self.taps(op) ** 2, lanes), channels(outputs, lanes)

    def _place_weights(self, op: Convolution) -> None:
        ins, outs = self.cuts(op)
        vectors = outs.count * self.taps(op) ** 2 * ins.count * outs.width
        for side in (EAST, WEST):
            name = f"{op.weight.name}.{side}"
            request = Request(name, vectors, "i8", side, CONSTANT, "columns")
            self.memory.place_columns(request, Conflicts({}, {}))
        both = (self.memory[f"{op.weight.name}.{side}"] for side in (EAST, WEST))
        self.weights[op.weight.name] = (next(both), next(both))

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
            out = self._map(op.out, self.maps[op.x.name].slices, kept, twice=True)
            convolve(self.plan, what, self.maps[op.x.name], out, kept)

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

    def _map(
        self,
        value: Value,
        avoid: set[int],
        kept: FeatureMap | None = None,
        twice: bool = False,
    ) -> FeatureMap:
        """Room for a value, beside what it is read with; two copies of a single block, if asked.

        Two planes can then read it at the same time.
        """
        lines, columns, depth = value.dims
        cut = channels(depth.size, self.spec.lanes)
        beside = {other.name for op in self.section.consumers(value) for other in op.inputs}
        for name in beside & self.maps.keys():
            avoid = avoid | self.maps[name].slices
        size, twice = (lines.size, columns.size), twice and cut.count == 1
        found = feature_map(self.rooms, value.name, size, cut, avoid, kept, twice)
        self.maps[value.name] = found
        return found


KERNELS: dict[type[Op], Callable[[ImageNetwork, Any], None]] = {
    Convolution: ImageNetwork.convolution,
    Maximum: ImageNetwork.maximum,
    PixelMean: ImageNetwork.pixel_mean,
}
