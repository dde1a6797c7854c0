"""A collective as a list of messages and additions, between members of a group."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from chip.isa import WIDTHS
from chip.kernels.transfer import Hop


class Span(NamedTuple):
    """Consecutive rows of a slot, and their type; slots are numbered as in the list of messages."""

    slot: int
    first: int
    length: int
    dtype: str = "f32"


@dataclass(frozen=True)
class Message:
    """Rows on their way along `hops`, in the type of their source.

    `after` are the numbers of items that must come first. Those of one `step` are alike.
    """

    hops: tuple[Hop, ...]
    source: Span
    target: Span
    lands: bool  # apart from its target, where an addition takes it up
    start_cycle: int  # of the timetable: who comes first is placed first
    after: tuple[int, ...]
    step: int = 0


@dataclass(frozen=True)
class Addition:
    """A member makes `target` of its operands, added in fp32 from left to right; of one, a copy.

    An operand is a span of the member's own, or the number of a message that has landed there.
    """

    member: int
    target: Span
    operands: tuple[Span | int, ...]
    start_cycle: int
    after: tuple[int, ...]


class Items(tuple[Message | Addition, ...]):
    """The messages and additions of a collective, each known by its number in the list."""

    @cached_property
    def last_cycle(self) -> int:
        """The cycle of the timetable at which the last of them begins."""
        return max((item.start_cycle for item in self), default=0)

    @cached_property
    def _hash(self) -> int:
        return super().__hash__()

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)

    def __reduce__(self) -> tuple[type, tuple[tuple[Message | Addition, ...]]]:
        return Items, (tuple(self),)


def in_order(items: Items) -> Iterator[int]:
    """Numbers of the items by the cycles of the timetable, none before what it waits for."""
    waits = [len(item.after) for item in items]
    followers: dict[int, list[int]] = defaultdict(list)
    for number, item in enumerate(items):
        for other in item.after:
            followers[other].append(number)
    ready = [(items[n].start_cycle, n) for n, count in enumerate(waits) if not count]
    heapify(ready)
    while ready:
        _, number = heappop(ready)
        yield number
        for other in followers[number]:
            waits[other] -= 1
            if not waits[other]:
                heappush(ready, (items[other].start_cycle, other))


def urgent_first(items: Items) -> Items:
    """The same, each to be placed the sooner the more is to come of it: by most of its cycles.

    So what has far to go does not wait for what has not. By all of them what is on the longest way
    would be placed as it comes in the list, whatever the timetable says.
    """
    to_come: dict[int, int] = defaultdict(int)  # cycles from the start of an item to the last end
    for number in reversed([*in_order(items)]):
        item = items[number]
        if isinstance(item, Message):
            vectors = WIDTHS[item.source.dtype] * item.source.length
            pace = max(hop.interval_cycles for hop in item.hops)
            to_come[number] += sum(hop.latency_cycles for hop in item.hops) + vectors * pace
        for other in item.after:
            to_come[other] = max(to_come[other], to_come[number])
    return Items(
        replace(item, start_cycle=item.start_cycle - 7 * to_come[number] // 8)
        for number, item in enumerate(items)
    )
