"""What a finished chain takes, worked out once however often, and for whomever, it is placed."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from chip.errors import ProgramError
from chip.schedule.busy import joined
from chip.schedule.flows import Extent, Hold, Key, Need, Taken
from chip.schedule.taken import Kind

PORTS = ("c2c.s", "c2c.r")  # families of queues of ports
NAMES = {"stream": "streams", "vxm": "ALUs of the VXM", "sxm": "SXM queues"}


class Elsewhere(NamedTuple):
    """Who does what a chain says of members 0, 1, .., and over which ports.

    `ports` are by member and port in the chain; each must be on the side of the one in whose place
    it comes.
    """

    members: Sequence[int]
    ports: Mapping[tuple[int, int], int]


class Unit(NamedTuple):
    """A unit that a chain takes from cycle `low` on, in the cycles of a `pattern` of bits."""

    member: int
    key: Key
    low: int
    pattern: int


class Choice(NamedTuple):
    """What kind of thing a Need wants, and when: see there."""

    member: int
    kind: Kind
    low: int
    high: int


class Footprint(NamedTuple):
    """Of a chain: units at cycles that follow from its start, and what is left to choose."""

    first: int  # issue of all
    units: list[Unit]
    ports: list[Unit]  # of them: those that an `Elsewhere` may move
    choices: list[Choice]


class Finished(Protocol):
    """A chain to which nothing is added any more."""

    label: str
    needs: list[Need]
    fixed: dict[Hold, list[Taken]]
    member_spans: dict[int, Extent]


def footprint(chain: Finished) -> Footprint:
    """What a chain takes; raises ProgramError if that is a unit twice in a cycle."""
    every: dict[tuple[int, Key], Unit] = {}
    for hold, taken in chain.fixed.items():
        low, pattern, once = joined(taken)
        for key, late in hold.units():
            unit, known = Unit(hold.member, key, low + late, pattern), every.get((hold.member, key))
            if known is not None:
                both = [(one.low, one.pattern.bit_length(), one.pattern) for one in (known, unit)]
                first, bits, apart = joined(both)
                once, unit = once and apart, unit._replace(low=first, pattern=bits)
            every[hold.member, key] = unit
        if not once:  # it fits nowhere: that is a bug of its kernel
            raise ProgramError(f"chain {chain.label} collides with itself on {hold}")
    units = [unit for unit in every.values() if unit.key[0] not in PORTS]
    ports = [unit for unit in every.values() if unit.key[0] in PORTS]
    choices = [
        Choice(n.member, (n.kind, n.side, n.width, tuple(n.halves) or (0,)), n.low, n.high)
        for n in chain.needs
    ]
    first = min(extent.first for extent in chain.member_spans.values())
    return Footprint(first, units, ports, choices)


def too_many(label: str, choices: Sequence[Choice], short: Choice, there_are: int) -> ProgramError:
    """The error of a chain that wants more at once than a chip has of what it is `short` of."""
    kind, side, width, _ = short.kind
    mine = [one for one in choices if one.member == short.member and one.kind[:2] == (kind, side)]
    most = max(
        sum(one.kind[2] for one in mine if one.low <= other.low < one.high) for other in mine
    )
    wants = f"wants {most} {NAMES[kind]} at once, {width} of them side by side"
    return ProgramError(f"chain {label} {wants}: a chip has {there_are}; let it be two chains")
