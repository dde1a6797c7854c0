"""What the host writes before a launch and reads after it, by name, and where in SRAM."""

from collections.abc import Sequence

from chip.isa import WIDTHS
from chip.kernels.pool import EMBEDDING, POOL_INPUTS
from chip.program import COLUMN_PAIRS, Region
from cluster.compiler.launch import LaunchKind
from cluster.compiler.stage import Stage


def input_regions(
    stage: Stage, first: bool, kind: LaunchKind, prefix: str = ""
) -> dict[str, Region]:
    """What the host writes before a launch, to buffers of these names with a prefix."""
    tokens = kind.rows
    others = dict.fromkeys(POOL_INPUTS, 1)
    for window in stage.shape.windows:
        others[window.mask] = window.blocks(kind.blocks) * tokens
        others[window.maps] = kind.slots * max(tokens // kind.slots, COLUMN_PAIRS)
    rows = {name: others.get(name, tokens) for name in stage.memory.given()}
    if first:
        rows[stage.entry] = stage.hidden_blocks * tokens
    return {
        name: stage.view(prefix + name, count).region
        for name, count in rows.items()
        if prefix + name in stage.memory.buffers
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


def host_bytes(stages: Sequence[Stage], kind: LaunchKind) -> tuple[int, int]:
    """Bytes in and out of the chip with the most; every chip has a host link of its own.

    The first of the stages is that which takes x.
    """
    lanes = stages[0].spec.lanes

    def size(regions: dict[str, Region]) -> int:
        return sum(r.vectors * WIDTHS[r.dtype] * lanes for r in regions.values())

    ins = (size(input_regions(stage, n == 0, kind)) for n, stage in enumerate(stages))
    outs = (size(output_regions(stage, kind)) for stage in stages)
    return max(ins), max(outs)
