"""ResNet (He et al., 2015) in int8 as a graph, with random weights and images.

Bottleneck blocks with the stride in their first 1 x 1 convolution, as in the paper; batch norms are
taken to be folded into the convolutions.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from chip.kernels.resnet import Layer, ResNetShape, layers
from cluster.compiler.shard import shard
from cluster.model.graph.graph import Section
from cluster.model.graph.image import Convolution, Maximum, PixelMean, fewer
from cluster.model.graph.op import F32, Op
from cluster.model.graph.values import Dim, Value, Weight
from cluster.model.interpreter import Stage

I8 = npt.NDArray[np.int8]
STEM_TAPS = 7  # of its one convolution over the image, with stride 2


def resnet(shape: ResNetShape) -> Section:
    """The network, from an image [lines, columns, 3] in int8 to logits [1, 1, classes]."""
    return _Writer(shape).section()


class _Writer:
    """Collects the ops; convolutions take their shape from the list of layers."""

    def __init__(self, shape: ResNetShape) -> None:
        self.shape, self.ops = shape, list[Op]()
        self.layers = {layer.name: layer for layer in layers(shape)}

    def section(self) -> Section:
        """The whole network, checked."""
        side = 4 * self.shape.pixels
        image = Value("image", (Dim("lines", side), Dim("columns", side), Dim("channels", 3)), "i8")
        x = self._halved(self._convolution("stem", image, STEM_TAPS, 2))
        for stage, (blocks, _, _) in enumerate(self.shape.stages):
            for block in range(blocks):
                x = self._block(x, f"{stage}.{block}", first=block == 0)
        lines, columns, channels = x.dims
        one = Value("mean", (Dim(lines.name, 1), Dim(columns.name, 1), channels), "i8")
        self.ops.append(PixelMean(one, x))
        self._of("classes", one, relu=False, dtype="f32")
        return Section(image, tuple(self.ops)).check()

    def _block(self, x: Value, name: str, first: bool) -> Value:
        kept = self._of(f"{name}.d", x, relu=False) if first else x
        inner = self._of(f"{name}.b", self._of(f"{name}.a", x))
        return self._of(f"{name}.c", inner, residual=kept)

    def _halved(self, x: Value) -> Value:
        lines, columns, channels = x.dims
        out = Value("maximum", (fewer(lines, 2), fewer(columns, 2), channels), "i8")
        self.ops.append(Maximum(out, x))
        return out

    def _of(
        self, name: str, x: Value, relu: bool = True, residual: Value | None = None,
        dtype: str = "i8",
    ) -> Value:  # fmt: skip
        layer = self.layers[name]
        return self._convolution(name, x, layer.taps, layer.stride, relu, residual, dtype)

    def _convolution(
        self, name: str, x: Value, taps: int, stride: int, relu: bool = True,
        residual: Value | None = None, dtype: str = "i8",
    ) -> Value:  # fmt: skip
        layer, (lines, columns, channels) = self.layers[name], x.dims
        outputs, square = Dim("channels", layer.outputs), (Dim("taps", taps),) * 2
        sides = fewer(lines, stride), fewer(columns, stride)
        out = Value(name, (*sides, outputs), dtype)
        weight = Weight(name, (outputs,), (channels, *square))
        self.ops.append(Convolution(out, x, weight, layer.scale, stride, relu, residual))
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
    """Weights [out, in, taps, taps] of every layer, uniform in -55..55 (a spread of 32)."""
    random = np.random.default_rng(seed)

    def draw(layer: Layer) -> I8:
        return random.integers(
            -55, 56, (layer.outputs, layer.inputs, layer.taps, layer.taps), np.int8
        )

    return {layer.name: draw(layer) for layer in layers(shape)}


def random_image(shape: ResNetShape, seed: int = 1) -> I8:
    """An image [lines, columns, 3]."""
    side = 4 * shape.pixels
    return np.random.default_rng(seed).integers(-128, 128, (side, side, 3), np.int8)
