from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.errors import BadLink
from topology.links import PROFILES, Link, profile


def test_every_profile_names_its_sources():
    for found in PROFILES.values():
        assert found.source and found.link.source


def test_ship_rate_is_235_gb_per_s_over_11_ports_both_ways():
    """SHIP: 11 ports, 235 GB/s per chip in both directions."""
    ship = PROFILES["ship"]
    both = 2 * 11 * ship.link.bytes_per_s(ship.clock_hz)
    assert both == pytest.approx(235e9, rel=0.002)


def test_isca22_rate_is_100_gb_per_s_on_the_wire():
    """ISCA'22: 4 lanes x 25 Gb/s, 328 B on the wire per vector of 320 B."""
    isca = PROFILES["isca22"]
    on_the_wire = isca.link.bytes_per_s(isca.clock_hz) / isca.link.efficiency
    assert on_the_wire == pytest.approx(12.5e9)


@given(st.integers(1, 10**6), st.integers(1, 500), st.integers(1, 500))
def test_transfer_cycles_round_up(vectors, p, q):
    link = Link(cycles_per_vector=Fraction(p, q))
    assert (
        link.transfer_cycles(vectors) - 1
        < Fraction(vectors * p, q)
        <= link.transfer_cycles(vectors)
    )


def test_any_field_can_be_overridden_also_as_text():
    changed = profile("ship", {"latency_cycles": "300", "cycles_per_vector": "27/2", "clock_hz": 1})
    assert (changed.link.latency_cycles, changed.link.cycles_per_vector) == (300, Fraction(27, 2))
    assert changed.clock_hz == 1
    assert Link(cycles_per_vector=(54, 2)).cycles_per_vector == 27  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "overrides",
    [
        {"latency_cycles": 0},
        {"latency_cycles": "fast"},
        {"latency_cycles": True},
        {"count": -1},
        {"cycles_per_vector": "0"},
        {"cycles_per_vector": "x/y"},
        {"cycles_per_vector": "1e999999999"},
        {"cycles_per_vector": float("inf")},
        {"cycles_per_vector": (1, 0)},
        {"payload_bytes": 400},
        {"ports_per_chip": 0},
        {"colour": "red"},
    ],
)
def test_impossible_fields_are_refused(overrides):
    with pytest.raises(BadLink):
        profile("ship", overrides)


def test_unknown_profiles_are_refused():
    with pytest.raises(BadLink, match="isca22, ship, lp30"):
        profile("lp40")
