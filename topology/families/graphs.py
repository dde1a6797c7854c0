"""The basic shapes: ring, full, the published 8-chip node; and random regular graphs."""

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import networkx as nx

from topology.building import Cable, alone, build, in_nodes_of
from topology.links import NO_OVERRIDES, Overrides, Profile
from topology.links import profile as resolve
from topology.registry import family, integers, positive

NODE_CHIPS = 8


@family("ring:N", "ring:16", integers(1, 1))
def ring(
    chips: int, profile: str | Profile = "ship", overrides: Overrides = NO_OVERRIDES
) -> nx.Graph:
    """Return a cycle of chips; two chips are joined by one cable."""
    if chips < 2:
        raise ValueError("a ring needs at least 2 chips")
    cables = ((chip, (chip + 1) % chips, 1, "cable", None) for chip in range(chips - (chips == 2)))
    return build(f"ring:{chips}", resolve(profile, overrides), _line(chips), cables)


@family("full:N", "full:16", integers(1, 1))
def full(
    chips: int, profile: str | Profile = "ship", overrides: Overrides = NO_OVERRIDES
) -> nx.Graph:
    """Return chips in which every pair has its own cable."""
    if chips < 2:
        raise ValueError("an all-to-all needs at least 2 chips")
    return build(
        f"full:{chips}", resolve(profile, overrides), _line(chips), all_to_all(range(chips))
    )


@family("node", "node", integers(0, 0))
def node(profile: str | Profile = "ship", overrides: Overrides = NO_OVERRIDES) -> nx.Graph:
    """Return the published node: 8 chips, 28 local cables, 7 of 11 ports of each chip (ISCA'22)."""
    resolved = resolve(profile, overrides)
    return build(
        "node",
        resolved,
        _line(NODE_CHIPS),
        all_to_all(range(NODE_CHIPS), "node"),
        in_nodes_of(NODE_CHIPS),
        resolved.ports_per_chip,
    )


def _random_parameters(spec: str, arguments: Sequence[str]) -> tuple[Any, ...]:
    if not 2 <= len(arguments) <= 3:
        raise ValueError(f"has {len(arguments)} parameters, needs 2 or 3")
    return positive(arguments[0]), positive(arguments[1]), (arguments[2:] or ["0"])[0]


@family("random:N:DEGREE:SEED", "random:64:6:1", _random_parameters)
def random(
    chips: int,
    degree: int,
    seed: int | str = 0,
    profile: str | Profile = "ship",
    overrides: Overrides = NO_OVERRIDES,
) -> nx.Graph:
    """Return a connected random regular graph; a seed that is a word counts by its CRC-32."""
    if not 2 <= degree < chips or chips * degree % 2:
        raise ValueError(f"no connected {degree}-regular graph of {chips} chips exists for sure")
    number = int(seed) if str(seed).isdecimal() else zlib.crc32(str(seed).encode())
    # A random regular graph of degree 2 falls apart often, any other hardly ever: try again.
    for attempt in range(1000):
        drawn = nx.random_regular_graph(degree, chips, seed=(number + attempt * 1_000_003) % 2**32)
        if nx.is_connected(drawn):
            break
    cables = ((u, v, 1, "cable", None) for u, v in sorted(tuple(sorted(e)) for e in drawn.edges))
    name = f"random:{chips}:{degree}:{seed}"
    return build(name, resolve(profile, overrides), _line(chips), cables, alone)


def all_to_all(chips: Sequence[int], kind: str = "cable", count: int = 1) -> Iterator[Cable]:
    """Yield one cable (or `count` parallel ones) for each pair of `chips`."""
    return ((u, v, count, kind, None) for i, u in enumerate(chips) for v in chips[i + 1 :])


def _line(chips: int) -> list[tuple[int, ...]]:
    return [(chip,) for chip in range(chips)]
