"""Convolutions, maxima and means of images against SciPy and loops."""

import numpy as np
import pytest
from scipy.ndimage import correlate

from cluster.compiler.shard import shard
from cluster.model.graph.graph import Section
from cluster.model.graph.image import Convolution, Maximum, PixelMean
from cluster.model.graph.op import GraphError
from cluster.model.graph.values import Dim, Value, Weight
from cluster.model.interpreter import Stage

RANDOM = np.random.default_rng(2)


def value(name, lines, columns, channels, dtype="i8"):
    return Value(name, (Dim("lines", lines), Dim("columns", columns), channels), dtype)


def evaluate(op, x, **weights):
    """The op over one image [lines, columns, channels]."""
    arrays = {w: weights[w.name].reshape(w.shape).astype(np.float32) for w in op.weights}
    stage = Stage(shard(Section(op.x, (op,)).check(), 1), arrays, exact=True)
    return stage.run(x[None].astype(np.float32), np.arange(1))[0]


@pytest.mark.parametrize(("taps", "stride"), [(1, 1), (1, 2), (3, 1), (7, 2)])
def test_a_convolution_equals_scipys(taps, stride):
    ins, outs = Dim("channels", 3), Dim("channels", 4)
    image = RANDOM.integers(-128, 128, (9, 8, 3))
    kernel = RANDOM.integers(-55, 56, (4, 3, taps, taps))
    sums = np.stack([
        sum(
            correlate(image[..., i].astype(float), kernel[o, i].astype(float), mode="constant")
            for i in range(3)
        )
        for o in range(4)
    ], axis=2)[::stride, ::stride]  # fmt: skip
    out = value("y", *sums.shape[:2], outs)
    weight = Weight("w", (outs,), (ins, Dim("taps", taps), Dim("taps", taps)))
    op = Convolution(out, value("x", 9, 8, ins), weight, 2.0**-9, stride)
    wanted = np.rint(np.maximum(sums / 512, 0)).clip(-128, 127)
    np.testing.assert_array_equal(evaluate(op, image, w=kernel), wanted)


def test_maxima_and_means_of_pixels():
    channels = Dim("channels", 2)
    image = RANDOM.integers(0, 100, (6, 4, 2))
    found = evaluate(Maximum(value("y", 3, 2, channels), value("x", 6, 4, channels)), image)
    for line in range(3):
        for column in range(2):
            lines = slice(max(0, 2 * line - 1), 2 * line + 2)
            columns = slice(max(0, 2 * column - 1), 2 * column + 2)
            wanted = image[lines, columns].max(axis=(0, 1))
            assert (found[line, column] == wanted).all()
    mean = evaluate(PixelMean(value("y", 1, 1, channels), value("x", 6, 4, channels)), image)
    assert np.abs(mean[0, 0] - image.mean(axis=(0, 1))).max() <= 0.5


def test_what_cannot_be_is_refused():
    ins = Dim("channels", 3)
    even = Weight("w", (ins,), (ins, Dim("taps", 2), Dim("taps", 2)))
    with pytest.raises(GraphError, match="2 taps have no middle"):
        Convolution(value("y", 4, 4, ins), value("x", 4, 4, ins), even, 1.0).check()
    with pytest.raises(GraphError, match="must be even"):
        Maximum(value("y", 3, 2, ins), value("x", 5, 4, ins)).check()
    other = Weight("w", (ins,), (Dim("channels", 4), Dim("taps", 1), Dim("taps", 1)))
    with pytest.raises(GraphError, match="x has 3 channels, not 4"):
        Convolution(value("y", 4, 4, ins), value("x", 4, 4, ins), other, 1.0).check()
