"""Lattices of any dimension: mesh, torus, hypercube and HyperX (all-to-all in every dimension).

Ports are numbered by direction: on a torus or mesh, axis a uses port 2a towards higher coordinates
and 2a + 1 towards lower ones at every chip, wherever that neighbour exists.
"""

import itertools
import math
from collections.abc import Iterator

import networkx as nx

from topology.building import Cable, build
from topology.links import NO_OVERRIDES, Overrides, Profile
from topology.links import profile as resolve
from topology.registry import dimensions, family, integers

Dims = tuple[int, ...]


@family("mesh:AxB..", "mesh:4x4", dimensions)
def mesh(
    dims: Dims, profile: str | Profile = "ship", overrides: Overrides = NO_OVERRIDES
) -> nx.Graph:
    """Return the lattice without wrap-around; chip ids count the last axis fastest."""
    return _lattice("mesh", dims, False, resolve(profile, overrides))


@family("torus:AxB..", "torus:8x8x8", dimensions)
def torus(
    dims: Dims, profile: str | Profile = "ship", overrides: Overrides = NO_OVERRIDES
) -> nx.Graph:
    """Return the lattice with wrap-around; an axis of 2 has one cable, not two."""
    return _lattice("torus", dims, True, resolve(profile, overrides))


@family("hypercube:D", "hypercube:6", integers(1, 1))
def hypercube(
    order: int, profile: str | Profile = "ship", overrides: Overrides = NO_OVERRIDES
) -> nx.Graph:
    """Return 2^order chips joined where ids differ in one bit; bit b is port b."""
    if order > 16:
        raise ValueError("a hypercube has at most 16 dimensions")
    chips = range(2**order)
    cables = (
        (chip, chip | 1 << bit, 1, "cable", (bit, bit))
        for chip in chips
        for bit in range(order)
        if not chip >> bit & 1
    )
    places = [tuple(chip >> bit & 1 for bit in reversed(range(order))) for chip in chips]
    return build(f"hypercube:{order}", resolve(profile, overrides), places, cables)


@family("hyperx:AxB..", "hyperx:4x4x4", dimensions)
def hyperx(
    dims: Dims, profile: str | Profile = "ship", overrides: Overrides = NO_OVERRIDES
) -> nx.Graph:
    """Return chips joined to all others that differ in one coordinate (Ahn et al., SC 2009)."""
    places, strides = _places(dims)

    def cables() -> Iterator[Cable]:
        for chip, place in enumerate(places):
            port = 0
            for size, stride, here in zip(dims, strides, place, strict=True):
                for there in range(here + 1, size):
                    # Port by cyclic distance along the axis: equal at every chip.
                    to, back = port + there - here - 1, port + size - (there - here) - 1
                    yield chip, chip + (there - here) * stride, 1, "cable", (to, back)
                port += size - 1

    return build(_name("hyperx", dims), resolve(profile, overrides), places, cables())


def _lattice(kind: str, dims: Dims, wrap: bool, profile: Profile) -> nx.Graph:
    places, strides = _places(dims)

    def cables() -> Iterator[Cable]:
        for axis, (size, stride) in enumerate(zip(dims, strides, strict=True)):
            for chip, place in enumerate(places):
                if place[axis] + 1 < size:
                    yield chip, chip + stride, 1, "cable", (2 * axis, 2 * axis + 1)
                elif wrap and size > 2:
                    yield chip, chip - stride * (size - 1), 1, "cable", (2 * axis, 2 * axis + 1)

    return build(_name(kind, dims), profile, places, cables())


def _places(dims: Dims) -> tuple[list[Dims], list[int]]:
    if any(size < 1 for size in dims) or math.prod(dims) < 2:
        raise ValueError("every dimension is at least 1 and there are at least 2 chips")
    strides = [math.prod(dims[axis + 1 :]) for axis in range(len(dims))]
    return list(itertools.product(*map(range, dims))), strides


def _name(kind: str, dims: Dims) -> str:
    return f"{kind}:{'x'.join(map(str, dims))}"
