"""ResNet (He et al., 2015) in int8 as a graph, with random weights and images.

Bottleneck blocks with the stride in their first 1 x 1 convolution, as in the paper; batch norms are
taken to be folded into the convolutions.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cluster.compiler.shard import shard
from cluster.model.graph.graph import Section
from cluster.model.graph.image import Convolution, Maximum, PixelMean, fewer
from cluster.model.graph.op import F32, Op
from cluster.model.graph.values import Dim, Value, Weight
from cluster.model.interpreter import Stage

I8 = npt.NDArray[np.int8]
STEM_TAPS = 7  # of its one convolution over the image, with stride 2


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


def resnet(shape: ResNetShape) -> Section:
    """The network, from an image [lines, columns, 3] in int8 to logits [1, 1, classes]."""
    return _Writer(shape).section()


class _Writer:
    """Collects the ops."""

    def __init__(self, shape: ResNetShape) -> None:
        self.shape, self.ops = shape, list[Op]()

    def section(self) -> Section:
        """The whole network, checked."""
        side = 4 * self.shape.pixels
        image = Value("image", (Dim("lines", side), Dim("columns", side), Dim("channels", 3)), "i8")
        x = self._halved(self._convolved("stem", image, self.shape.stem_channels, STEM_TAPS, 2))
        for stage, (blocks, inner, outer) in enumerate(self.shape.stages):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                x = self._block(x, f"{stage}.{block}", inner, outer, stride, first=block == 0)
        lines, columns, channels = x.dims
        one = Value("mean", (Dim(lines.name, 1), Dim(columns.name, 1), channels), "i8")
        self.ops.append(PixelMean(one, x))
        self._convolved("classes", one, self.shape.classes, relu=False, dtype="f32")
        return Section(image, tuple(self.ops)).check()

    def _block(
        self, x: Value, name: str, inner: int, outer: int, stride: int, first: bool
    ) -> Value:
        y = self._convolved(f"{name}.a", x, inner, 1, stride)
        kept = self._convolved(f"{name}.d", x, outer, 1, stride, relu=False) if first else x
        y = self._convolved(f"{name}.b", y, inner, 3)
        return self._convolved(f"{name}.c", y, outer, residual=kept)

    def _halved(self, x: Value) -> Value:
        lines, columns, channels = x.dims
        out = Value("maximum", (fewer(lines, 2), fewer(columns, 2), channels), "i8")
        self.ops.append(Maximum(out, x))
        return out

    def _convolved(
        self, name: str, x: Value, channels: int, taps: int = 1, stride: int = 1,
        relu: bool = True, residual: Value | None = None, dtype: str = "i8",
    ) -> Value:  # fmt: skip
        lines, columns, inputs = x.dims
        outputs, square = Dim("channels", channels), (Dim("taps", taps),) * 2
        sides = fewer(lines, stride), fewer(columns, stride)
        out = Value(name, (*sides, outputs), dtype)
        weight = Weight(name, (outputs,), (inputs, *square))
        # brings sums of random weights and activations to a spread of some forty units
        scale = float(0.5 / (32 * weight.shape[1] ** 0.5))
        self.ops.append(Convolution(out, x, weight, scale, stride, relu, residual))
        return out


def classify(shape: ResNetShape, weights: Mapping[str, I8], image: I8) -> F32:
    """Logits [classes] of an image [lines, columns, 3], as chips compute them bit for bit."""
    section = resnet(shape)
    arrays = {
        weight: weights[weight.name].reshape(weight.shape).astype(np.float32)
        for weight in section.weights
    }
    logits = Stage(shard(section, 1), arrays).run(image[None].astype(np.float32), np.arange(1))
    return logits.reshape(-1)


def random_weights(shape: ResNetShape, seed: int = 0) -> dict[str, I8]:
    """Weights [out, in, taps, taps] of every convolution, uniform in -55..55 (a spread of 32)."""
    random = np.random.default_rng(seed)

    def draw(weight: Weight) -> I8:
        sizes = [dim.size for dim in (*weight.out, *weight.inner)]
        return random.integers(-55, 56, sizes, np.int8)

    return {weight.name: draw(weight) for weight in resnet(shape).weights}


def random_image(shape: ResNetShape, seed: int = 1) -> I8:
    """An image [lines, columns, 3]."""
    side = 4 * shape.pixels
    return np.random.default_rng(seed).integers(-128, 128, (side, side, 3), np.int8)
