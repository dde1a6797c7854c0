"""A router whose scores are sigmoids: a bias joins the race, some groups of experts are not in it.

What is highest is found by ranks, as `chip.kernels.route` does, and so are groups. Scores may take
several blocks of lanes; numbers and gates are in all lanes.
"""

from dataclasses import dataclass

from chip.kernels.lanes import reduce_groups
from chip.kernels.linear import deliver
from chip.kernels.ranks import FAR, Race, enter, find, numbers_of, pick, ranks
from chip.kernels.route import gate_copies
from chip.kernels.work import Laid, Work, targets
from chip.schedule import Buffer, Chain, Flow, Loops, Rows, run
from chip.spec import EAST, WEST

OUT = -3e38  # added to a score that is out of the race: nothing is below it
NUMBERS = "numbers"  # of the expert in a lane; FAR if there is none


@dataclass(frozen=True)
class Groups:
    """How experts are chosen: see the op. `bias` names the constant; a group has `size` lanes."""

    bias: str
    size: int
    kept: int
    normed: bool
    scale: float


def grouped_route(
    work: Work, groups: Groups, scores: Laid, experts: int, chosen: int, out: Laid
) -> None:
    """out rows (choice, slot, token): numbers of the `chosen` experts."""
    race, rows = _race(work, scores, experts), work.rows
    sigmoids = work.scratch("route.sigmoids", race.blocks, "f32", WEST)
    if groups.kept * groups.size < experts:
        every = work.scratch("route.every", race.blocks, "f32", EAST)
        for block in range(race.blocks):
            chain, value = _sigmoid(work, groups, scores, block, sigmoids)
            chain.write(value, Rows(every, block * rows))
            work.plan.place(chain)
        _of_kept(work, groups, race, every)
    else:
        for block in range(race.blocks):
            chain, value = _sigmoid(work, groups, scores, block, sigmoids)
            enter(work, race, chain, value, block)
            work.plan.place(chain)
    find(work, race, chosen)
    if race.blocks == 1:
        numbers_of(work, race, chosen, out)
        return
    numbers = work.constant(f"{groups.bias}.{NUMBERS}", race.blocks, "f32", WEST)

    def of_slots(first: int) -> list[Rows]:
        return targets(work, out.copies, first)

    pick(work, race, chosen, lambda block: Rows(numbers, block, (0, 0)), of_slots)


def _race(work: Work, scores: Laid, experts: int) -> Race:
    blocks = scores.layout.blocks
    return Race.of(work, experts if blocks == 1 else scores.layout.width, blocks)


def _sigmoid(
    work: Work, groups: Groups, scores: Laid, block: int, sigmoids: Buffer
) -> tuple[Chain, Flow]:
    """Scores with the bias, which keeps lanes without an expert out; sigmoids alone are written."""
    bias = work.constant(groups.bias, scores.layout.blocks, "f32", WEST)
    chain = work.chain("route: sigmoid")
    source, loops = work.rows_of(scores.copies[0], block), run(work.rows)
    power = chain.vxm("exp", chain.vxm("mul", source, -1.0, loops=loops))
    value = chain.vxm("recip", chain.vxm("add", power, 1.0))
    entered = chain.vxm("add", value, Rows(bias, block, (0, 0)))
    chain.write(chain.vxm("copy", value), Rows(sigmoids, block * work.rows))
    return chain, entered


def _of_kept(work: Work, groups: Groups, race: Race, every: Buffer) -> None:
    """The race of experts whose groups are kept: those with the highest sums of their two best.

    As many lanes have the score of a group as it has experts: what is before a lane are all those
    of higher groups, and in its own the lower lanes.
    """
    between = Race.of(work, race.count, race.blocks, "groups")
    for block in range(race.blocks):
        _two_best(work, groups, every, block, between)
    for chain, rank, block, token in ranks(work, between):
        kept = chain.vxm("to_f32", chain.vxm("lt", rank, float(groups.kept * groups.size)))
        limit = chain.vxm("mul", chain.vxm("sub", kept, 0.5), float("inf"))
        mine = chain.vxm("min", limit, Rows(every, block * work.rows + token))
        enter(work, race, chain, mine, block, token)
        work.plan.place(chain)


def _two_best(work: Work, groups: Groups, every: Buffer, block: int, out: Race) -> None:
    """Enter, in the lanes of each group, the sum of its two highest scores."""
    at, size, loops = block * work.rows, groups.size, run(work.rows)
    numbers = work.constant(f"{groups.bias}.{NUMBERS}", out.blocks, "f32", WEST)
    rows, lanes = Rows(every, at), Rows(numbers, block, (0, 0))
    first = work.scratch("route.best", 1, "f32", WEST)
    rest = work.scratch("route.rest", 1, "f32", EAST)
    chain = work.chain("route: best of groups")
    best = reduce_groups(chain, "max", chain.vxm("copy", rows, loops=loops), "f32", size)
    lower = chain.vxm("to_f32", chain.vxm("ne", best, rows))
    far = chain.vxm("add", chain.vxm("mul", lower, FAR), lanes)
    lane = reduce_groups(chain, "min", far, "f32", size)
    gone = chain.vxm("to_f32", chain.vxm("eq", lane, lanes))
    chain.write(chain.vxm("copy", best), Rows(first))
    chain.write(chain.vxm("add", chain.vxm("mul", gone, OUT), rows), Rows(rest))
    work.plan.place(chain)
    chain = work.chain("route: two best of groups")
    value = chain.vxm("copy", Rows(rest), loops=loops)
    second = reduce_groups(chain, "max", value, "f32", size)
    enter(work, out, chain, chain.vxm("add", second, Rows(first)), block)
    work.plan.place(chain)


def grouped_gates(
    work: Work, groups: Groups, scores: Laid, experts: int, chosen: int, out: Laid
) -> None:
    """The gates of a choice whose numbers there are: their sigmoids."""
    race, rows = _race(work, scores, experts), work.rows
    sigmoids = work.scratch("route.sigmoids", race.blocks, "f32", WEST)
    tops = work.scratch("route.tops", chosen, "f32", WEST)

    def of_slots(first: int) -> list[Rows]:
        return [Rows(tops, first * rows, (rows, 1))]

    pick(work, race, chosen, lambda block: Rows(sigmoids, block * rows, (0, 1)), of_slots)
    _gates(work, groups, tops, chosen, out)


def _gates(work: Work, groups: Groups, tops: Buffer, chosen: int, out: Laid) -> None:
    """Gates times the scale, divided by their sum if they are normed."""
    rows, loops = work.rows, ((chosen, work.rows), (work.rows, 1))
    share = work.scratch("route.share", 1, "f32", EAST)
    pace = work.spec.d_func("vxm.alu")
    for start in range(0, rows if groups.normed else 0, pace):
        chain = work.chain("route: sum")
        part: Loops = run(min(pace, rows - start))
        total = chain.vxm("copy", Rows(tops, start), loops=part)
        for slot in range(1, chosen):
            total = chain.vxm("add", total, Rows(tops, slot * rows + start))
        chain.write(chain.vxm("recip", total), Rows(share, start))
        work.plan.place(chain)
    chain = work.chain("route: gates")
    factor: Rows | float = Rows(share, 0, (0, 1)) if groups.normed else 1.0
    gate = chain.vxm("mul", Rows(tops, 0, (rows, 1)), factor, loops=loops)
    deliver(chain, chain.vxm("mul", gate, groups.scale), targets(work, gate_copies(out), chosen))
    work.plan.place(chain)
