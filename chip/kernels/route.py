"""The router of a mixture: its highest scores one after the other, and their softmax.

A score is the highest if it equals the maximum of all lanes, and of several such the one in the
lowest lane counts; it is then taken out of the race. Numbers of experts and gates are in all lanes.
"""

from dataclasses import replace

from chip.kernels.lanes import LANES, reduce_lanes
from chip.kernels.linear import deliver
from chip.kernels.work import Laid, Work, targets
from chip.schedule import Buffer, Flow, Loops, Rows, run
from chip.spec import EAST, WEST

LANE_NUMBERS = "lane numbers"  # a row of 0, 1, 2, ...
OUT = -3e38  # added to a score that is out of the race: nothing is below it
FAR = 1024.0  # more than any lane


def route(work: Work, scores: Laid, experts: int, chosen: int, out: Laid) -> None:
    """out rows (choice, slot, token): numbers of the `chosen` experts, then their gates."""
    assert scores.layout.blocks == 1 and experts <= LANES
    race = [work.scratch(f"race{turn}", 1, "f32", EAST) for turn in (0, 1)]
    top = work.scratch("race.top", chosen, "f32", WEST)
    highest = work.scratch("race.highest", 1, "f32", EAST)
    number = Rows(work.shared(LANE_NUMBERS, 1, "f32", WEST), 0, (0, 0))
    chain = work.chain("route: scores")
    beyond = chain.vxm("to_f32", chain.vxm("ge", number, float(experts), loops=run(work.rows)))
    entered = chain.vxm("add", chain.vxm("mul", beyond, OUT), work.rows_of(scores.copies[0], 0))
    chain.write(entered, Rows(race[0]))
    work.plan.place(chain)
    for slot in range(chosen):
        _next(work, race[slot % 2], number, slot, (top, highest), out)
        if slot < chosen - 1:
            _leave(work, race, number, slot, out)
    _gates(work, top, highest, chosen, out)


def _next(
    work: Work, race: Buffer, number: Rows, slot: int, tops: tuple[Buffer, Buffer], out: Laid
) -> None:
    """The highest score in the race, and the lowest lane that has it."""
    loops = run(work.rows)
    chain = work.chain("route: highest")
    best = reduce_lanes(chain, "max", chain.vxm("copy", Rows(race), loops=loops), "f32")
    lower = chain.vxm("to_f32", chain.vxm("ne", best, Rows(race)))
    far = chain.vxm("add", chain.vxm("mul", lower, FAR), number)
    lane = reduce_lanes(chain, "min", far, "f32")
    chain.write(lane, work.rows_of(out.copies[0], slot))
    chain.write(best, Rows(tops[0], slot * work.rows))
    if slot == 0:
        chain.write(chain.vxm("copy", best), Rows(tops[1]))
    work.plan.place(chain)


def _leave(work: Work, race: list[Buffer], number: Rows, slot: int, out: Laid) -> None:
    """The race without the expert that has been found."""
    chain = work.chain("route: leave")
    found = work.rows_of(out.copies[0], slot)
    mine = chain.vxm("eq", chain.vxm("copy", found, loops=run(work.rows)), number)
    rest = chain.vxm("mul", chain.vxm("to_f32", mine), OUT)
    chain.write(chain.vxm("add", rest, Rows(race[slot % 2])), Rows(race[1 - slot % 2]))
    work.plan.place(chain)


def _gates(work: Work, top: Buffer, highest: Buffer, chosen: int, out: Laid) -> None:
    """exp(score - highest), divided by the sum of these."""
    rows, loops = work.rows, ((chosen, work.rows), (work.rows, 1))
    powers = work.scratch("race.powers", chosen, "f32", WEST)
    share = work.scratch("race.share", 1, "f32", EAST)
    chain = work.chain("route: exp")
    below = chain.vxm("sub", Rows(top, 0, (rows, 1)), Rows(highest, 0, (0, 1)), loops=loops)
    chain.write(chain.vxm("exp", below), Rows(powers, 0, (rows, 1)))
    work.plan.place(chain)
    pace = work.spec.d_func("vxm.alu")
    for start in range(0, rows, pace):
        chain = work.chain("route: sum")
        part: Loops = run(min(pace, rows - start))
        total = chain.vxm("copy", Rows(powers, start), loops=part)
        for slot in range(1, chosen):
            total = chain.vxm("add", total, Rows(powers, slot * rows + start))
        chain.write(chain.vxm("recip", total), Rows(share, start))
        work.plan.place(chain)
    chain = work.chain("route: gates")
    gate = chain.vxm("mul", Rows(powers, 0, (rows, 1)), Rows(share, 0, (0, 1)), loops=loops)
    deliver(chain, gate, targets(work, out.copies, chosen))
    work.plan.place(chain)


def own_experts(work: Work, first: str, count: int, chosen: int, choice: Laid, out: Laid) -> None:
    """The choice with numbers from the constant `first` on, of `count` experts that are here.

    Others have a gate of 0, and a number that is here.
    """
    tokens, loops = work.rows, ((chosen, work.rows), (work.rows, 1))
    start = Rows(work.constant(first, 1, "f32", EAST), 0, (0, 0))
    inside = Rows(work.scratch("race.inside", chosen, "f32", EAST), 0, (tokens, 1))
    numbers, gates = (work.rows_of(choice.copies[0], block) for block in (0, chosen))
    chain = work.chain("route: own experts")
    mine = chain.vxm("sub", replace(numbers, steps=(tokens, 1)), start, loops=loops)
    held = chain.vxm("min", chain.vxm("max", mine, 0.0), float(count - 1))
    late = chain.vxm("copy", chain.vxm("copy", mine))
    chain.write(chain.vxm("to_f32", chain.vxm("eq", held, late)), inside)
    deliver(chain, held, targets(work, out.copies))
    work.plan.place(chain)
    chain = work.chain("route: own gates")
    gate = chain.vxm("mul", replace(gates, steps=(tokens, 1)), inside, loops=loops)
    deliver(chain, gate, targets(work, out.copies, chosen))
    work.plan.place(chain)


def all_experts(work: Work, first: str, count: int, chosen: int, choice: Laid, out: Laid) -> None:
    """All `count` experts from the constant `first` on, in order, with the gates of the choice.

    Those that were not chosen have a gate of 0.
    """
    tokens, pace = work.rows, work.spec.d_func("vxm.alu")
    start = Rows(work.constant(first, 1, "f32", EAST), 0, (0, 0))
    inside = work.scratch("race.inside", chosen, "f32", EAST)
    numbers, gates = (work.rows_of(choice.copies[0], block) for block in (0, chosen))
    every: Loops = ((chosen, tokens), (tokens, 1))
    for number in range(count):
        chain = work.chain("route: all experts")
        mine = chain.vxm("sub", replace(numbers, steps=(tokens, 1)), start, loops=every)
        chosen_here = chain.vxm("to_f32", chain.vxm("eq", mine, float(number)))
        chain.write(chosen_here, Rows(inside, 0, (tokens, 1)))
        work.plan.place(chain)
        for row in range(0, tokens, pace):
            chain, loops = work.chain("route: all gates"), run(min(pace, tokens - row))
            total: Flow | None = None
            for slot in range(chosen):  # each is read once the one before has been
                at = slot * tokens + row
                gate = replace(gates, first=gates.first + at)
                part = chain.vxm("mul", gate, Rows(inside, at), loops=loops, at=slot * pace)
                total = chain.vxm("add", total, part) if total else chain.vxm("copy", part)
            assert total is not None
            rows = targets(work, out.copies, count + number)
            deliver(chain, total, [replace(one, first=one.first + row) for one in rows])
            work.plan.place(chain)
        chain = work.chain("route: all numbers")
        zero = chain.vxm("mul", replace(numbers, steps=(0, 1)), 0.0, loops=run(tokens))
        deliver(chain, chain.vxm("add", zero, float(number)), targets(work, out.copies, number))
        work.plan.place(chain)
