"""A placed pipeline: groups of chips, and the hops inside them and between them."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import TypeVar

from chip.kernels.allreduce import Network
from chip.kernels.transfer import Hop
from cluster.compiler.launch import LaunchKind

Path = tuple[Hop, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """Chips that work together: the group's ranks, then those that only pass vectors on.

    `routes` lead from each rank to each other, as hops between numbers in `members`.
    """

    members: tuple[int, ...]
    routes: Network


class _Known(tuple[T, ...]):
    """A tuple of many parts, whose hash and digest are taken once."""

    @cached_property
    def _hash(self) -> int:
        return super().__hash__()

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        return sha256(repr(tuple(self)).encode()).hexdigest()


class Paths(_Known[Path]):
    """Paths of x from each rank of a stage to the next."""


class Onward(_Known[tuple[Path, ...]]):
    """Paths of what has come to each rank, to the others of its team."""


@dataclass(frozen=True)
class StageLink:
    """Between two stages: the chips involved, and the paths as hops between their numbers.

    What has come to a rank may go `onward` to the others of its team.
    """

    chips: tuple[int, ...]
    paths: Paths
    onward: Onward

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        parts = self.chips, self.paths.digest, self.onward.digest
        return sha256(repr(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Pipeline:
    """A placed pipeline: the chips of its stages, with the routes in them and between them.

    In launches in which one stage is at work at a time its all-reduces may go through chips of the
    others: such groups are `alone`.
    """

    groups: tuple[Group, ...]
    links: tuple[StageLink, ...]
    alone: tuple[Group, ...]

    def groups_of(self, kind: LaunchKind) -> tuple[Group, ...]:
        """Groups as launches of a kind have them; chunks of a prompt have all stages at work."""
        return self.groups if self.apart and not kind.logits_rows else self.alone

    @cached_property
    def apart(self) -> bool:
        """Whether no stage needs a chip of another one, so that they can work side by side."""
        return disjoint(self.groups)

    @cached_property
    def used(self) -> frozenset[int]:
        """Chips that hold a part of the model or pass its vectors on."""
        members = {chip for group in (*self.groups, *self.alone) for chip in group.members}
        return frozenset(members.union(*(link.chips for link in self.links)))


def disjoint(groups: Iterable[Group]) -> bool:
    """Whether no chip is in two of the groups."""
    seen: set[int] = set()
    for group in groups:
        if not seen.isdisjoint(group.members):
            return False
        seen.update(group.members)
    return True
