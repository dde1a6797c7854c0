"""int8 convolutional networks on an emulated chip equal NumPy to the bit."""

import numpy as np
import pytest

from chip.kernels.feature_map import channels, half_lines
from chip.spec import EAST, WEST
from cluster.model import resnet
from cluster.model.resnet import RESNET50, ResNetShape
from cluster.validate.resnet import classify

NARROW = ResNetShape(((1, 16, 32), (2, 16, 48)), 16, 20, 8)
# more than one block of channels in and out, an odd number of lines, and one line at the end
WIDE = ResNetShape(((1, 16, 336), (1, 336, 400), (1, 16, 32)), 32, 330, 3)


@pytest.mark.parametrize("shape", [NARROW, WIDE], ids=["narrow", "wide and odd"])
def test_logits_equal_the_reference(shape):
    weights, image = resnet.random_weights(shape), resnet.random_image(shape)
    found = classify(shape, weights, image)
    expected = resnet.classify(shape, weights, image)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_array_equal(found.logits, expected)
    assert found.executed_cycles == found.scheduled_cycles


def test_resnet_50_has_the_published_size():
    found = resnet.resnet(RESNET50).weights
    assert len(found) == 1 + 3 * (3 + 4 + 6 + 3) + 4 + 1
    parameters = sum(weight.shape[0] * weight.shape[1] for weight in found)
    assert parameters == pytest.approx(25.5e6, rel=0.01)


def test_channels_are_cut_into_whole_weight_groups():
    for total in (16, 64, 320, 321, 1000, 2048):
        cut = channels(total, 320)
        assert cut.count * cut.width >= total and cut.width % 16 == 0 and cut.width <= 320
    assert list(half_lines(7, EAST)) + list(half_lines(7, WEST)) == list(range(7))
