"""The SPEC grammar: every topology is one decorated function, `parse` finds it by name."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import networkx as nx

from topology.errors import BadSpec
from topology.links import NO_OVERRIDES, Overrides, Profile
from topology.links import profile as resolve

Reader = Callable[[str, Sequence[str]], tuple[Any, ...]]
Build = TypeVar("Build", bound=Callable[..., nx.Graph])


@dataclass(frozen=True)
class Family:
    """A registered generator: how its SPEC reads, one that must build, and its default profile."""

    name: str
    usage: str
    example: str
    read: Reader
    build: Callable[..., nx.Graph]
    profile: str


MOST_CHIPS = 1 << 16  # the largest published system has 10,440

FAMILIES: dict[str, Family] = {}


def family(
    usage: str, example: str, read: Reader, profile: str = "ship"
) -> Callable[[Build], Build]:
    """Register a generator under the word before the colon of `usage`."""

    def register(build: Build) -> Build:
        name = usage.split(":")[0]
        FAMILIES[name] = Family(name, usage, example, read, build, profile)
        return build

    return register


def parse(
    spec: str,
    profile: str | Profile | None = None,
    overrides: Overrides = NO_OVERRIDES,
    clock_hz: int | None = None,
) -> nx.Graph:
    """Return the graph that SPEC describes, such as `torus:8x8x8`.

    The profile defaults to the family's own: `lp30` for `lpx`, `ship` for all others. For chips of
    another clock than the profile's, `clock_hz`, its cycles are converted before the overrides.
    Raises a TopologyError that says what is wrong and what would be right.
    """
    name, _, text = spec.partition(":")
    found = FAMILIES.get(name)
    if found is None:
        usages = ", ".join(sorted(f.usage for f in FAMILIES.values()))
        raise BadSpec(spec, f"unknown topology '{name}'", f"use one of {usages}")
    arguments = text.split(":") if text else []
    try:
        parameters = found.read(spec, arguments)
    except ValueError as error:
        raise BadSpec(spec, str(error), f"use {found.usage}, e.g. {found.example}") from None
    try:
        links = resolve(profile or found.profile)
        if clock_hz is not None:
            links = links.at_clock(clock_hz)
        return found.build(*parameters, profile=links, overrides=overrides)
    except ValueError as error:
        raise BadSpec(spec, str(error), f"use {found.usage}, e.g. {found.example}") from None


def integers(low: int, most: int) -> Reader:
    """Return a reader of `low` to `most` colon-separated positive integers."""

    def read(spec: str, arguments: Sequence[str]) -> tuple[Any, ...]:
        if not low <= len(arguments) <= most:
            raise ValueError(f"has {len(arguments)} parameters, needs {low}")
        return tuple(positive(a) for a in arguments)

    return read


def dimensions(spec: str, arguments: Sequence[str]) -> tuple[Any, ...]:
    """Read `8x8x8` as the one parameter (8, 8, 8)."""
    if len(arguments) != 1:
        raise ValueError(f"has {len(arguments)} parameters, needs one such as 4x4")
    sides = tuple(positive(a) for a in arguments[0].split("x"))
    if math.prod(sides) > MOST_CHIPS:
        raise ValueError(f"has {math.prod(sides):,} chips, {MOST_CHIPS:,} are the most")
    return (sides,)


def positive(text: str) -> int:
    """Return the positive integer in `text`, at most `MOST_CHIPS`."""
    digits = text.isascii() and text.isdigit() and len(text) < 10
    if not digits or not 1 <= int(text) <= MOST_CHIPS:
        raise ValueError(f"'{text}' is not an integer from 1 to {MOST_CHIPS:,}")
    return int(text)
