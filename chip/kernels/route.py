"""The router of a mixture: its highest scores, by their ranks, and their softmax.

Numbers of experts and gates are in all lanes. Experts begin as soon as there are numbers.
"""

from dataclasses import replace

from chip.kernels.linear import deliver
from chip.kernels.ranks import Race, bound, enter, find, numbers_of, pick
from chip.kernels.work import Laid, Part, Work, targets
from chip.schedule import Buffer, Flow, Loops, Rows, run
from chip.spec import EAST, WEST


def route(
    work: Work, scores: Laid, experts: int, chosen: int, out: Laid, is_raced: bool = False
) -> None:
    """out rows (choice, slot, token): numbers of the `chosen` experts, then their gates.

    If it `is_raced`, the product that made the few scores has ranked them, too.
    """
    assert scores.layout.blocks == 1
    race = Race.of(work, experts)
    if not (is_raced and race.at_once(work)):
        chain = work.chain("route: scores")
        limit = bound(work, chain, experts, run(work.rows))
        entered = chain.vxm("min", limit, work.rows_of(scores.copies[0], 0))
        enter(work, race, chain, entered)
        work.plan.place(chain)
        find(work, race, chosen)
    numbers_of(work, race, chosen, out)


def gates(work: Work, experts: int, chosen: int, out: Laid) -> None:
    """The gates of a choice whose numbers there are: softmax of the scores."""
    top = work.scratch("race.top", chosen, "f32", WEST)
    race = Race.of(work, experts)
    rows = work.rows

    def of_slots(first: int) -> list[Rows]:
        return [Rows(top, first * rows, (rows, 1))]

    pick(work, race, chosen, lambda block: race.scores(block, rows), of_slots)
    highest = work.scratch("race.highest", 1, "f32", EAST)
    chain = work.chain("route: highest")
    chain.write(chain.vxm("copy", Rows(top), loops=run(work.rows)), Rows(highest))
    work.plan.place(chain)
    _gates(work, top, highest, chosen, out)


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
    deliver(chain, gate, targets(work, gate_copies(out), chosen))
    work.plan.place(chain)


def gate_copies(choice: Laid) -> list[tuple[Part, ...]]:
    """Those copies of a choice that have gates; of others numbers are read only."""
    return [copy for copy in choice.copies if copy[0].buffer.region.dtype == "f32"]


def number_copies(choice: Laid) -> list[tuple[Part, ...]]:
    """Those copies of a choice that have numbers; of the others gates are read only."""
    return [copy for copy in choice.copies if copy[0].buffer.region.dtype == "u16"]


def own_experts(work: Work, first: str, count: int, chosen: int, choice: Laid, out: Laid) -> None:
    """The choice with numbers from the constant `first` on, of `count` experts that are here.

    Others have a number that is here. Gates follow.
    """
    tokens, loops = work.rows, ((chosen, work.rows), (work.rows, 1))
    start = Rows(work.constant(first, 1, "f32", EAST), 0, (0, 0))
    inside = Rows(work.scratch("race.inside", chosen, "f32", EAST), 0, (tokens, 1))
    numbers = work.rows_of(choice.copies[0], 0)
    chain = work.chain("route: own experts")
    mine = chain.vxm("sub", replace(numbers, steps=(tokens, 1)), start, loops=loops)
    held = chain.vxm("min", chain.vxm("max", mine, 0.0), float(count - 1))
    late = chain.vxm("copy", chain.vxm("copy", mine))
    chain.write(chain.vxm("to_f32", chain.vxm("eq", held, late)), inside)
    deliver(chain, held, targets(work, number_copies(out)))
    work.plan.place(chain)


def own_gates(work: Work, count: int, chosen: int, choice: Laid, out: Laid) -> None:
    """Gates of what `own_experts` has chosen: those of experts that are not here are 0."""
    tokens, loops = work.rows, ((chosen, work.rows), (work.rows, 1))
    inside = Rows(work.scratch("race.inside", chosen, "f32", EAST), 0, (tokens, 1))
    chosen_gates = replace(work.rows_of(choice.copies[0], chosen), steps=(tokens, 1))
    chain = work.chain("route: own gates")
    gate = chain.vxm("mul", chosen_gates, inside, loops=loops)
    deliver(chain, gate, targets(work, gate_copies(out), chosen))
    work.plan.place(chain)


def all_experts(work: Work, first: str, count: int, chosen: int, choice: Laid, out: Laid) -> None:
    """All `count` experts from the constant `first` on, in order. Gates follow."""
    tokens = work.rows
    start = Rows(work.constant(first, 1, "f32", EAST), 0, (0, 0))
    numbers = work.rows_of(choice.copies[0], 0)
    every: Loops = ((chosen, tokens), (tokens, 1))
    for number in range(count):
        chain = work.chain("route: all numbers")
        zero = chain.vxm("mul", replace(numbers, steps=(0, 1)), 0.0, loops=run(tokens))
        deliver(
            chain, chain.vxm("add", zero, float(number)), targets(work, number_copies(out), number)
        )
        work.plan.place(chain)
    for number in range(count):
        chain = work.chain("route: all experts")
        mine = chain.vxm("sub", replace(numbers, steps=(tokens, 1)), start, loops=every)
        chosen_here = chain.vxm("to_f32", chain.vxm("eq", mine, float(number)))
        inside = work.scratch(f"race.inside{number}", chosen, "f32", EAST)
        chain.write(chosen_here, Rows(inside, 0, (tokens, 1)))
        work.plan.place(chain)


def all_gates(work: Work, count: int, chosen: int, choice: Laid, out: Laid) -> None:
    """Gates of all `count` experts: of those that were not chosen 0."""
    tokens, pace = work.rows, work.spec.d_func("vxm.alu")
    every = work.rows_of(choice.copies[0], chosen)
    for number in range(count):
        inside = work.scratch(f"race.inside{number}", chosen, "f32", EAST)
        for row in range(0, tokens, pace):
            chain, loops = work.chain("route: all gates"), run(min(pace, tokens - row))
            total: Flow | None = None
            for slot in range(chosen):  # each is read once the one before has been
                at = slot * tokens + row
                gate = replace(every, first=every.first + at)
                part = chain.vxm("mul", gate, Rows(inside, at), loops=loops, at=slot * pace)
                total = chain.vxm("add", total, part) if total else chain.vxm("copy", part)
            assert total is not None
            rows = targets(work, gate_copies(out), count + number)
            deliver(chain, total, [replace(one, first=one.first + row) for one in rows])
            work.plan.place(chain)
