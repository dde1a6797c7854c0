"""The memory map of a stage: room for all that its kernels ask for."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from chip.kernels.memory import FOREVER, MemoryMap
from chip.kernels.trial import Demands
from chip.kernels.work import CACHE, SCRATCH
from chip.spec import ChipSpec


def memory_map(
    spec: ChipSpec,
    demands: Demands,
    layers: Mapping[str, int],
    slots: int,
    fixed: Sequence[tuple[str, tuple[int, int, int], int, str]],
) -> MemoryMap:
    """Room for all that was asked for; raises SramFull.

    `fixed` buffers have a place: (name, (side, quad, bank), vectors, dtype).
    """
    found, met = MemoryMap(spec, layers, slots), demands.conflicts
    for name, place, vectors, dtype in fixed:
        found.rows(name, place, vectors, dtype)
    everything = [r for r in demands.requests if r.name not in found.buffers]
    columns = [request for request in everything if request.layout == "columns"]
    for request in sorted(columns, key=lambda r: (not r.per_layer, r.role == CACHE, -r.vectors)):
        found.place_columns(request, met)
    weight: dict[str, int] = defaultdict(int)
    for pair, cycles in (*met.slices.items(), *met.banks.items()):
        for name in pair:
            weight[name] += cycles
    rows = [request for request in everything if request.layout == "rows"]
    for request in sorted(rows, key=lambda r: (-weight[r.name], r.name)):
        life = demands.lives[request.name] if request.role == SCRATCH else FOREVER
        found.place(request, life, met)
    return found.finish()
