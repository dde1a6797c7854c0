"""The scheduler by the clock alone: steps take what a plan says, and tokens need no logits."""

import math
from collections.abc import MutableSequence
from typing import NamedTuple

from cluster.serving.core.columns import (
    ARRIVES,
    AT,
    BUCKET,
    DUE,
    ENDED,
    LAST,
    MADE,
    NOBODY,
    NOW,
    STATE,
    TOKENS,
    USED_PAGES,
    WHO,
    Floats,
    Ints,
    State,
)
from cluster.serving.core.steps import complete, entrance, next_step, step_s, submit, token

# of `totals`
NEW_TOKENS, STEPS, NEXT_USER, LOGGED, PEAK_PAGES, COMPLETED = range(6)
TOTALS = 6
PAGE_S, BUSY_S = 0, 1  # of `sums`: pages in use over time, and seconds of steps
GAP_BINS_PER_E = 1000  # gaps between tokens are counted to a thousandth
SHORTEST_GAP_S = 1e-7
GAP_BINS = 24_000  # up to 2,600 s
# Columns of the log by step, and by step and stage.
LOG_CYCLES, LOG_LINE = 0, 1
LOG_WHO, LOG_AT = 0, 1


class Costs(NamedTuple):
    """Cycles until each stage is done with its work of so many context blocks; 0 is none."""

    ends: MutableSequence[MutableSequence[Ints]]  # [line][context blocks][stage]


class Log(NamedTuple):
    """Steps as they were, as many as there is room for, and who was at which stage."""

    start_s: Floats
    seconds: Floats
    steps: MutableSequence[Ints]  # [column][step]
    stages: MutableSequence[MutableSequence[Ints]]  # [column][step][stage]


class Played(NamedTuple):
    """What is counted while requests are played."""

    log: Log
    works: MutableSequence[Ints]  # [line][context blocks]: how many have entered
    gaps: Ints  # seconds between two tokens of a request, in bins
    sums: Floats
    totals: Ints
    closed: int  # 1: when a request ends, its user sends the next one


def step_cycles(s: State, costs: Costs, number: int) -> int:
    """Cycles of a step: of the stage that takes longest over its work, or over none."""
    line, ends, most = s.lines[number], costs.ends[number], 0
    place = s.heads[number]
    for stage in range(s.rules.stages):
        bucket = line[BUCKET][place] if line[TOKENS][place] > 0 else 0
        most = max(most, ends[bucket][stage])
        place += 1
        if place == s.rules.stages:
            place = 0
    return most


def play(s: State, costs: Costs, p: Played, steps: int) -> bool:
    """Play at most so many steps; False when there is nothing left to do."""
    for _ in range(steps):
        before_s = s.clock[NOW]
        number = next_step(s)
        if number == NOBODY:
            return False
        cycles = step_cycles(s, costs, number)
        seconds = step_s(s, number, cycles)
        note(s, p, number, cycles, seconds)
        p.sums[BUSY_S] += seconds
        p.sums[PAGE_S] += s.counts[USED_PAGES] * (s.clock[NOW] - before_s + seconds)
        p.totals[PEAK_PAGES] = max(p.totals[PEAK_PAGES], s.counts[USED_PAGES])
        p.totals[STEPS] += 1
        complete(s, number, seconds)
        for n in range(s.counts[DUE]):
            answer(s, p, s.due[n])
    return True


def answer(s: State, p: Played, r: int) -> None:
    """Give a request its token."""
    made, last_s = s.requests[MADE][r], s.times[LAST][r]
    token(s, r, False)
    p.totals[NEW_TOKENS] += 1
    if made > 0:
        gap = max((s.times[LAST][r] - last_s) / SHORTEST_GAP_S, 1.0)
        p.gaps[min(int(math.log(gap) * GAP_BINS_PER_E), GAP_BINS - 1)] += 1
    if s.requests[STATE][r] == ENDED:
        p.totals[COMPLETED] += 1
        one = p.totals[NEXT_USER]
        if p.closed and one < len(s.heaps[0]):
            p.totals[NEXT_USER] += 1
            s.times[ARRIVES][one] = s.times[LAST][r]
            submit(s, one)


def note(s: State, p: Played, number: int, cycles: int, seconds: float) -> None:
    """Count the work that has entered, and log the step if there is room."""
    line, stages, rows = s.lines[number], s.rules.stages, s.rules.rows
    head, entered = s.heads[number], entrance(s, number)
    if line[TOKENS][entered] > 0:
        p.works[number][line[BUCKET][entered]] += 1
    at = p.totals[LOGGED]
    if at >= len(p.log.start_s):
        return
    p.totals[LOGGED] += 1
    p.log.start_s[at], p.log.seconds[at] = s.clock[NOW], seconds
    p.log.steps[LOG_CYCLES][at], p.log.steps[LOG_LINE][at] = cycles, number
    for stage in range(stages):
        place = (head + stage) % stages
        p.log.stages[LOG_WHO][at][stage] = NOBODY
        for row in range(rows):
            if line[TOKENS][place] > 0 and line[WHO][place * rows + row] != NOBODY:
                p.log.stages[LOG_WHO][at][stage] = line[WHO][place * rows + row]
                p.log.stages[LOG_AT][at][stage] = line[AT][place * rows + row]
