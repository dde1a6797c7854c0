"""What is published of one chip (V01 to V09): measured by programs that saturate it."""

import pytest

from chip.published import ROWS, Row
from chip.spec import GROQCHIP1


@pytest.mark.parametrize("measure", ROWS, ids=lambda row: row.__name__)
def test_it_is_as_published(measure):
    row = measure(GROQCHIP1)
    assert row.ok, row
    assert row.source and row.what and measure.__doc__.startswith(f"{row.id}: ")


def test_ids_are_those_of_the_validation_table():
    ids = [measure.__doc__[:3] for measure in ROWS]
    assert ids == sorted(set(ids))


def test_a_row_tells_how_far_off_it_is():
    row = Row("V00", "a number", 200, 190, "things", "nowhere", 0.04)
    assert (row.error, row.ok) == (0.05, False)


def test_weights_are_installed_with_transit_and_skew_beside():
    row = next(m for m in ROWS if m.__name__ == "weight_install")(GROQCHIP1)
    assert row.ours == 39
    assert "skew to the last tile 20" in row.note and "last IW 40 after the first LW" in row.note
