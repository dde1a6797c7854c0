"""A placed pipeline: groups of chips, and the hops inside them and between them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import TypeVar, overload

from chip.kernels.allreduce import Network
from chip.kernels.transfer import Hop
from cluster.compiler.launch import LaunchKind
from topology.fabric import Ints

Path = tuple[Hop, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """Chips that work together: the group's ranks, then those that only pass vectors on.

    `routes` lead from each rank to each other, as hops between numbers in `members`.
    """

    members: tuple[int, ...]
    routes: Network


class Written(Sequence[T]):
    """What is written out once somebody looks at it, and is known by its `digest` until then."""

    def __init__(self, digest: str, write: Callable[[], Iterable[T]]) -> None:
        self.digest, self._write = digest, write

    @cached_property
    def _all(self) -> tuple[T, ...]:
        return tuple(self._write())

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[T, ...]: ...
    def __getitem__(self, at: int | slice) -> T | tuple[T, ...]:
        return self._all[at]

    def __len__(self) -> int:
        return len(self._all)

    def __bool__(self) -> bool:
        return bool(self.digest)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Written) and self.digest == other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)


class Paths(Written[Path]):
    """Paths of x from each rank of a stage to the next."""


class Onward(Written[tuple[Path, ...]]):
    """Paths of what has come to each rank, to the others of its team."""


NO_ONWARD = Onward("", tuple)


def as_paths(paths: Iterable[Path]) -> Paths:
    """Paths that are written out."""
    every = tuple(paths)
    return Paths(sha256(repr(every).encode()).hexdigest(), lambda: every)


def digest_of(*parts: Ints) -> str:
    """SHA-256 of some arrays of certain shapes."""
    return sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


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
    every = [chip for group in groups for chip in group.members]
    return len(set(every)) == len(every)
