"""V15, V22: all-reduces as programs that are executed, every bit as NumPy adds."""

from collections.abc import Iterator
from itertools import pairwise

import networkx as nx

from chip.isa import WIDTHS
from chip.spec import GROQCHIP1
from cluster.runs.collective import execute_collective
from cluster.validate.row import Row, missed, within
from topology import parse
from topology.collectives import Collective, collective

ISCA22, SHIP = "Abts et al., ISCA 2022", "SHIP, MLSys 2026"
KIB = 1 << 10
HALF_KIB = (24, 32, 40, 48, 64)  # sizes that are looked at
LARGE_BYTES = 1 << 20  # of an all-reduce that shows what links carry at most


def collective_rows() -> Iterator[Row]:
    """V15: latency of a small all-reduce; V22: the size at which it has half the bandwidth."""
    yield _small()
    yield _half()


def _small() -> Row:
    timed = _timed(parse("dragonfly:256", "isca22"), GROQCHIP1.lanes * WIDTHS["f32"])
    cycles, clock = _executed(timed), GROQCHIP1.clock_hz
    what = f"all-reduce of one row of fp32 on 256 chips, s ({timed.algorithm})"
    where = "executed, 1,280 B a chip, link profile isca22"
    row = within("V15", what, 2.1e-6, cycles / clock, 10, ISCA22, where)
    reason = (
        f"three hops of 722 ns make the published figure for a vector of 320 B; a row of fp32 is "
        f"four of them, which alone make {timed.cycles / clock * 1e6:.2f} us in the timetable; "
        f"programs add {cycles - timed.cycles:,} cycles to cross chips and to add"
    )
    return missed(row, reason)


def _half() -> Row:
    graph = parse("node", "ship")
    most = _timed(graph, LARGE_BYTES).busbw_bytes_per_s
    shares: list[tuple[int, float]] = []
    for kib in HALF_KIB:
        timed = _timed(graph, kib * KIB)
        executed = _executed(timed)
        shares.append((kib, timed.busbw_bytes_per_s * timed.cycles / executed / most))
        if shares[-1][1] >= 0.5:
            break
    what = f"all-reduce on {len(graph)} chips, size with half the bandwidth, B"
    seen = ", ".join(f"{share:.0%} at {kib} KiB" for kib, share in shares)
    where = f"executed on a node, link profile ship, whole rows of fp32; {seen}"
    # within a factor of 1.5: from two thirds to half as much again
    found, published = _crossing(shares) * KIB, 32 * KIB
    ok = 2 / 3 <= found / published <= 1.5
    row = Row("V22", what, published, found, "factor of 1.5", ok, SHIP, where)
    reason = (
        f"half of the {most / 1e9:.0f} GB/s that 1 MiB has in the timetable; {timed.algorithm} at "
        f"{shares[-1][0]} KiB takes {timed.cycles:,} cycles by the timetable, {executed:,} executed"
    )
    return missed(row, reason)


def _timed(graph: nx.Graph, size: int) -> Collective:
    return collective("all_reduce", graph, size, unit_vectors=WIDTHS["f32"])


def _executed(timed: Collective) -> int:
    """Cycles on emulated chips, which must have NumPy's bits."""
    found = execute_collective(timed)
    assert not found.wrong_values, f"{found.wrong_values} values differ from NumPy's"
    return found.cycles


def _crossing(shares: list[tuple[int, float]]) -> float:
    """The KiB at which half is reached, between the last two sizes; the last one if it is not."""
    for (small, low), (large, high) in pairwise(shares):
        if low < 0.5 <= high:
            return small + (large - small) * (0.5 - low) / (high - low)
    return float(shares[-1][0])
