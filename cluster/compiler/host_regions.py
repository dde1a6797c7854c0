"""What the host writes before a launch and reads after it, by name, and where in SRAM."""

from collections.abc import Sequence

from chip.isa import WIDTHS
from chip.kernels.attention_to_all import KEY_MASK
from chip.kernels.pool import EMBEDDING, POOL_INPUTS
from chip.program import COLUMN_PAIRS, Region
from cluster.compiler.launch import LaunchKind
from cluster.compiler.stage import Stage


def input_regions(
    stage: Stage, first: bool, kind: LaunchKind, prefix: str = "", entry: str | None = None
) -> dict[str, Region]:
    """What the host writes before a launch, to buffers of these names with a prefix.

    x goes to the buffer `entry`, if that is not where the stage wants it.
    """
    tokens = kind.rows
    others = dict.fromkeys((*KEY_MASK.values(), *POOL_INPUTS), 1)
    for window in stage.shape.windows:
        others[window.mask] = window.blocks(kind.blocks) * tokens
        rows = kind.slots * max(tokens // kind.slots, COLUMN_PAIRS)
        others |= dict.fromkeys(window.maps_of(stage.blocks), rows)
    sizes = {name: others.get(name, tokens) for name in stage.memory.given()}
    if first:
        sizes[stage.entry] = stage.hidden_blocks * tokens
    places = {name: prefix + name for name in sizes}
    if first and entry is not None:
        places[stage.entry] = entry
    return {
        name: stage.view(places[name], count).region
        for name, count in sizes.items()
        if places[name] in stage.memory.buffers
    }


def output_regions(stage: Stage, kind: LaunchKind, prefix: str = "") -> dict[str, Region]:
    """What the host reads after a launch, from buffers of these names with a prefix."""
    if stage.shape.head is None or not kind.logits_rows:
        return {}
    names = (*(f"logits{side}" for side in (0, 1)), EMBEDDING)
    return {
        name: stage.memory[prefix + name].region
        for name in names
        if prefix + name in stage.memory.buffers
    }


def host_bytes(stages: Sequence[Stage], kind: LaunchKind, with_x: bool = True) -> tuple[int, int]:
    """Bytes in and out of the chip with the most; every chip has a host link of its own.

    The first of the stages is that which takes x, if any does.
    """
    lanes = stages[0].spec.lanes

    def size(regions: dict[str, Region]) -> int:
        return sum(r.vectors * WIDTHS[r.dtype] * lanes for r in regions.values())

    ins = (size(input_regions(stage, with_x and n == 0, kind)) for n, stage in enumerate(stages))
    outs = (size(output_regions(stage, kind)) for stage in stages)
    return max(ins), max(outs)
