"""How busy the units of chips are: what programs do, over what units could do in that time."""

from collections import Counter
from collections.abc import Collection, Iterable

from chip.board import Cable
from chip.energy import Activity
from chip.spec import HEMISPHERES, ChipSpec


def cable_vectors_per_cycle(cables: Iterable[Cable], chips: Collection[int]) -> float:
    """Vectors that the cables between some chips carry in a cycle, both ways."""
    paces = Counter(
        one.cycles_per_vector for one in cables if one.chip in chips and one.other_chip in chips
    )
    return float(sum(2 * count / pace for pace, count in paces.items()))


def busy_shares(
    activity: Activity, spec: ChipSpec, chips: int, cycles: int, cable_rate: float
) -> dict[str, float]:
    """Share of `cycles` for which the units of `chips` are busy, all of a kind together.

    `mxm` is that of the arrays: taking in weights or making products, whichever is more, as both go
    on at once. The cables carry `cable_rate` vectors a cycle.
    """
    planes, lanes, sides = spec.mxm_planes, spec.lanes, len(HEMISPHERES)
    per_array = lanes * lanes
    fp16 = planes // 2 * per_array / spec.abc_interval_fp16  # two planes hold an fp16 tile together
    at_best = cycles * chips
    weights = activity.weight_bytes / (sides * spec.lw_streams * lanes)
    products = activity.fp16_products / fp16 + activity.byte_products / (planes * per_array)
    shares = {
        "mxm": max(weights, products),
        "mxm_weights": weights,
        "mxm_products": products,
        "vxm": (activity.alu_lanes + activity.function_lanes) / (spec.vxm_alus * lanes),
        "sxm": activity.sxm_bytes / (sides * spec.streams * lanes),
        "mem": (activity.sram_read_bytes + activity.sram_write_bytes) / (2 * spec.slices * lanes),
    }
    found = {name: work / at_best for name, work in shares.items()}
    sent = activity.link_bytes / lanes
    return found | {"c2c": sent / (cable_rate * cycles) if cable_rate else 0.0}
