"""What the host writes before a launch and reads after it, by name, and where in SRAM."""

from collections.abc import Sequence

from chip.isa import WIDTHS
from chip.kernels.pool import EMBEDDING
from chip.program import Region
from cluster.compiler.stage import Stage


def input_regions(
    stage: Stage, first: bool, tokens: int, blocks: int, prefix: str = ""
) -> dict[str, Region]:
    """What the host writes before a launch, to buffers of these names with a prefix."""
    rows = {"cos": tokens, "sin": tokens, "mask": blocks * tokens, "maps": max(tokens, 8)}
    rows |= {"poolmask": 1, "poolscale": 1}
    if first:
        rows[stage.entry] = stage.hidden_blocks * tokens
    return {
        name: stage.view(prefix + name, count).region
        for name, count in rows.items()
        if prefix + name in stage.memory.buffers
    }


def output_regions(stage: Stage, tokens: int, prefix: str = "") -> dict[str, Region]:
    """What the host reads after a launch, from buffers of these names with a prefix."""
    if not stage.has_head(tokens):
        return {}
    names = (*(f"logits{side}" for side in (0, 1)), EMBEDDING)
    return {
        name: stage.memory[prefix + name].region
        for name in names
        if prefix + name in stage.memory.buffers
    }


def host_bytes(stages: Sequence[Stage], tokens: int, blocks: int) -> tuple[int, int]:
    """Bytes in and out of the chip with the most; every chip has a host link of its own."""
    lanes = stages[0].spec.lanes

    def size(regions: dict[str, Region]) -> int:
        return sum(r.vectors * WIDTHS[r.dtype] * lanes for r in regions.values())

    ins = (size(input_regions(stage, n == 0, tokens, blocks)) for n, stage in enumerate(stages))
    outs = (size(output_regions(stage, tokens)) for stage in stages)
    return max(ins), max(outs)
