"""What makes much that stays is not searched for cycles meanwhile."""

import gc

import pytest

from chip.collection import uncollected


def test_collection_rests_inside_and_goes_on_afterwards_also_after_an_error():
    with pytest.raises(ValueError, match="x"), uncollected():
        assert not gc.isenabled()
        with uncollected():
            pass
        assert not gc.isenabled()
        raise ValueError("x")
    assert gc.isenabled()
