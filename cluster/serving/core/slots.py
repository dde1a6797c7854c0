"""Slots, and the pages of their caches: who sits where, what is kept, and who gives up."""

import math

from cluster.serving.core.columns import (
    DROPS,
    HOST_FREE,
    KEPT_PAGES,
    LATER,
    MOVING,
    NOBODY,
    NOW,
    PREFILL,
    QUEUED,
    RECOMPUTED,
    RESTORED,
    SEATED,
    SPILLED,
    USED_PAGES,
    WAITING,
    State,
)
from cluster.serving.core.heaps import before, pull, push
from cluster.serving.core.wants import blocks_of, call, known, next_tokens


def pages_of(s: State, tokens: int) -> int:
    """Pages that hold so many tokens."""
    return -(-tokens // s.rules.page_tokens)


def seat(s: State) -> None:
    """Give free slots to those who have arrived and wait, as long as there are pages."""
    q = s.requests
    while s.sizes[LATER] > 0 and q.arrives_s[s.later[0]] <= s.clock[NOW]:
        push(s, WAITING, pull(s, LATER, 0))
    while s.sizes[WAITING] > 0:
        r = s.waiting[0]
        slot = best_slot(s, r)
        if slot == NOBODY or s.counts[USED_PAGES] + pages_of(s, known(s, r)) > s.rules.pages:
            return
        pull(s, WAITING, 0)
        sit(s, r, slot)


def sit(s: State, r: int, slot: int) -> None:
    """Give a slot to a request; what the slot has of its prompt need not be taken in again."""
    q, t = s.requests, s.slots
    hit = prefix(s, r, slot)
    forget(s, slot)
    held = pages_of(s, known(s, r))
    make_room(s, held)
    t.pages[slot] = held
    s.counts[USED_PAGES] += held
    t.taken[slot] = r
    q.state[r], q.slot[r] = SEATED, slot
    at_s = max(q.arrives_s[r], t.free_s[slot])
    if q.made[r] == 0 and q.entered_s[r] < 0:
        q.entered_s[r] = at_s
        q.position[r] = max(q.position[r], hit)
        q.hit[r] = hit
    elif q.spilled[r] > hit:
        at_s = move(s, max(at_s, s.clock[NOW]), q.spilled[r])
        q.position[r] = q.spilled[r]
        s.counts[RESTORED] += 1
    else:
        at_s = max(at_s, s.clock[NOW])
        q.position[r] = hit
    q.spilled[r] = 0
    call(s, r, at_s)


def best_slot(s: State, r: int) -> int:
    """The free slot with most of the request's prompt, or that which is free longest."""
    best, most = NOBODY, -1
    for slot in range(s.rules.slots):
        if s.slots.taken[slot] != NOBODY:
            continue
        hit = prefix(s, r, slot)
        if hit > most or (hit == most and s.slots.free_s[slot] < s.slots.free_s[best]):
            best, most = slot, hit
    return best


def prefix(s: State, r: int, slot: int) -> int:
    """Tokens of a request's prompt that the caches of a slot hold, a multiple of `align`."""
    q, t = s.requests, s.slots
    if s.rules.block_tokens == 0 or q.heard[r] or t.kept_tokens[slot] == 0:
        return 0
    count = 0
    most = min(q.blocks[r], t.kept_blocks[slot])
    while count < most and (
        s.hashes[q.first_block[r] + count] == s.kept[slot * s.rules.most_blocks + count]
    ):
        count += 1
    tokens = min(count * s.rules.block_tokens, t.kept_tokens[slot], q.prompt[r] - 1)
    return tokens // s.rules.align * s.rules.align


def leave(s: State, r: int, at_s: float) -> None:
    """A request gives back its slot, in which its caches stay until somebody needs the room."""
    q, t = s.requests, s.slots
    slot = q.slot[r]
    t.taken[slot] = NOBODY
    t.free_s[slot] = at_s
    s.counts[USED_PAGES] -= t.pages[slot]
    q.ready_s[r] = math.inf
    t.kept_tokens[slot] = 0
    if s.rules.block_tokens > 0 and q.blocks[r] > 0:
        t.kept_blocks[slot], t.kept_tokens[slot] = q.blocks[r], q.position[r]
        for n in range(q.blocks[r]):
            s.kept[slot * s.rules.most_blocks + n] = s.hashes[q.first_block[r] + n]
    if t.kept_tokens[slot] > 0:
        t.pages[slot] = pages_of(s, t.kept_tokens[slot])
        s.counts[KEPT_PAGES] += t.pages[slot]
        make_room(s, 0)
    else:
        t.pages[slot] = 0


def forget(s: State, slot: int) -> None:
    """Give the pages back that a free slot keeps."""
    if s.slots.kept_tokens[slot] > 0:
        s.counts[KEPT_PAGES] -= s.slots.pages[slot]
        s.slots.kept_tokens[slot] = 0
        s.slots.pages[slot] = 0


def make_room(s: State, pages: int) -> None:
    """Forget what is kept, the oldest first, until so many pages are free."""
    while s.counts[USED_PAGES] + s.counts[KEPT_PAGES] + pages > s.rules.pages:
        oldest = NOBODY
        for slot in range(s.rules.slots):
            keeps = s.slots.taken[slot] == NOBODY and s.slots.kept_tokens[slot] > 0
            if keeps and (oldest == NOBODY or s.slots.free_s[slot] < s.slots.free_s[oldest]):
                oldest = slot
        if oldest == NOBODY:
            return
        forget(s, oldest)


def wanted_pages(s: State, r: int) -> int:
    """Pages that the next work of a request needs beyond those it holds; may be negative."""
    held = s.slots.pages[s.requests.slot[r]]
    return pages_of(s, s.requests.position[r] + next_tokens(s, r)) - held


def grow(s: State, r: int) -> bool:
    """Have pages for the next work of a request; False if it had to give up its own instead."""
    wanted, slot = wanted_pages(s, r), s.requests.slot[r]
    if wanted <= 0:
        return True
    while s.counts[USED_PAGES] + wanted > s.rules.pages:
        victim = r
        for other in range(s.rules.slots):
            one = s.slots.taken[other]
            if one != NOBODY and before(s, WAITING, victim, one):
                victim = one
        give_up(s, victim)
        if victim == r:
            return False
    make_room(s, wanted)
    s.slots.pages[slot] += wanted
    s.counts[USED_PAGES] += wanted
    return True


def give_up(s: State, r: int) -> None:
    """Pre-empt a request: its caches go to the host, or are made again, whichever is sooner."""
    q = s.requests
    drop(s, r)
    tokens, at_s = q.position[r], s.clock[NOW]
    q.spilled[r] = 0
    if 2 * (s.rules.latency_s + tokens * s.rules.move_s) < s.refill_s[blocks_of(tokens)]:
        at_s = move(s, at_s, tokens)
        q.spilled[r] = tokens
        s.counts[SPILLED] += 1
    else:
        s.counts[RECOMPUTED] += 1
    leave(s, r, at_s)
    q.state[r] = QUEUED
    push(s, WAITING, r)


def move(s: State, at_s: float, tokens: int) -> float:
    """When so many tokens of a cache have crossed the host link, one transfer after the other."""
    begin_s = max(at_s, s.clock[HOST_FREE])
    s.clock[HOST_FREE] = begin_s + s.rules.latency_s + tokens * s.rules.move_s
    return s.clock[HOST_FREE]


def drop(s: State, r: int) -> None:
    """Take the works of a request out of the lines; their tokens are not in the caches."""
    q, rows = s.requests, s.rules.rows
    for number in range(2):
        line = s.prefill if number == PREFILL else s.decode
        for place in range(s.rules.stages):
            if line.tokens[place] == 0:
                continue
            for row in range(rows):
                if line.who[place * rows + row] != r:
                    continue
                at = line.at[place * rows + row]
                s.counts[DROPS] += 1
                line.who[place * rows + row] = NOBODY
                if number == PREFILL:
                    line.tokens[place] = 0
                else:
                    line.tokens[place] -= 1
                    if q.heard[r] or at >= known(s, r) - 1:
                        line.gives[place] -= 1
                if line.tokens[place] == 0:
                    line.meta[MOVING] -= 1
                q.position[r] = min(q.position[r], at)
    q.flying[r] = 0
