"""V10: ResNet-50 on one chip, executed and compared with NumPy."""

from collections.abc import Iterator

import numpy as np

from chip.spec import GROQCHIP1
from cluster.model import resnet
from cluster.model.resnet import RESNET50
from cluster.validate.resnet import classify
from cluster.validate.row import Row, missed, phases, within

ISCA20 = "Abts et al., ISCA 2020"
PRODUCTS = 409_600  # int8 per cycle


def resnet_rows() -> Iterator[Row]:
    """Seconds from the image in SRAM to the logits; the logits must equal the reference's."""
    weights = resnet.random_weights(RESNET50)
    image = resnet.random_image(RESNET50)
    found = classify(RESNET50, weights, image)
    expected = resnet.classify(RESNET50, weights, image)
    equal = bool(np.array_equal(found.logits, expected))
    where = "1 chip at 900 MHz, int8, random weights, batch 1, patches laid out by the host"
    what = "ResNet-50, logits equal to NumPy int8"
    yield within("V10", what, 1, int(equal), 0, "NumPy reference", where)
    seconds = found.executed_cycles / GROQCHIP1.clock_hz
    row = within("V10", "ResNet-50, one image, s", 49e-6, seconds, 15, ISCA20, where)
    products = sum(op.products_per_row(0) for op in resnet.resnet(RESNET50).ops)
    reason = (
        f"of {found.executed_cycles:,} executed cycles, arrays that never wait take "
        f"{products // PRODUCTS:,}; 64 channels of three taps side by side use three fifths of the "
        f"lanes and a fifth of the columns: {phases(found.events, found.executed_cycles, 8)}"
    )
    yield missed(row, reason)
