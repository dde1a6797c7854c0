"""Steps: which line moves on, who enters it, and what comes of that."""

import math

from cluster.serving.core.columns import (
    ARRIVES,
    AT,
    BUCKET,
    DECODE,
    DUE,
    ENDED,
    FIRST,
    FLYING,
    FURTHER,
    GIVES,
    HEARD,
    INTO,
    LAST,
    LATER,
    MADE,
    MOST,
    NOBODY,
    NOW,
    NUMBER,
    OUT,
    POSITION,
    PREFILL,
    PREFILL_FIRST,
    QUEUED,
    READY,
    SEATED,
    SLOT,
    SPENT_TOKENS,
    STATE,
    STEP,
    TAKEN,
    TOKEN_BUDGET,
    TOKENS,
    USED_PAGES,
    WHO,
    State,
)
from cluster.serving.core.heaps import pull, push
from cluster.serving.core.slots import drop, grow, leave, seat, wanted_pages
from cluster.serving.core.wants import blocks_of, call, known, next_tokens, takes_in


def submit(s: State, r: int) -> None:
    """Take in a request, which waits for its arrival, and for a slot if none is free."""
    s.requests[STATE][r] = QUEUED
    push(s, LATER, r)
    seat(s)


def held_up(s: State, r: int) -> bool:
    """Whether a token is due of a neighbour that would go in the same launch after it."""
    q, rows = s.requests, s.rules.rows
    if rows == 1:
        return False
    first = q[SLOT][r] // rows * rows
    for slot in range(first, min(first + rows, s.rules.slots)):
        one = s.slots[TAKEN][slot]
        due = one not in (NOBODY, r) and s.times[READY][one] == math.inf
        if due and blocks_of(q[POSITION][one] + 1) == blocks_of(q[POSITION][r] + 1):
            return True
    return False


def may_enter(s: State, r: int, number: int) -> bool:
    """Whether the next work of who is in a slot goes into a line, once its inputs have come."""
    if takes_in(s, r):
        return number == PREFILL
    return number == DECODE and s.requests[FLYING][r] == 0 and not held_up(s, r)


def first_ready(s: State, number: int) -> int:
    """Whose work can enter a line now: who has waited longest, or nobody."""
    q, best = s.requests, NOBODY
    for slot in range(s.rules.slots):
        r = s.slots[TAKEN][slot]
        if r == NOBODY or s.times[READY][r] > s.clock[NOW]:
            continue
        if best != NOBODY:
            if s.times[READY][r] > s.times[READY][best]:
                continue
            if s.times[READY][r] == s.times[READY][best] and q[NUMBER][r] > q[NUMBER][best]:
                continue
        if may_enter(s, r, number):
            best = r
    return best


def next_step(s: State) -> int:
    """The line that moves on next, its first place filled; NOBODY if there is nothing to do."""
    while True:
        seat(s)
        chunk, token = first_ready(s, PREFILL), first_ready(s, DECODE)
        prefill = chunk != NOBODY or s.moving[PREFILL] > 0
        decode = token != NOBODY or s.moving[DECODE] > 0
        if not (prefill or decode):
            if not wait(s):
                return NOBODY
            continue
        number = choose(s, prefill, decode)
        r = chunk if number == PREFILL else token
        if r == NOBODY and number == DECODE and linger(s):
            continue
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


def next_arrival_s(s: State) -> float:
    """The second of the next arrival; infinite if there is none."""
    return s.times[ARRIVES][s.heaps[LATER][0]] if s.sizes[LATER] > 0 else math.inf


def wait(s: State) -> bool:
    """Let time go on to when somebody is ready or arrives; False if nobody ever will be."""
    now_s = next_arrival_s(s)
    for slot in range(s.rules.slots):
        r = s.slots[TAKEN][slot]
        if r != NOBODY:
            now_s = min(now_s, s.times[READY][r])
    if now_s == math.inf:
        return False
    s.clock[NOW] = max(s.clock[NOW], now_s)
    return True


def linger(s: State) -> bool:
    """Let time go on to when a token is back at the first stage, if that is worth it.

    It is if those in the line lose less by it, all together, than who comes a moment too late would
    lose by a step that has gone without it: that takes as long as the last one, for all one knows.
    Time stops where somebody arrives before.
    """
    back_s = math.inf
    for slot in range(s.rules.slots):
        r = s.slots[TAKEN][slot]
        if r != NOBODY and s.times[READY][r] > s.clock[NOW] and may_enter(s, r, DECODE):
            back_s = min(back_s, s.times[READY][r])
    if (back_s - s.clock[NOW]) * (s.moving[DECODE] + 1) >= s.clock[STEP]:
        return False
    s.clock[NOW] = min(back_s, next_arrival_s(s))
    return True


def enter(s: State, number: int, r: int) -> None:
    """Move a line on by a stage, and put the work of a request and its neighbours in front."""
    q, line, rows = s.requests, s.lines[number], s.rules.rows
    head = (s.heads[number] + s.rules.stages - 1) % s.rules.stages
    if number == PREFILL or s.rules.whole == 0:
        s.heads[number] = head
    line[TOKENS][head] = 0
    line[GIVES][head] = 0
    for row in range(rows):
        line[WHO][head * rows + row] = NOBODY
    if r == NOBODY:
        return
    count = next_tokens(s, r)
    bucket = blocks_of(q[POSITION][r] + count)
    line[BUCKET][head] = bucket
    first = q[SLOT][r] // rows * rows if number == DECODE else q[SLOT][r]
    for row in range(rows if number == DECODE else 1):
        one = s.slots[TAKEN][first + row] if first + row < s.rules.slots else NOBODY
        if one == NOBODY or (one != r and not joins(s, one, bucket)):
            continue
        line[WHO][head * rows + row] = one
        line[AT][head * rows + row] = q[POSITION][one]
        line[TOKENS][head] += count
        wants = number == DECODE and q[POSITION][one] >= known(s, one) - 1
        if wants or q[HEARD][one]:
            line[GIVES][head] += 1
        q[POSITION][one] += count
        if number == PREFILL:
            q[FLYING][one] += 1
        if wants:
            s.times[READY][one] = math.inf
    s.moving[number] += 1


def entrance(s: State, number: int) -> int:
    """Where in a line the work is that has entered last: if all stages are one, at its end."""
    if number == DECODE and s.rules.whole:
        return (s.heads[number] + s.rules.stages - 1) % s.rules.stages
    return s.heads[number]


def joins(s: State, r: int, bucket: int) -> bool:
    """Whether a neighbour's next token goes in the same launch."""
    q = s.requests
    ready = s.times[READY][r] <= s.clock[NOW] and not takes_in(s, r) and q[FLYING][r] == 0
    if not ready or blocks_of(q[POSITION][r] + 1) != bucket:
        return False
    spare = s.rules.pages - s.counts[USED_PAGES]
    return wanted_pages(s, r) <= spare and grow(s, r)


def step_s(s: State, number: int, cycles: int) -> float:
    """Seconds of a step: of the chips, or of their host links if these take longer.

    Unless the links work beside the chips, a launch waits for them before and after.
    """
    line, moves, entered = s.lines[number], s.moves[number], entrance(s, number)
    seconds, waits_s = cycles / s.rules.clock_hz, 0.0
    for place in range(s.rules.stages):
        if line[TOKENS][place] == 0:
            continue
        bucket = line[BUCKET][place]
        into_s = moves[INTO if place == entered else FURTHER][bucket]
        if s.rules.beside:
            seconds = max(seconds, into_s)
            if line[GIVES][place] > 0:
                seconds = max(seconds, moves[OUT][bucket])
        else:
            latency_s = s.rules.latency_s
            mine_s = (latency_s + into_s) + (latency_s + moves[OUT][bucket])
            waits_s = max(waits_s, mine_s)
    return seconds + waits_s


def complete(s: State, number: int, seconds: float) -> None:
    """Let the time of a step pass; `due` are those whose tokens are."""
    q, line, rows = s.requests, s.lines[number], s.rules.rows
    s.clock[NOW] += seconds
    if number == DECODE:
        s.clock[STEP] = seconds
    s.counts[DUE] = 0
    place = (s.heads[number] + s.rules.stages - 1) % s.rules.stages
    if line[TOKENS][place] == 0:
        return
    s.moving[number] -= 1
    line[TOKENS][place] = 0
    for row in range(rows):
        r = line[WHO][place * rows + row]
        if r == NOBODY:
            continue
        if number == PREFILL:
            q[FLYING][r] -= 1
        elif line[AT][place * rows + row] >= known(s, r) - 1:
            s.due[s.counts[DUE]] = r
            s.counts[DUE] += 1
        line[WHO][place * rows + row] = NOBODY


def token(s: State, r: int, last: bool) -> None:
    """A token of a request is at the host, which goes on with it or with the next request."""
    q = s.requests
    at_s = s.clock[NOW]
    if s.rules.beside:
        place = (s.heads[DECODE] + s.rules.stages - 1) % s.rules.stages  # it came from there
        at_s += s.rules.latency_s + s.moves[DECODE][OUT][s.lines[DECODE][BUCKET][place]]
    if q[MADE][r] == 0:
        s.times[FIRST][r] = at_s
    s.times[LAST][r] = at_s
    q[MADE][r] += 1
    if last or q[MADE][r] == q[MOST][r]:
        q[STATE][r] = ENDED
        leave(s, r, at_s)
        seat(s)
    else:
        call(s, r, at_s)


def cancel(s: State, r: int) -> None:
    """End a request wherever it is, between two steps; of one that has ended nothing changes."""
    q = s.requests
    if q[STATE][r] == SEATED:
        drop(s, r)
        q[STATE][r] = ENDED
        leave(s, r, s.clock[NOW])
        seat(s)
    elif q[STATE][r] == QUEUED:
        q[STATE][r] = ENDED
        for heap in range(2):
            items = s.heaps[heap]
            for at in range(s.sizes[heap]):
                if items[at] == r:
                    pull(s, heap, at)
                    break
