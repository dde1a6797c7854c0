"""Which actor holds which chips, what it is called, and what is sent to it, in which pieces."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from chip.core import Array
from chip.program import Region
from chip.wire import body_of, pack_value
from cluster.machines.loadable import Loadable
from cluster.machines.machine import Inputs

CALL_BYTES = 4 << 20  # of weights in one call, or one constant if that is larger
Constant = tuple[int, Region, Array]  # chip, where, what
T = TypeVar("T")


def grouped(lowered: Loadable, pack: int) -> list[list[int]]:
    """Chips of each actor: at most `pack`, whole tensor groups or parts of one; transit last."""
    found: list[list[int]] = []
    tp = max(map(len, lowered.placement))
    if pack >= tp:
        stages = pack // tp
        for first in range(0, len(lowered.placement), stages):
            held = lowered.placement[first : first + stages]
            found.append([chip for ranks in held for chip in ranks])
    else:
        for ranks in lowered.placement:
            found += _cut(ranks, pack)
    return found + _cut(lowered.transit_chips, pack)


def _cut(chips: Sequence[int], pack: int) -> list[list[int]]:
    return [list(chips[first : first + pack]) for first in range(0, len(chips), pack)]


def by_group(groups: Sequence[Sequence[int]], by_chip: Mapping[int, T]) -> dict[int, dict[int, T]]:
    """What each group, by number, has of something; without those that have nothing."""
    found = {
        number: {chip: by_chip[chip] for chip in group if chip in by_chip}
        for number, group in enumerate(groups)
    }
    return {number: mine for number, mine in found.items() if mine}


def bundled(lowered: Loadable, groups: Sequence[Sequence[int]]) -> list[list[int]]:
    """Which groups, by number, must share a host: those of one stage; others are on their own."""
    stage_of = {chip: n for n, ranks in enumerate(lowered.placement) for chip in ranks}
    found: dict[object, list[int]] = {}
    for number, group in enumerate(groups):
        found.setdefault(stage_of.get(group[0], f"transit {number}"), []).append(number)
    return list(found.values())


def actor_name(lowered: Loadable, group: Sequence[int]) -> str:
    """Such as `chip-017 stage 3 rank 1`; the first chip's, and how many more there are."""
    places = {
        chip: f"stage {stage} rank {rank}"
        for stage, ranks in enumerate(lowered.placement)
        for rank, chip in enumerate(ranks)
    }
    more = f" and {len(group) - 1} more" if len(group) > 1 else ""
    return f"chip-{group[0]:03d} {places.get(group[0], 'transit')}{more}"


def programs_of(lowered: Loadable, group: Sequence[int]) -> list[tuple[str, int, bytes]]:
    """(launch, chip, msgpack) of every program of the chips of a group."""
    return [
        (name, chip, launch.programs[chip])
        for name, launch in lowered.launches.items()
        for chip in group
        if chip in launch.programs
    ]


def distinct(lowered: Loadable) -> list[bytes]:
    """The programs of all chips and launches, one of those that are linked alike."""
    programs = (data for launch in lowered.launches.values() for data in launch.programs.values())
    return list({body_of(data): data for data in programs}.values())


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


def pack_inputs(inputs: Inputs) -> bytes:
    """The host's inputs of a launch for all actors; a table of chips in a row is packed once."""
    tables: list[Array] = []
    last: dict[str, int] = {}  # by name, where the table of the chip before is
    chips: dict[int, dict[str, int]] = {}
    for chip, named in inputs.items():
        for key, values in named.items():
            if key not in last or tables[last[key]] is not values:
                last[key] = len(tables)
                tables.append(values)
        chips[chip] = {key: last[key] for key in named}
    return pack_value([tables, chips])


def waves(groups: Sequence[Sequence[int]], chip_bytes: int, most_bytes: int) -> list[range]:
    """Actors, a few at a time: `chip_bytes` of each of their chips are under way together."""
    size = max(len(group) for group in groups) * chip_bytes
    wave, total = max(1, most_bytes // size), len(groups)
    return [range(n, min(n + wave, total)) for n in range(0, total, wave)]
