"""Fixtures of the chip tests."""

import numpy as np
import pytest

from tests.chip.chaos import INDICES, SPAN
from tests.chip.programs import numbers


@pytest.fixture(scope="module")
def addresses() -> np.ndarray:
    """The test image with small numbers in the slices that hold addresses."""
    image = numbers().copy()
    image[INDICES[0]] %= SPAN
    image[INDICES[1]] = 0
    return image
