"""What must hold between two calls; for tests."""

import math

from cluster.serving.core import columns as c
from cluster.serving.core.columns import NOBODY, PREFILL
from cluster.serving.core.slots import pages_of


def queued(state: c.State) -> list[int]:
    """Rows of the requests that wait, for their arrival or for a slot."""
    pairs = zip(state.heaps, state.sizes, strict=True)
    return [r for heap, size in pairs for r in heap[:size]]


def check_state(s: c.State) -> None:
    """Raise AssertionError where the columns contradict each other."""
    waiting, q, held = queued(s), s.requests, s.slots[c.PAGES]
    owners = list(enumerate(s.slots[c.TAKEN]))
    taken = [r for _, r in owners if r != NOBODY]
    assert len({*taken, *waiting}) == len(taken) + len(waiting), "a request is in two places"
    for slot, r in owners:
        assert r == NOBODY or (q[c.SLOT][r] == slot and q[c.STATE][r] == c.SEATED)
        assert r == NOBODY or held[slot] >= pages_of(s, q[c.POSITION][r])
    seated = [r for r, state in enumerate(q[c.STATE]) if state == c.SEATED]
    assert sorted(taken) == seated, "a slot is lost"
    assert all(q[c.STATE][r] == c.QUEUED for r in waiting)
    used = sum(held[slot] for slot, r in owners if r != NOBODY)
    kept = sum(held[slot] for slot, r in owners if r == NOBODY)
    assert (used, kept) == (s.counts[c.USED_PAGES], s.counts[c.KEPT_PAGES])
    assert used + kept <= s.rules.pages, "more pages are in use than there are"
    for number, line in enumerate(s.lines):
        for place in range(s.rules.stages):
            tokens = line[c.TOKENS][place]
            rows = line[c.WHO][place * s.rules.rows : (place + 1) * s.rules.rows]
            mine = [r for r in rows if r != NOBODY]
            assert bool(tokens) == bool(mine) and set(mine) <= set(taken), "a work of nobody"
            assert number == PREFILL or tokens == len(mine)
        assert s.moving[number] == sum(map(bool, line[c.TOKENS]))
    assert math.isfinite(s.clock[c.NOW])
