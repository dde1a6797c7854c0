"""Steps: which line moves on, who enters it, and what comes of that."""

import math

from cluster.serving.core.columns import (
    DECODE,
    DUE,
    ENDED,
    HEAD,
    LATER,
    MOVING,
    NOBODY,
    NOW,
    PREFILL,
    PREFILL_FIRST,
    QUEUED,
    SEATED,
    SPENT_TOKENS,
    TOKEN_BUDGET,
    USED_PAGES,
    State,
)
from cluster.serving.core.heaps import pull, push
from cluster.serving.core.slots import drop, grow, leave, seat, wanted_pages
from cluster.serving.core.wants import blocks_of, call, known, next_tokens, takes_in


def submit(s: State, r: int) -> None:
    """Take in a request, which waits for its arrival, and for a slot if none is free."""
    s.requests.state[r] = QUEUED
    push(s, LATER, r)
    seat(s)


def held_up(s: State, r: int) -> bool:
    """Whether a token is due of a neighbour that would go in the same launch after it."""
    q, rows = s.requests, s.rules.rows
    if rows == 1:
        return False
    first = q.slot[r] // rows * rows
    for slot in range(first, min(first + rows, s.rules.slots)):
        one = s.slots.taken[slot]
        due = one not in (NOBODY, r) and q.ready_s[one] == math.inf
        if due and blocks_of(q.position[one] + 1) == blocks_of(q.position[r] + 1):
            return True
    return False


def first_ready(s: State, line: int) -> int:
    """Whose work can enter a line now: who has waited longest, or nobody."""
    q, best = s.requests, NOBODY
    for slot in range(s.rules.slots):
        r = s.slots.taken[slot]
        if r == NOBODY or q.ready_s[r] > s.clock[NOW]:
            continue
        if takes_in(s, r) != (line == PREFILL) or (line == DECODE and q.flying[r] > 0):
            continue
        if best != NOBODY:
            if q.ready_s[r] > q.ready_s[best]:
                continue
            if q.ready_s[r] == q.ready_s[best] and q.number[r] > q.number[best]:
                continue
        if line == DECODE and held_up(s, r):
            continue
        best = r
    return best


def next_step(s: State) -> int:
    """The line that moves on next, its first place filled; NOBODY if there is nothing to do."""
    while True:
        seat(s)
        chunk, token = first_ready(s, PREFILL), first_ready(s, DECODE)
        prefill = chunk != NOBODY or s.prefill.meta[MOVING] > 0
        decode = token != NOBODY or s.decode.meta[MOVING] > 0
        if not (prefill or decode):
            if not wait(s):
                return NOBODY
            continue
        number = choose(s, prefill, decode)
        r = chunk if number == PREFILL else token
        if r == NOBODY or grow(s, r):
            break
    s.counts[SPENT_TOKENS] = s.counts[SPENT_TOKENS] + s.rules.chunk if number == PREFILL else 0
    enter(s, number, r)
    return number


def choose(s: State, prefill: bool, decode: bool) -> int:
    """Which line moves on, of those that have something to do."""
    policy = s.rules.policy
    if not (prefill and decode):
        return PREFILL if prefill else DECODE
    if policy == TOKEN_BUDGET:
        return PREFILL if s.counts[SPENT_TOKENS] < s.rules.budget_tokens else DECODE
    return PREFILL if policy == PREFILL_FIRST else DECODE


def wait(s: State) -> bool:
    """Let time go on to when somebody is ready or arrives; False if nobody ever will be."""
    now_s = s.requests.arrives_s[s.later[0]] if s.sizes[LATER] > 0 else math.inf
    for slot in range(s.rules.slots):
        r = s.slots.taken[slot]
        if r != NOBODY:
            now_s = min(now_s, s.requests.ready_s[r])
    if now_s == math.inf:
        return False
    s.clock[NOW] = max(s.clock[NOW], now_s)
    return True


def enter(s: State, number: int, r: int) -> None:
    """Move a line on by a stage, and put the work of a request and its neighbours in front."""
    q, line, rows = s.requests, s.prefill if number == PREFILL else s.decode, s.rules.rows
    head = (line.meta[HEAD] + s.rules.stages - 1) % s.rules.stages
    line.meta[HEAD] = head
    line.tokens[head] = 0
    line.gives[head] = 0
    for row in range(rows):
        line.who[head * rows + row] = NOBODY
    if r == NOBODY:
        return
    count = next_tokens(s, r)
    bucket = blocks_of(q.position[r] + count)
    line.bucket[head] = bucket
    first = q.slot[r] // rows * rows if number == DECODE else q.slot[r]
    for row in range(rows if number == DECODE else 1):
        one = s.slots.taken[first + row] if first + row < s.rules.slots else NOBODY
        if one == NOBODY or (one != r and not joins(s, one, bucket)):
            continue
        line.who[head * rows + row] = one
        line.at[head * rows + row] = q.position[one]
        line.tokens[head] += count
        wants = number == DECODE and q.position[one] >= known(s, one) - 1
        if wants or q.heard[one]:
            line.gives[head] += 1
        q.position[one] += count
        if number == PREFILL:
            q.flying[one] += 1
        if wants:
            q.ready_s[one] = math.inf
    line.meta[MOVING] += 1


def joins(s: State, r: int, bucket: int) -> bool:
    """Whether a neighbour's next token goes in the same launch."""
    q = s.requests
    ready = q.ready_s[r] <= s.clock[NOW] and not takes_in(s, r) and q.flying[r] == 0
    if not ready or blocks_of(q.position[r] + 1) != bucket:
        return False
    spare = s.rules.pages - s.counts[USED_PAGES]
    return wanted_pages(s, r) <= spare and grow(s, r)


def step_s(s: State, number: int, cycles: int) -> float:
    """Seconds of a step: of the chips, or of their host links if these take longer.

    Unless the links work beside the chips, a launch waits for them before and after.
    """
    line, moves = (s.prefill, s.prefill_moves) if number == PREFILL else (s.decode, s.decode_moves)
    seconds = cycles / s.rules.clock_hz
    for place in range(s.rules.stages):
        if line.tokens[place] == 0:
            continue
        bucket = line.bucket[place]
        if s.rules.beside:
            seconds = max(seconds, moves.into[bucket])
            if line.gives[place] > 0:
                seconds = max(seconds, moves.out[bucket])
        else:
            latency_s = s.rules.latency_s
            seconds += (latency_s + moves.into[bucket]) + (latency_s + moves.out[bucket])
    return seconds


def complete(s: State, number: int, seconds: float) -> None:
    """Let the time of a step pass; `due` are those whose tokens are."""
    q, line, rows = s.requests, s.prefill if number == PREFILL else s.decode, s.rules.rows
    s.clock[NOW] += seconds
    s.counts[DUE] = 0
    place = (line.meta[HEAD] + s.rules.stages - 1) % s.rules.stages
    if line.tokens[place] == 0:
        return
    line.meta[MOVING] -= 1
    line.tokens[place] = 0
    for row in range(rows):
        r = line.who[place * rows + row]
        if r == NOBODY:
            continue
        if number == PREFILL:
            q.flying[r] -= 1
        elif line.at[place * rows + row] >= known(s, r) - 1:
            s.due[s.counts[DUE]] = r
            s.counts[DUE] += 1
        line.who[place * rows + row] = NOBODY


def token(s: State, r: int, last: bool) -> None:
    """A token of a request is at the host, which goes on with it or with the next request."""
    q = s.requests
    at_s = s.clock[NOW]
    if s.rules.beside:
        place = (s.decode.meta[HEAD] + s.rules.stages - 1) % s.rules.stages  # it came from there
        at_s += s.rules.latency_s + s.decode_moves.out[s.decode.bucket[place]]
    if q.made[r] == 0:
        q.first_s[r] = at_s
    q.last_s[r] = at_s
    q.made[r] += 1
    if last or q.made[r] == q.most[r]:
        q.state[r] = ENDED
        leave(s, r, at_s)
        seat(s)
    else:
        call(s, r, at_s)


def cancel(s: State, r: int) -> None:
    """End a request wherever it is, between two steps; of one that has ended nothing changes."""
    q = s.requests
    if q.state[r] == SEATED:
        drop(s, r)
        q.state[r] = ENDED
        leave(s, r, s.clock[NOW])
        seat(s)
    elif q.state[r] == QUEUED:
        q.state[r] = ENDED
        for heap in range(2):
            items = s.later if heap == LATER else s.waiting
            for at in range(s.sizes[heap]):
                if items[at] == r:
                    pull(s, heap, at)
                    break
