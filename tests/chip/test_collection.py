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


def test_what_stays_is_old_and_nothing_is_frozen_afterwards():
    with uncollected(stays=True):
        made = [[] for _ in range(1000)]
    assert not gc.get_freeze_count()
    assert any(one is made for one in gc.get_objects(generation=2))
