"""What must hold between two calls; for tests."""

import math

from cluster.serving.core import columns as c
from cluster.serving.core.columns import DECODE, NOBODY, NOW, PREFILL
from cluster.serving.core.slots import pages_of


def queued(state: c.State) -> list[int]:
    """Rows of the requests that wait, for their arrival or for a slot."""
    heaps = zip((state.later, state.waiting), state.sizes, strict=True)
    return [r for heap, size in heaps for r in heap[:size]]


def check_state(s: c.State) -> None:
    """Raise AssertionError where the columns contradict each other."""
    waiting, q = queued(s), s.requests
    taken = [r for r in s.slots.taken if r != NOBODY]
    assert len(set(taken)) == len(taken) and not set(taken) & set(waiting)
    assert len(set(waiting)) == len(waiting), "who waits, waits twice"
    for slot, r in enumerate(s.slots.taken):
        assert r == NOBODY or (q.slot[r] == slot and q.state[r] == c.SEATED)
        assert r == NOBODY or s.slots.pages[slot] >= pages_of(s, q.position[r])
    seated = [r for r, state in enumerate(q.state) if state == c.SEATED]
    assert sorted(taken) == seated, "a slot is lost"
    assert all(q.state[r] == c.QUEUED for r in waiting)
    used = sum(n for n, r in zip(s.slots.pages, s.slots.taken, strict=True) if r != NOBODY)
    kept = sum(n for n, r in zip(s.slots.pages, s.slots.taken, strict=True) if r == NOBODY)
    assert (used, kept) == (s.counts[c.USED_PAGES], s.counts[c.KEPT_PAGES])
    assert used + kept <= s.rules.pages, "more pages are in use than there are"
    for number, line in ((PREFILL, s.prefill), (DECODE, s.decode)):
        for place, tokens in enumerate(line.tokens):
            rows = line.who[place * s.rules.rows : (place + 1) * s.rules.rows]
            mine = [r for r in rows if r != NOBODY]
            assert bool(tokens) == bool(mine) and set(mine) <= set(taken), "a work of nobody"
            assert number == PREFILL or tokens == len(mine)
        assert line.meta[c.MOVING] == sum(map(bool, line.tokens))
    assert math.isfinite(s.clock[NOW])
