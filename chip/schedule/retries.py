"""What could be chosen for a chain at later starts, found without booking anything.

A chain of many needs may not fit at dozens of starts in a row. What others have taken is looked up
for a window of starts at once, as a mask of candidates for each cycle; what the chain itself takes
moves along with it, so that which of its needs are in each other's way is worked out once.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from chip.schedule.busy import Busy
from chip.schedule.footprint import Choice
from chip.schedule.taken import Candidates, Kind, wait_for

WINDOW = 256  # starts looked at together
NEAR = 64  # cycles within which nearly all waits are over
Wanted = tuple[Candidates, int, int]  # what a need can choose from; first cycle and end


class Retries:
    """One chain, of which needs and `choices` are known as `taken.choose` has them."""

    def __init__(self, needs: Sequence[Choice], choices: Sequence[Wanted]) -> None:
        self._choices = choices
        self._keys = [(need.member, need.kind, need.high - need.low) for need in needs]
        self._same = [(need.member, *need.kind[:2]) for need in needs]
        self._lows = [need.low for need in needs]
        self._range = min(self._lows), max(self._lows)
        self._first = self._end = 0  # of the starts that are looked up
        self._free: list[list[int]] = []  # of each need, by start: bit n if candidate n is free
        for candidates, _, _ in choices:
            while candidates.more():
                pass
        self._rivals = _rivals(needs, [candidates for candidates, _, _ in choices])

    def wait(self, start: int) -> tuple[int, int | None]:
        """How long to wait at a start, and for which need; None if all can be met there."""
        if not self._first <= start < self._end:
            self._look_up(start)
        at, chosen = start - self._first, list[int]()
        for number, (free, rivals) in enumerate(zip(self._free, self._rivals, strict=True)):
            left = free[at]
            for other, in_way in rivals:
                left &= ~in_way[chosen[other]]
            if not left:
                return self._wait_for(number, chosen, start), number
            chosen.append((left & -left).bit_length() - 1)
        return 0, None

    def _wait_for(self, number: int, chosen: Sequence[int], start: int) -> int:
        """Cycles until one can be met, with what those before it have chosen."""
        wait = self._wait_before(number, chosen, start, self._choices[number][2] + NEAR)
        return wait if wait <= NEAR else self._wait_before(number, chosen, start, None)

    def _wait_before(
        self, number: int, chosen: Sequence[int], start: int, until: int | None
    ) -> int:
        """The same, where nothing chosen from a cycle on is in the way."""
        taken: list[tuple[Busy, int, int]] = []
        candidates, low, high = self._choices[number]
        same = self._same[number]
        for other, pick in enumerate(chosen):
            there, first, end = self._choices[other]
            if end > low and self._same[other] == same and (until is None or first < until):
                for table in there.made[pick][1]:
                    table.take(first + start, end + start)
                    taken.append((table, first + start, end + start))
        wait = wait_for(candidates, low, high, start)
        for table, first, end in reversed(taken):
            table.release(first, end)
        return wait

    def _look_up(self, start: int) -> None:
        """What others leave free for every need, at starts from `start` on."""
        self._first, self._end = start, start + WINDOW
        low, high = self._range
        masks: dict[tuple[int, Kind, int], list[int]] = {}
        for key, (candidates, _, _) in zip(self._keys, self._choices, strict=True):
            if key not in masks:
                masks[key] = _free(candidates, key[2], start + low, start + high + WINDOW)
        offsets = [one - low for one in self._lows]
        self._free = [
            masks[key][offset : offset + WINDOW]
            for key, offset in zip(self._keys, offsets, strict=True)
        ]


def _free(candidates: Candidates, length: int, first: int, end: int) -> list[int]:
    """By cycle from `first` on: bit n if candidate n is free for `length` cycles from there."""
    busy = np.zeros((len(candidates.made), end - first), bool)
    for taken, (_, tables) in zip(busy, candidates.made, strict=True):
        for table in tables:
            for low, high in table.within(first, end + length):
                taken[max(0, low - length + 1 - first) : max(0, high - first)] = True
    bits = 1 << np.arange(len(busy), dtype=np.int64)
    masks: list[int] = (bits @ ~busy).tolist()
    return masks


def _rivals(
    needs: Sequence[Choice], choices: Sequence[Candidates]
) -> list[list[tuple[int, tuple[int, ...]]]]:
    """Of each need: those before it that want the same at a time, and what is in its way by theirs.

    The latter are masks of its candidates, by the number of the candidate that the other has.
    """
    lows, highs = (np.array([need[at] for need in needs]) for at in (2, 3))
    kinds: dict[tuple[int, Kind], int] = {}
    which = [kinds.setdefault(need[:2], len(kinds)) for need in needs]
    firsts = {
        one: tuple(first for first, _ in candidates.made)
        for one, candidates in dict(zip(which, choices, strict=True)).items()
    }
    meet = np.tril((lows[:, None] < highs) & (lows < highs[:, None]), -1)
    names, in_way = list(kinds), dict[tuple[int, int], tuple[int, ...]]()
    found: list[list[tuple[int, tuple[int, ...]]]] = [[] for _ in needs]
    for number, other in zip(*(side.tolist() for side in np.nonzero(meet)), strict=True):
        pair = which[number], which[other]
        if pair not in in_way:
            in_way[pair] = _in_way(*(names[one] for one in pair), *(firsts[one] for one in pair))
        if in_way[pair]:
            found[number].append((other, in_way[pair]))
    return found


@lru_cache(maxsize=256)
def _in_way(
    mine: tuple[int, Kind], theirs: tuple[int, Kind],
    my_firsts: tuple[int, ...], their_firsts: tuple[int, ...],
) -> tuple[int, ...]:  # fmt: skip
    """By the number of their candidate: mask of mine that want some of the same; () if none do."""
    (member, (what, side, width, halves)), (other, (*same, their_width, their_halves)) = (
        mine,
        theirs,
    )
    if (member, what, side) != (other, *same) or not set(halves) & set(their_halves):
        return ()
    return tuple(
        sum(
            1 << number
            for number, first in enumerate(my_firsts)
            if first < their_first + their_width and their_first < first + width
        )
        for their_first in their_firsts
    )
