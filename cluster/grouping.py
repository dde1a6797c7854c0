"""Which actor holds which chips, what it is called, and how constants are cut into calls to it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from chip.core import Array
from chip.program import Region
from cluster.loadable import Loadable

CALL_BYTES = 4 << 20  # of weights in one call, or one constant if that is larger
Constant = tuple[int, Region, Array]  # chip, where, what


def grouped(lowered: Loadable, pack: int) -> list[list[int]]:
    """Chips of each actor: `pack` at a time, by stage and rank, transit chips last."""
    chips = [chip for group in lowered.placement for chip in group]
    chips += lowered.transit_chips
    return [chips[first : first + pack] for first in range(0, len(chips), pack)]


def actor_name(lowered: Loadable, group: Sequence[int]) -> str:
    """Such as `chip-017 stage 3 rank 1`; the first chip's, and how many more there are."""
    places = {
        chip: f"stage {stage} rank {rank}"
        for stage, ranks in enumerate(lowered.placement)
        for rank, chip in enumerate(ranks)
    }
    more = f" and {len(group) - 1} more" if len(group) > 1 else ""
    return f"chip-{group[0]:03d} {places.get(group[0], 'transit')}{more}"


def chunks(
    constants: Iterable[Constant], group_of: Mapping[int, int]
) -> Iterator[tuple[int, list[Constant]]]:
    """(group, constants) of a few megabytes each, in order within a group."""
    held: dict[int, list[Constant]] = {}
    sizes: dict[int, int] = {}
    for constant in constants:
        group = group_of[constant[0]]
        held.setdefault(group, []).append(constant)
        sizes[group] = sizes.get(group, 0) + constant[2].nbytes
        if sizes[group] >= CALL_BYTES:
            yield group, held.pop(group)
            sizes[group] = 0
    yield from held.items()
