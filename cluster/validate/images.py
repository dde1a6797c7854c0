"""V10: ResNet-50 on one chip, executed and compared with NumPy."""

from collections.abc import Iterator

import numpy as np

from chip.kernels.resnet import RESNET50, Layer, layers
from chip.spec import GROQCHIP1
from cluster.model import resnet_reference
from cluster.validate.resnet import classify
from cluster.validate.row import Row, missed, phases, within

ISCA20 = "Abts et al., ISCA 2020"
PRODUCTS = 409_600  # int8 per cycle


def resnet_rows() -> Iterator[Row]:
    """Seconds from the image in SRAM to the logits; the logits must equal the reference's."""
    weights = resnet_reference.random_weights(RESNET50)
    image = resnet_reference.random_image(RESNET50)
    found = classify(RESNET50, weights, image)
    expected = resnet_reference.classify(RESNET50, weights, image)
    equal = bool(np.array_equal(found.logits, expected))
    where = "1 chip at 900 MHz, int8, random weights, batch 1, patches laid out by the host"
    what = "ResNet-50, logits equal to NumPy int8"
    yield within("V10", what, 1, int(equal), 0, "NumPy reference", where)
    seconds = found.executed_cycles / GROQCHIP1.clock_hz
    row = within("V10", "ResNet-50, one image, s", 49e-6, seconds, 15, ISCA20, where)
    products = sum(
        layer.inputs * layer.outputs * layer.taps**2 * pixels for layer, pixels in _sizes()
    )
    reason = (
        f"of {found.executed_cycles:,} executed cycles, arrays that never wait take "
        f"{products // PRODUCTS:,}; a tap is a product of its own, so that 64 channels use a fifth "
        f"of the lanes and columns: {phases(found.events, found.executed_cycles, 8)}"
    )
    yield missed(row, reason)


def _sizes() -> Iterator[tuple[Layer, int]]:
    """Layers and the pixels that they make."""
    for layer in layers(RESNET50):
        side = {"stem": 2 * RESNET50.pixels, "classes": 1}.get(layer.name)
        if side is None:
            side = RESNET50.pixels >> int(layer.name[0])
        yield layer, side**2
