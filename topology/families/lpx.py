"""Groq 3 LPX: LP30 chips in trays of 16, racks of 16 trays, up to four racks.

NVIDIA states 256 chips per rack, 96 lanes per chip and 8 chips per tray; analysts (2026-03) give
the wiring used here, in lanes of 100 Gb/s per chip: 4 to each of the 15 others of a tray of 16
("8 + 8 module" at Hot Chips 2026 reconciles the two tray sizes), 2 to one chip in each of the 15
other trays, and 4 that leave the rack. ASSUMPTIONS: the chip in the other trays and racks is the
one in the same place; the 4 leaving lanes are split evenly over the other racks.
"""

from collections.abc import Iterator

import networkx as nx

from topology.building import Cable, build
from topology.families.graphs import all_to_all
from topology.links import NO_OVERRIDES, Overrides, Profile
from topology.links import profile as resolve
from topology.registry import family, integers

TRAY_CHIPS = 16
RACK_TRAYS = 16
RACK_CHIPS = TRAY_CHIPS * RACK_TRAYS
TRAY_LANES, RACK_LANES, LEAVING_LANES = 4, 2, 4


@family("lpx:N", "lpx:256", integers(1, 1), profile="lp30")
def lpx(
    chips: int, profile: str | Profile = "lp30", overrides: Overrides = NO_OVERRIDES
) -> nx.Graph:
    """Return an LPX of whole trays up to a rack (16..256), or of 2, 3 or 4 racks (512..1024)."""
    racks, trays = -(-chips // RACK_CHIPS), -(-chips // TRAY_CHIPS)
    whole = chips % TRAY_CHIPS == 0 if racks == 1 else chips % RACK_CHIPS == 0
    if not whole or not 1 <= racks <= 4:
        raise ValueError("chips come in trays of 16 up to 256, then in racks of 256 up to 1024")
    places = [
        (chip // RACK_CHIPS, chip // TRAY_CHIPS % RACK_TRAYS, chip % TRAY_CHIPS)
        for chip in range(chips)
    ]
    resolved = resolve(profile, overrides)
    cables = _cables(chips, racks, trays)
    return build(f"lpx:{chips}", resolved, places, cables, _packaging, resolved.ports_per_chip)


def _cables(chips: int, racks: int, trays: int) -> Iterator[Cable]:
    for tray in range(trays):
        first = tray * TRAY_CHIPS
        yield from all_to_all(range(first, first + TRAY_CHIPS), "tray", TRAY_LANES)
    for rack in range(racks):
        for place in range(TRAY_CHIPS):
            same = range(rack * RACK_CHIPS + place, min(chips, (rack + 1) * RACK_CHIPS), TRAY_CHIPS)
            yield from all_to_all(same, "backplane", RACK_LANES)
    if racks > 1:
        for place in range(RACK_CHIPS):
            same = range(place, chips, RACK_CHIPS)
            yield from all_to_all(same, "osfp", LEAVING_LANES // (racks - 1))


def _packaging(chip: int) -> tuple[int, int, int]:
    return chip // TRAY_CHIPS, chip // RACK_CHIPS, 0
