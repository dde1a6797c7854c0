"""Slots, and the pages of their caches: who sits where, what is kept, and who gives up."""

import math

from cluster.serving.core.columns import (
    ARRIVES,
    AT,
    BACK,
    BEGIN,
    BLOCKS,
    DROPS,
    END,
    ENTERED,
    FIRST_BLOCK,
    FLYING,
    GIVES,
    HEARD,
    HIT,
    HOST_FREE,
    KEPT_BLOCKS,
    KEPT_PAGES,
    KEPT_TOKENS,
    LATER,
    MADE,
    MOVED,
    NOBODY,
    NOW,
    OWNER,
    PAGES,
    PLACE,
    POSITION,
    PREFILL,
    PROMPT,
    QUEUED,
    READY,
    RECOMPUTED,
    RESTORED,
    SEATED,
    SLOT,
    SPILLED,
    SPILLS,
    STATE,
    TAKEN,
    TOKENS,
    TRANSFERS,
    USED_PAGES,
    WAITING,
    WHO,
    State,
)
from cluster.serving.core.heaps import before, pull, push
from cluster.serving.core.wants import blocks_of, call, known, next_tokens


def pages_of(s: State, tokens: int) -> int:
    """Pages that hold so many tokens."""
    return -(-tokens // s.rules.page_tokens)


def seat(s: State) -> None:
    """Give free slots to those who have arrived and wait, as long as there are pages."""
    while s.sizes[LATER] > 0 and s.times[ARRIVES][s.heaps[LATER][0]] <= s.clock[NOW]:
        push(s, WAITING, pull(s, LATER, 0))
    while s.sizes[WAITING] > 0:
        r = s.heaps[WAITING][0]
        slot = best_slot(s, r)
        if slot == NOBODY or s.counts[USED_PAGES] + pages_of(s, known(s, r)) > s.rules.pages:
            return
        pull(s, WAITING, 0)
        sit(s, r, slot)


def sit(s: State, r: int, slot: int) -> None:
    """Give a slot to a request; what the slot has of its prompt need not be taken in again."""
    q = s.requests
    hit = prefix(s, r, slot)
    forget(s, slot)
    held = pages_of(s, known(s, r))
    make_room(s, held)
    s.slots[PAGES][slot] = held
    s.counts[USED_PAGES] += held
    s.slots[TAKEN][slot] = r
    q[STATE][r], q[SLOT][r] = SEATED, slot
    at_s = max(s.times[ARRIVES][r], s.free_s[slot])
    if q[MADE][r] == 0 and s.times[ENTERED][r] < 0:
        s.times[ENTERED][r] = at_s
        q[POSITION][r] = max(q[POSITION][r], hit)
        q[HIT][r] = hit
    elif q[SPILLED][r] > hit:
        at_s = move(s, r, max(at_s, s.clock[NOW]), q[SPILLED][r], 1)
        q[POSITION][r] = q[SPILLED][r]
        s.counts[RESTORED] += 1
    else:
        at_s = max(at_s, s.clock[NOW])
        q[POSITION][r] = hit
    q[SPILLED][r] = 0
    call(s, r, at_s)


def best_slot(s: State, r: int) -> int:
    """The free slot with most of the request's prompt, or that which is free longest."""
    best, most = NOBODY, -1
    for slot in range(s.rules.slots):
        if s.slots[TAKEN][slot] != NOBODY:
            continue
        hit = prefix(s, r, slot)
        if hit > most or (hit == most and s.free_s[slot] < s.free_s[best]):
            best, most = slot, hit
    return best


def prefix(s: State, r: int, slot: int) -> int:
    """Tokens of a request's prompt that the caches of a slot hold, a multiple of `align`."""
    q = s.requests
    if s.rules.block_tokens == 0 or q[HEARD][r] or s.slots[KEPT_TOKENS][slot] == 0:
        return 0
    count = 0
    most = min(q[BLOCKS][r], s.slots[KEPT_BLOCKS][slot])
    while count < most and (
        s.hashes[q[FIRST_BLOCK][r] + count] == s.kept[slot * s.rules.most_blocks + count]
    ):
        count += 1
    tokens = min(count * s.rules.block_tokens, s.slots[KEPT_TOKENS][slot], q[PROMPT][r] - 1)
    return tokens // s.rules.align * s.rules.align


def leave(s: State, r: int, at_s: float) -> None:
    """A request gives back its slot, in which its caches stay until somebody needs the room."""
    q = s.requests
    slot = q[SLOT][r]
    s.slots[TAKEN][slot] = NOBODY
    s.free_s[slot] = at_s
    s.counts[USED_PAGES] -= s.slots[PAGES][slot]
    s.times[READY][r] = math.inf
    s.slots[KEPT_TOKENS][slot] = 0
    if s.rules.block_tokens > 0 and q[BLOCKS][r] > 0:
        s.slots[KEPT_BLOCKS][slot], s.slots[KEPT_TOKENS][slot] = q[BLOCKS][r], q[POSITION][r]
        for n in range(q[BLOCKS][r]):
            s.kept[slot * s.rules.most_blocks + n] = s.hashes[q[FIRST_BLOCK][r] + n]
    if s.slots[KEPT_TOKENS][slot] > 0:
        s.slots[PAGES][slot] = pages_of(s, s.slots[KEPT_TOKENS][slot])
        s.counts[KEPT_PAGES] += s.slots[PAGES][slot]
        make_room(s, 0)
    else:
        s.slots[PAGES][slot] = 0


def forget(s: State, slot: int) -> None:
    """Give the pages back that a free slot keeps."""
    if s.slots[KEPT_TOKENS][slot] > 0:
        s.counts[KEPT_PAGES] -= s.slots[PAGES][slot]
        s.slots[KEPT_TOKENS][slot] = 0
        s.slots[PAGES][slot] = 0


def make_room(s: State, pages: int) -> None:
    """Forget what is kept, the oldest first, until so many pages are free."""
    while s.counts[USED_PAGES] + s.counts[KEPT_PAGES] + pages > s.rules.pages:
        oldest = NOBODY
        for slot in range(s.rules.slots):
            keeps = s.slots[TAKEN][slot] == NOBODY and s.slots[KEPT_TOKENS][slot] > 0
            if keeps and (oldest == NOBODY or s.free_s[slot] < s.free_s[oldest]):
                oldest = slot
        if oldest == NOBODY:
            return
        forget(s, oldest)


def wanted_pages(s: State, r: int) -> int:
    """Pages that the next work of a request needs beyond those it holds; may be negative."""
    held = s.slots[PAGES][s.requests[SLOT][r]]
    return pages_of(s, s.requests[POSITION][r] + next_tokens(s, r)) - held


def grow(s: State, r: int) -> bool:
    """Have pages for the next work of a request; False if it had to give up its own instead."""
    wanted, slot = wanted_pages(s, r), s.requests[SLOT][r]
    if wanted <= 0:
        return True
    while s.counts[USED_PAGES] + wanted > s.rules.pages:
        victim = r
        for other in range(s.rules.slots):
            one = s.slots[TAKEN][other]
            if one != NOBODY and before(s, WAITING, victim, one):
                victim = one
        give_up(s, victim)
        if victim == r:
            return False
    make_room(s, wanted)
    s.slots[PAGES][slot] += wanted
    s.counts[USED_PAGES] += wanted
    return True


def give_up(s: State, r: int) -> None:
    """Pre-empt a request: its caches go to the host, or are made again, whichever is sooner."""
    q = s.requests
    drop(s, r)
    tokens, at_s = q[POSITION][r], s.clock[NOW]
    q[SPILLED][r] = 0
    spill_s = 2 * (s.rules.latency_s + max(1, tokens) * s.rules.move_s)
    if spill_s < s.refill_s[min(blocks_of(tokens), len(s.refill_s) - 1)]:
        at_s = move(s, r, at_s, tokens, 0)
        q[SPILLED][r] = tokens
        s.counts[SPILLS] += 1
    else:
        s.counts[RECOMPUTED] += 1
    leave(s, r, at_s)
    q[STATE][r] = QUEUED
    push(s, WAITING, r)


def move(s: State, r: int, at_s: float, tokens: int, back: int) -> float:
    """When so many tokens of a cache have crossed the host link, one transfer after the other."""
    begin_s = max(at_s, s.clock[HOST_FREE])
    end_s = begin_s + s.rules.latency_s + tokens * s.rules.move_s
    s.clock[HOST_FREE] = end_s
    n = s.counts[TRANSFERS]
    if n < len(s.transfer_s[BEGIN]):
        s.transfers[OWNER][n], s.transfers[PLACE][n] = r, s.requests[SLOT][r]
        s.transfers[MOVED][n], s.transfers[BACK][n] = tokens, back
        s.transfer_s[BEGIN][n], s.transfer_s[END][n] = begin_s, end_s
        s.counts[TRANSFERS] = n + 1
    return end_s


def drop(s: State, r: int) -> None:
    """Take the works of a request out of the lines; their tokens are not in the caches."""
    q, rows = s.requests, s.rules.rows
    for number in range(2):
        line = s.lines[number]
        for place in range(s.rules.stages):
            if line[TOKENS][place] == 0:
                continue
            for row in range(rows):
                if line[WHO][place * rows + row] != r:
                    continue
                at = line[AT][place * rows + row]
                s.counts[DROPS] += 1
                line[WHO][place * rows + row] = NOBODY
                if number == PREFILL:
                    line[TOKENS][place] = 0
                else:
                    line[TOKENS][place] -= 1
                    if q[HEARD][r] or at >= known(s, r) - 1:
                        line[GIVES][place] -= 1
                if line[TOKENS][place] == 0:
                    s.moving[number] -= 1
                q[POSITION][r] = min(q[POSITION][r], at)
    q[FLYING][r] = 0
