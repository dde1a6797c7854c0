"""Sync and Notify: when a parked queue goes on, which follows from all queues of a program."""

import heapq
from bisect import bisect_left
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from chip.errors import NeverNotified

SYNC, NOTIFY = "icu.sync", "icu.notify"


class Queued(Protocol):
    """What a queue holds."""

    @property
    def op(self) -> str:
        """Mnemonic."""

    @property
    def queue_cycles(self) -> int:
        """Cycles for which it holds its queue."""


T = TypeVar("T", bound=Queued)
Event = tuple[int, bool]  # cycle, whether it is a Notify


def issue_cycles(
    queue: Iterable[T], notices: Sequence[int] = (), barrier_cycles: int = 0
) -> Iterator[tuple[int, T]]:
    """First issue cycle of each instruction of a queue, with the cycles of all Notifies."""
    cycle = 0
    for instruction in queue:
        yield cycle, instruction
        if instruction.op == SYNC:
            cycle = notices[bisect_left(notices, cycle)] + barrier_cycles
        else:
            cycle += instruction.queue_cycles


def notices(
    chip: int, queues: Mapping[str, Sequence[Queued]], barrier_cycles: int
) -> tuple[int, ...]:
    """Cycles of all Notifies, in order; raises NeverNotified for a queue that stays parked.

    Queues are followed from one Sync or Notify to the next, the earliest first: what one does
    never reaches back in time.
    """
    events = {name: _events(queue) for name, queue in queues.items() if _takes_part(queue)}
    ahead: list[tuple[int, bool, str]] = []
    found: list[int] = []
    parked: dict[str, int] = {}

    def go_on(name: str, resumed: int) -> None:
        try:
            event = events[name].send(resumed) if resumed else next(events[name])
        except StopIteration:
            return
        heapq.heappush(ahead, (*event, name))

    for name in events:
        go_on(name, 0)
    while ahead:
        cycle, notifies, name = heapq.heappop(ahead)
        if not notifies:  # in one cycle before the Notify, which releases it
            parked[name] = cycle
            continue
        found.append(cycle)
        for waiting in parked:
            go_on(waiting, cycle + barrier_cycles)
        parked.clear()
        go_on(name, cycle + 1)
    for name, cycle in parked.items():
        raise NeverNotified(chip, name, cycle, SYNC, "no Notify comes in this cycle or later")
    return tuple(found)


def _takes_part(queue: Sequence[Queued]) -> bool:
    return any(instruction.op in (SYNC, NOTIFY) for instruction in queue)


def _events(queue: Sequence[Queued]) -> Generator[Event, int, None]:
    """The Syncs and Notifies of a queue; each is answered with the cycle it goes on in."""
    cycle = 0
    for instruction in queue:
        if instruction.op in (SYNC, NOTIFY):
            cycle = yield cycle, instruction.op == NOTIFY
        else:
            cycle += instruction.queue_cycles
