"""Pipelines as they are kept: who is where, and by what digests its routes are known.

The routes themselves are found anew where somebody wants to look at them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from chip.kernels.allreduce import Network
from chip.kernels.transfer import Hop
from cluster.compiler.wiring import NO_ONWARD, Group, Onward, Path, Paths, Pipeline, StageLink

Routed = Callable[[], Pipeline]


class KeptRoutes:
    """Reads pipelines of a graph; what several have in common is one object."""

    def __init__(self) -> None:
        self._networks: dict[str, Network] = {}
        self._links: dict[tuple[object, ...], StageLink] = {}

    def read(self, plain: Any, placement: Sequence[tuple[int, ...]], routed: Routed) -> Pipeline:
        """A pipeline from JSON; the rest of it is as `routed` finds it."""
        groups, alone = (
            tuple(self._group(kept, placement[n], n, is_alone, routed) for n, kept in enumerate(of))
            for is_alone, of in enumerate((plain["groups"], plain["alone"]))
        )
        links = tuple(self._link(kept, n, routed) for n, kept in enumerate(plain["links"]))
        return Pipeline(groups, links, alone)

    def _group(
        self, kept: Any, chips: tuple[int, ...], number: int, alone: int, routed: Routed
    ) -> Group:
        digest, further = kept
        if digest not in self._networks:

            def found() -> Network:
                pipeline = routed()
                return (pipeline.groups, pipeline.alone)[alone][number].routes

            self._networks[digest] = _later(digest, found)
        return Group((*chips, *further), self._networks[digest])

    def _link(self, kept: Any, number: int, routed: Routed) -> StageLink:
        chips, paths, onward = kept
        key = (*chips, paths, onward)
        if key not in self._links:
            self._links[key] = StageLink(
                tuple(chips),
                Paths(paths, lambda: routed().links[number].paths),
                Onward(onward, lambda: routed().links[number].onward) if onward else NO_ONWARD,
            )
        return self._links[key]


def plain(pipeline: Pipeline, ranks: int) -> dict[str, Any]:
    """What `read` takes, as JSON, of a pipeline of groups of so many ranks."""
    every = {"groups": pipeline.groups, "alone": pipeline.alone}
    found: dict[str, Any] = {
        name: [(group.routes.digest, group.members[ranks:]) for group in groups]
        for name, groups in every.items()
    }
    links = ((one.chips, one.paths.digest, one.onward.digest) for one in pipeline.links)
    return found | {"links": list(links)}


class _Later(Mapping[tuple[int, int], Path]):
    """Routes that are found once somebody asks for one."""

    def __init__(self, find: Callable[[], Network]) -> None:
        self._find = find

    @cached_property
    def network(self) -> Network:
        return self._find()

    def __getitem__(self, pair: tuple[int, int]) -> tuple[Hop, ...]:
        return self.network[pair]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.network)

    def __len__(self) -> int:
        return len(self.network)


def _later(digest: str, find: Callable[[], Network]) -> Network:
    routes = _Later(find)
    return Network(
        digest,
        routes,
        lambda *what: routes.network.all_reduce(*what),
        lambda: routes.network.written(),
    )
