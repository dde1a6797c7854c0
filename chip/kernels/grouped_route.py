"""A router whose scores are sigmoids: a bias joins the race, some groups of experts are not in it.

What is highest is found as `chip.kernels.route` does: one after the other, of equal ones that with
the lowest number. Scores may take several blocks of lanes; numbers and gates are in all lanes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from chip.kernels.lanes import reduce_groups, reduce_lanes
from chip.kernels.linear import deliver
from chip.kernels.ranks import FAR
from chip.kernels.route import gate_copies
from chip.kernels.work import Laid, Work, targets
from chip.schedule import Buffer, Chain, Flow, Loops, Rows, run
from chip.spec import EAST, WEST

OUT = -3e38  # added to a score that is out of the race: nothing is below it
NUMBERS, GROUPS = (
    "numbers",
    "groups",
)  # of the expert in a lane, and of its group; FAR if there is none


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
    """out rows (choice, slot, token): numbers of the `chosen` experts, then their gates."""
    blocks = scores.layout.blocks
    race = _race(work, "race", blocks)
    sigmoids = work.scratch("route.sigmoids", blocks, "f32", WEST)
    numbers = work.constant(f"{groups.bias}.{NUMBERS}", blocks, "f32", WEST)
    _enter(work, groups, scores, sigmoids, race[0])
    if groups.kept * groups.size < experts:
        race = _of_kept(work, groups, blocks, race, numbers)
    tops = work.scratch("route.tops", chosen, "f32", WEST)
    for slot in range(chosen):
        found = work.rows_of(out.copies[0], slot)
        _highest(work, race[0], numbers, blocks, found)
        _gate(work, sigmoids, numbers, blocks, found, Rows(tops, slot * work.rows))
        if slot < chosen - 1:
            race = _leave(work, race, numbers, blocks, found)
    _gates(work, groups, tops, chosen, out)


def _race(work: Work, name: str, blocks: int) -> tuple[Buffer, Buffer]:
    """Rows (block, token) of what is in a race, and the same when one has left it."""
    first, second = (work.scratch(f"route.{name}{turn}", blocks, "f32", EAST) for turn in (0, 1))
    return first, second


def _enter(work: Work, groups: Groups, scores: Laid, sigmoids: Buffer, race: Buffer) -> None:
    """Sigmoids of scores, and these with the bias, which keeps lanes without an expert out."""
    blocks, rows = scores.layout.blocks, work.rows
    bias = work.constant(groups.bias, blocks, "f32", WEST)
    loops: Loops = ((blocks, rows), (rows, 1))
    chain = work.chain("route: sigmoid")
    source = replace(work.rows_of(scores.copies[0], 0), steps=(rows, 1))
    power = chain.vxm("exp", chain.vxm("mul", source, -1.0, loops=loops))
    value = chain.vxm("recip", chain.vxm("add", power, 1.0))
    entered = chain.vxm("add", value, Rows(bias, 0, (1, 0)))
    chain.write(chain.vxm("copy", value), Rows(sigmoids, 0, (rows, 1)))
    chain.write(entered, Rows(race, 0, (rows, 1)))
    work.plan.place(chain)


def _of_kept(
    work: Work, groups: Groups, blocks: int, race: tuple[Buffer, Buffer], numbers: Buffer
) -> tuple[Buffer, Buffer]:
    """The race of experts whose groups are kept: those with the highest sums of their two best."""
    owners = work.constant(f"{groups.bias}.{GROUPS}", blocks, "f32", WEST)
    between = _race(work, "groups", blocks)
    found = Rows(work.scratch("route.group", 1, "f32", WEST))
    for block in range(blocks):
        _two_best(work, groups, race[0], numbers, block, between[0])
    for _ in range(groups.kept):
        _highest(work, between[0], owners, blocks, found)
        between = _leave(work, between, owners, blocks, found)
    for block in range(blocks):  # those that have left it are kept
        chain, at = work.chain("route: kept groups"), block * work.rows
        left = chain.vxm("ge", Rows(between[0], at), OUT / 2, loops=run(work.rows))
        value = chain.vxm("mul", chain.vxm("to_f32", left), OUT)
        chain.write(chain.vxm("add", value, Rows(race[0], at)), Rows(race[1], at))
        work.plan.place(chain)
    return race[1], race[0]


def _two_best(
    work: Work, groups: Groups, race: Buffer, numbers: Buffer, block: int, out: Buffer
) -> None:
    """In the lanes of each group the sum of its two highest scores."""
    at, size, loops = block * work.rows, groups.size, run(work.rows)
    rows, number = Rows(race, at), Rows(numbers, block, (0, 0))
    first = work.scratch("route.best", 1, "f32", WEST)
    rest = work.scratch("route.rest", 1, "f32", EAST)
    chain = work.chain("route: best of groups")
    best = reduce_groups(chain, "max", chain.vxm("copy", rows, loops=loops), "f32", size)
    lane = reduce_groups(chain, "min", _apart(chain, best, rows, number), "f32", size)
    gone = chain.vxm("to_f32", chain.vxm("eq", lane, number))
    chain.write(chain.vxm("copy", best), Rows(first))
    chain.write(chain.vxm("add", chain.vxm("mul", gone, OUT), rows), Rows(rest))
    work.plan.place(chain)
    chain = work.chain("route: two best of groups")
    value = chain.vxm("copy", Rows(rest), loops=loops)
    second = reduce_groups(chain, "max", value, "f32", size)
    chain.write(chain.vxm("add", second, Rows(first)), Rows(out, at))
    work.plan.place(chain)


def _apart(chain: Chain, best: Flow, rows: Rows, number: Rows) -> Flow:
    """Numbers of lanes that have the best, far ones of all others."""
    lower = chain.vxm("to_f32", chain.vxm("ne", best, rows))
    return chain.vxm("add", chain.vxm("mul", lower, FAR), number)


def _runs(work: Work, blocks: int) -> Iterator[tuple[int, int]]:
    """(first, count) of tokens whose rows a chain reads: of several blocks one after the other."""
    most = work.rows if blocks == 1 else work.spec.d_func("vxm.alu")
    for start in range(0, work.rows, most):
        yield start, min(most, work.rows - start)


def _highest(work: Work, race: Buffer, numbers: Buffer, blocks: int, found: Rows) -> None:
    """The lowest number that has the highest score in the race."""
    for start, count in _runs(work, blocks):
        rows = [Rows(race, block * work.rows + start) for block in range(blocks)]
        chain = work.chain("route: highest")
        most = chain.vxm("copy", rows[0], loops=run(count))
        for one in rows[1:]:
            most = chain.vxm("max", most, one)
        best = reduce_lanes(chain, "max", most, "f32")
        lowest = _apart(chain, best, rows[0], Rows(numbers, 0, (0, 0)))
        for block, one in enumerate(rows[1:], 1):
            best = chain.vxm("copy", best)
            mine = _apart(chain, best, one, Rows(numbers, block, (0, 0)))
            lowest = chain.vxm("min", chain.vxm("copy", lowest), mine)
        number = reduce_lanes(chain, "min", lowest, "f32")
        chain.write(number, replace(found, first=found.first + start))
        work.plan.place(chain)


def _leave(
    work: Work, race: tuple[Buffer, Buffer], numbers: Buffer, blocks: int, found: Rows
) -> tuple[Buffer, Buffer]:
    """The race without those that have a number."""
    for block in range(blocks):
        chain, at = work.chain("route: leave"), block * work.rows
        gone = chain.vxm("mul", _mine(work, chain, found, numbers, block), OUT)
        chain.write(chain.vxm("add", gone, Rows(race[0], at)), Rows(race[1], at))
        work.plan.place(chain)
    return race[1], race[0]


def _mine(work: Work, chain: Chain, found: Rows, numbers: Buffer, block: int) -> Flow:
    """1 in the lanes of a block that have the number, else 0."""
    number = chain.vxm("copy", found, loops=run(work.rows))
    return chain.vxm("to_f32", chain.vxm("eq", number, Rows(numbers, block, (0, 0))))


def _gate(
    work: Work, sigmoids: Buffer, numbers: Buffer, blocks: int, found: Rows, top: Rows
) -> None:
    """The sigmoid of an expert: it is above the zeros of all others."""
    for start, count in _runs(work, blocks):
        chain = work.chain("route: gate")
        wanted = replace(found, first=found.first + start)
        number, total = chain.vxm("copy", wanted, loops=run(count)), None
        for block in range(blocks):
            if total is not None:
                number, total = (chain.vxm("copy", value) for value in (number, total))
            equal = chain.vxm("eq", number, Rows(numbers, block, (0, 0)))
            own = Rows(sigmoids, block * work.rows + start)
            value = chain.vxm("mul", chain.vxm("to_f32", equal), own)
            total = value if total is None else chain.vxm("max", total, value)
        assert total is not None
        highest = reduce_lanes(chain, "max", total, "f32")
        chain.write(highest, replace(top, first=top.first + start))
        work.plan.place(chain)


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
