"""Rows of one chip and of the network, which their own packages compute."""

from collections.abc import Iterator

from chip import published as on_chip
from chip.rates import rates
from chip.spec import GROQCHIP1, LP30
from cluster.validate.row import EXACT, REPORTED, Row, within
from topology import parse
from topology import published as on_network
from topology.facts import facts

SOURCES = {
    "ISCA20": "Abts et al., ISCA 2020",
    "BRIEF": "GroqChip product brief v1.7",
}
LPX = "NVIDIA, Inside Groq 3 LPX, March 2026"


def chip_rows() -> Iterator[Row]:
    """V01 to V09: programs that saturate a part of the chip."""
    for function in on_chip.ROWS:
        found = function(GROQCHIP1)
        tolerance = f"{100 * found.tolerance:g} %" if found.tolerance else EXACT
        what = f"{found.what}, {found.unit}"
        yield Row(found.id, what, found.published, found.ours, tolerance, found.ok,
                  SOURCES.get(found.source, found.source), "groqchip1", found.note)  # fmt: skip


def network_rows() -> Iterator[Row]:
    """V13 to V25: clocks, graphs, routes and timetables."""
    for found in on_network.rows():
        reason = REASONS.get(found.id, "") if found.ok is None else ""
        tolerance = found.tolerance if found.ok is not None else REPORTED
        yield Row(found.id, found.what, found.published, found.emulated, tolerance, found.ok,
                  found.source, f"link profile {found.profile}", reason, found.numbers)  # fmt: skip


REASONS = {
    "V19": "5 hops count 2 + 1 + 2; with the published ports one chip of a rack holds the cable "
    "to a given other rack, and it may be 3 hops away",
    "V20": "the published figure fixes neither hops nor what ends count; hops of 300 ns make less, "
    "hops of 722 ns more",
}


def rack_rows() -> Iterator[Row]:
    """V39: what 256 chips of the lp30 spec on the lpx topology add up to."""
    graph = parse("lpx:256")
    chips, where = int(graph.number_of_nodes()), "256 x lp30 on lpx:256"
    by_name = {rate.name: rate for rate in rates(LP30)}

    def total(name: str) -> float:
        return chips * by_name[name].per_s(LP30.clock_hz)

    found = facts(graph)
    cabled = 2 * found.cables * LP30.c2c_port_bits_per_s / 8  # both ends of a cable send
    rows = (
        ("SRAM of the rack, B", 128e9, chips * LP30.sram_bytes),
        ("SRAM bandwidth, B/s", 40e15, total("sram")),
        ("fp8 operations per second", 315e15, total("fp8")),
        ("C2C bandwidth of all cabled lanes, both ways, B/s", 640e12, 2 * cabled),
    )
    for what, published, ours in rows:
        yield within("V39", what, published, ours, 4, LPX, where)
