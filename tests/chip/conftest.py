"""Fixtures of the chip tests."""

import numpy as np
import pytest

from tests.chip.outcomes import small_numbers


@pytest.fixture(scope="module")
def addresses() -> np.ndarray:
    """The test image with small numbers in the slices that hold addresses."""
    return small_numbers()
