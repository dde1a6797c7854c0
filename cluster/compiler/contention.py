"""Timing of what brings x from stage to stage, from the schedules of paths that meet.

Paths without a cable or an end in common never wait for each other, so each such group is scheduled
by itself; and groups that differ only in which chips and ports they take, alike.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chip.kernels.transfer import Renumbering
from chip.spec import ChipSpec
from cluster.compiler.wiring import Path


@dataclass(frozen=True)
class ContentionGroup:
    """Paths that meet, in order, between chips and ports by the order in which they come.

    `members` are the numbers that its chips have where it is found, `numbers` those of the paths.
    """

    paths: tuple[Path, ...]
    members: tuple[int, ...]
    numbers: tuple[int, ...]


def contention_groups(paths: Sequence[Path], spec: ChipSpec) -> Iterator[ContentionGroup]:
    """The paths, cut into those that meet.

    A chip has a stream and an ALU for every path through it, or all its paths are said to meet.
    """
    visits = Counter(chip for path in paths for chip in _chips(path))
    enough = min(spec.streams, spec.vxm_alus)
    crowded = {chip for chip, count in visits.items() if count > enough}
    holder: dict[tuple[object, ...], int] = {}
    meeting = [[number] for number in range(len(paths))]
    for number, path in enumerate(paths):
        for key in _held(path, crowded):
            other = meeting[holder.setdefault(key, number)]
            if other is not meeting[number]:
                other += meeting[number]
                for one in meeting[number]:
                    meeting[one] = other
    for number, mine in enumerate(meeting):
        if number == mine[0]:
            yield _renumbered(paths, sorted(mine))


def _chips(path: Path) -> list[int]:
    return [path[0].member, *(hop.to_member for hop in path)]


def _held(path: Path, crowded: set[int]) -> Iterator[tuple[object, ...]]:
    """What only one path can have at a time: cables, and the memory at its ends."""
    yield "memory", path[0].member
    yield "memory", path[-1].to_member
    for hop in path:
        yield "send", hop.member, hop.port
        yield "receive", hop.to_member, hop.to_port
    for chip in crowded.intersection(_chips(path)):
        yield "chip", chip


def _renumbered(paths: Sequence[Path], numbers: Sequence[int]) -> ContentionGroup:
    """Some of the paths, with chips and ports numbered anew."""
    anew = Renumbering()
    alike = tuple(anew.path(paths[one]) for one in numbers)
    return ContentionGroup(alike, tuple(anew.chips), tuple(numbers))
