"""What of a chip's SRAM a plan leaves unused, and why."""

from typing import Any

from chip.isa import WIDTHS
from chip.program import WEIGHT_SLICES
from cluster.compiler.limits import WEIGHT_TYPES
from cluster.compiler.sizes import Sizes
from cluster.compiler.stages import Plan

MIB = 2**20


def unused_sram(plan: Plan, sizes: Sizes, stages: list[dict[str, Any]]) -> dict[str, Any]:
    """Bytes that the fullest stage leaves free, those that padding takes there, and the reason.

    `stages` are those of a report, with the bytes of each, programs included.
    """
    number = max(range(plan.pp), key=lambda n: int(stages[n]["sram_bytes"]))
    part, free = plan.stages[number], plan.spec.sram_bytes - stages[number]["sram_bytes"]
    sizes = sizes.cutting if plan.cut else sizes.whole
    layer, _ = sizes.weigh(plan.tp)
    room = sizes.most_layers(plan.tp, plan.chunk, part.head)
    if room > part.layers:
        why = f"{plan.pp} stages share the layers evenly; one more of {layer / MIB:.1f} MiB fits"
    elif free >= layer:
        slices = "slices beside the rows that they meet"
        if not plan.cut:
            slices = f"{WEIGHT_SLICES} neighbouring slices; they are cut only where no plan fits so"
        why = f"matrices of one more layer, {layer / MIB:.1f} MiB, find no {slices}"
    else:
        why = f"one more layer takes {layer / MIB:.1f} MiB"
    own = plan.parameters(number) * WIDTHS[WEIGHT_TYPES[plan.weights]] // plan.tp
    padding = max(0, stages[number]["sram"]["weights"] - own)
    return {"bytes": free, "padding_bytes": padding, "why": why}
