"""ResNet (He et al., 2015) in int8 on one chip: its maps in SRAM, and all layers as chains.

Bottleneck blocks with the stride in their first 1 x 1 convolution, as in the paper. Every
convolution has a scale that brings its sums back to int8; batch norms are taken to be folded.
"""

from dataclasses import dataclass, field

from chip.kernels.convolution import Convolution, convolve
from chip.kernels.feature_map import CHANNEL_GROUP, FeatureMap, Rooms, channels, feature_map
from chip.kernels.layout import Blocks
from chip.kernels.matmul import Pass, matmul
from chip.kernels.memory import MemoryMap
from chip.kernels.stem import Stem
from chip.schedule import Buffer, Chain, Flow, Rows, Schedule, run
from chip.spec import EAST, WEST, ChipSpec

PATCH = 7 * 7 * 3  # numbers that the host lays out for a pixel of the first convolution


@dataclass(frozen=True)
class ResNetShape:
    """Stages of (blocks, inner channels, outer channels).

    The first stage keeps the size of the image, the others halve it. `pixels` is the side of the
    image after the stem, a quarter of the input's.
    """

    stages: tuple[tuple[int, int, int], ...]
    stem_channels: int
    classes: int
    pixels: int


RESNET50 = ResNetShape(((3, 64, 256), (4, 128, 512), (6, 256, 1024), (3, 512, 2048)), 64, 1000, 56)


@dataclass(frozen=True)
class Layer:
    """A convolution by name: channels in and out, taps of a side, stride; `scale` of its sums."""

    name: str
    inputs: int
    outputs: int
    taps: int
    stride: int

    @property
    def scale(self) -> float:
        """Brings sums of random weights and activations to a spread of some forty units."""
        return float(0.5 / (32 * (self.inputs * self.taps**2) ** 0.5))


def layers(shape: ResNetShape) -> list[Layer]:
    """All layers with weights, in order; the last is the classifier."""
    found = [Layer("stem", PATCH, shape.stem_channels, 1, 1)]
    inputs = shape.stem_channels
    for stage, (blocks, inner, outer) in enumerate(shape.stages):
        for block in range(blocks):
            name, stride = f"{stage}.{block}", 2 if stage and not block else 1
            if not block:
                found.append(Layer(f"{name}.d", inputs, outer, 1, stride))
            found.append(Layer(f"{name}.a", inputs, inner, 1, stride))
            found.append(Layer(f"{name}.b", inner, inner, 3, 1))
            found.append(Layer(f"{name}.c", inner, outer, 1, 1))
            inputs = outer
    return [*found, Layer("classes", inputs, shape.classes, 1, 1)]


@dataclass
class ResNet:
    """Memory map and schedule of a whole network for one image."""

    spec: ChipSpec
    shape: ResNetShape
    weights: dict[str, tuple[Buffer, Buffer]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.memory, self.rooms = MemoryMap(self.spec), Rooms(self.spec)
        self.plan = Schedule(self.spec)
        self.layers = {layer.name: layer for layer in layers(self.shape)}
        for layer in self.layers.values():
            self._place_weights(layer)
        self.logits: list[Buffer] = []
        self._build()

    def cuts(self, layer: Layer) -> tuple[Blocks, Blocks]:
        """Blocks of input and of output channels."""
        return channels(layer.inputs, self.spec.lanes), channels(layer.outputs, self.spec.lanes)

    def _place_weights(self, layer: Layer) -> None:
        ins, outs = self.cuts(layer)
        vectors = outs.count * layer.taps**2 * ins.count * outs.width
        east, west = (
            self.memory.columns(f"{layer.name}.{side}", side, vectors, dtype="i8")
            for side in (EAST, WEST)
        )
        self.weights[layer.name] = (east, west)

    def _convolution(self, name: str, relu: bool = True) -> Convolution:
        layer = self.layers[name]
        return Convolution(self.weights[name], layer.taps, layer.stride, layer.scale, relu)

    def _build(self) -> None:
        size = self.shape.pixels
        stem_cut = channels(self.shape.stem_channels, self.spec.lanes)
        x = feature_map(self.rooms, "pooled", (size, size), stem_cut, set())
        self.stem = Stem(self.rooms, x, self.shape.stem_channels)
        self.stem.schedule(self.plan, self._convolution("stem"))
        for stage, (blocks, _, _) in enumerate(self.shape.stages):
            for block in range(blocks):
                size = -(-size // (2 if stage and not block else 1))
                x = self._bottleneck(f"{stage}.{block}", x, size, first=not block)
        self._classify(x)

    def _bottleneck(self, name: str, x: FeatureMap, size: int, first: bool) -> FeatureMap:
        def made(part: str, avoid: set[int], beside: FeatureMap | None = None) -> FeatureMap:
            _, cut = self.cuts(self.layers[f"{name}.{part}"])
            map_name, twice = f"{name}.{part}", cut.count == 1
            return feature_map(self.rooms, map_name, (size, size), cut, avoid, beside, twice)

        inner = made("a", x.slices)
        convolve(self.plan, self._convolution(f"{name}.a"), x, inner)
        kept = x
        if first:
            kept = made("d", x.slices)
            convolve(self.plan, self._convolution(f"{name}.d", relu=False), x, kept)
        # read and written together: the inner image, the residual, and the sum of both
        middle = made("b", inner.slices | kept.slices)
        convolve(self.plan, self._convolution(f"{name}.b"), inner, middle)
        out = made("c", middle.slices, kept)
        convolve(self.plan, self._convolution(f"{name}.c"), middle, out, kept)
        return out

    # --- the classifier ---------------------------------------------------------------------
    def _classify(self, x: FeatureMap) -> None:
        """Mean over pixels as int8, then the last product."""
        pixels = x.height * x.width
        pooled = []
        for block in range(x.channels.count):
            sums = [self._sum(x, side, block) for side in (EAST, WEST) if len(x.lines(side))]
            pooled.append(self._mean(sums, block, pixels))
        layer = self.layers["classes"]
        _, outs = self.cuts(layer)
        words = outs.width // CHANNEL_GROUP
        for block in range(outs.count):
            side = (EAST, WEST)[block % 2]
            chain = Chain(self.spec, "classes")
            passes = [
                Pass(
                    self.weights["classes"][side],
                    (block * len(pooled) + number) * words,
                    1,
                    words,
                    Rows(both[side]),
                    1,
                    first=number == 0,
                    last=number == len(pooled) - 1,
                )
                for number, both in enumerate(pooled)
            ]
            (flow,) = matmul(chain, side, passes)
            value = chain.vxm("mul", chain.vxm("to_f32", flow, dtype="i32"), layer.scale)
            self.logits.append(self.rooms.take(f"logits.{block}", side, 1, set(), "f32"))
            chain.write(value, Rows(self.logits[-1]))
            self.plan.place(chain)

    def _sum(self, x: FeatureMap, side: int, block: int) -> Buffer:
        """Sum of a half's pixels in fp32, exact: a pixel is read when the sum before is there."""
        chain, pace = Chain(self.spec, "mean"), self.spec.d_func("vxm.alu")
        buffer = x.halves[side][block]
        pixels = [x.row(side, y, column) for y in x.lines(side) for column in range(x.width)]
        total: Flow | None = None
        for number, row in enumerate(pixels):
            rows = Rows(buffer, row, (0, 0))
            value = chain.arrive(rows, self.spec.vxm_position, number * pace, run(1))
            value = chain.vxm("to_f32", value, dtype="i8")
            total = chain.vxm("add", value, total) if total else chain.vxm("copy", value)
        assert total is not None
        out = self.rooms.take(f"sum.{side}.{block}", side, 1, {buffer.region.index}, "f32")
        chain.write(total, Rows(out))
        self.plan.place(chain)
        return out

    def _mean(self, sums: list[Buffer], block: int, pixels: int) -> tuple[Buffer, Buffer]:
        """int8 of the mean, on both sides."""
        chain = Chain(self.spec, "mean")
        if len(sums) == 1:
            total = chain.vxm("copy", Rows(sums[0]), loops=run(1))
        else:
            total = chain.vxm("add", Rows(sums[0]), Rows(sums[1]), loops=run(1))
        mean = chain.vxm("mul", total, 1.0 / pixels)
        taken = {buffer.region.index + n for buffer in sums for n in range(4)}
        out = []
        for side in (EAST, WEST):
            out.append(self.rooms.take(f"mean.{side}.{block}", side, 1, taken))
            chain.write(chain.vxm("to_i8", mean), Rows(out[-1]))
        self.plan.place(chain)
        return out[0], out[1]
