"""Starts that are looked at together say what choosing at each of them would."""

import random

import pytest

from chip.schedule.busy import Busy
from chip.schedule.footprint import Choice
from chip.schedule.retries import WINDOW, Retries, Wanted
from chip.schedule.taken import Candidates, choose

STREAMS, ALUS, HALVES = 8, 4, 2


@pytest.mark.parametrize("seed", range(40))
def test_looking_says_what_choosing_would(seed: int) -> None:
    """The same wait for the same need, at any start."""
    dice = random.Random(seed)
    tables = {(name, unit, half): _taken(dice)
              for name, count in (("stream", STREAMS), ("vxm", ALUS))
              for unit in range(count) for half in range(HALVES)}  # fmt: skip
    known: dict[object, Candidates] = {}
    needs, choices = [], list[Wanted]()
    for _ in range(dice.randrange(1, 25)):
        what = dice.choice(("stream", "stream", "vxm"))
        width, count = (dice.choice((1, 2, 4)), STREAMS) if what == "stream" else (1, ALUS)
        halves = dice.choice(((0,), (1,), (0, 1))) if what == "stream" else (0,)
        kind, low = (what, 0, width, halves), dice.randrange(-40, 60)
        firsts = range(0, count, width)[:: 1 if width > 2 else -1]
        if kind not in known:
            every = [(first, range(first, first + width)) for first in firsts]
            made = [
                (first, [tables[what, unit, half] for unit in units for half in halves])
                for first, units in every
            ]
            known[kind] = Candidates(iter(made))
        needs.append(Choice(0, kind, low, low + dice.choice((1, 4, 4, 9, 90))))
        choices.append((known[kind], *needs[-1][2:]))
    retries = Retries(needs, choices)
    for start in (*range(0, 300, 7), 2 * WINDOW, 5):
        before = {key: (list(one.starts), list(one.ends)) for key, one in tables.items()}
        found = retries.wait(start)
        assert before == {key: (one.starts, one.ends) for key, one in tables.items()}
        chosen, *wanted = choose(choices, start)
        assert found == tuple(wanted)
        for pick, (candidates, low, high) in zip(chosen, choices, strict=False):
            for table in dict(candidates.made)[pick]:
                table.release(low + start, high + start)


def _taken(dice: random.Random) -> Busy:
    found, at = Busy(), -60
    while at < 500:
        length = dice.randrange(1, 30)
        found.take(at, at + length)
        at += length + dice.randrange(1, 40)
    return found
