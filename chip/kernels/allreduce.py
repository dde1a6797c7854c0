"""All-reduce of a residual update: x + the sum of every member's y, on every member.

*Gather* sends all rows to all members, which add for themselves: one crossing of the links.
*Scatter* sends to each member the blocks it owns; it adds them, and sends the result to all: two
crossings, but 1/members of the bytes and of the memory. Sums run in member order in both, so that
all members get the same bits either way. Groups of several times eight members work *by teams* of
eight: a team scatters among itself, the owners of a block in all teams exchange their sums, and
each sends the total to its team. What crosses between teams is a sum instead of eight parts.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from chip.isa import WIDTHS
from chip.kernels.add import add_rows
from chip.kernels.layout import halves
from chip.kernels.memory import MemoryMap
from chip.kernels.transfer import Hop, multicast, transfer
from chip.schedule import Chain, Rows, Schedule, over
from chip.spec import EAST, WEST

Routes = Mapping[tuple[int, int], tuple[Hop, ...]]
Place = tuple[int, int, int]  # (side, group, bank)
Operand = tuple[tuple[int, int], Rows]  # (side, group), rows that rest there
# Where parts land: not where x is read and written. Several arrive at a time, and each needs the
# write port of slices of its own.
PART_PLACES: tuple[Place, ...] = ((WEST, 1, 1), (WEST, 0, 1), (EAST, 1, 1))
# A team's own sum; then what is added up so far, in turn, as a bank is not read while written.
SUM_PLACES: tuple[Place, ...] = ((EAST, 2, 0), (WEST, 2, 0), (WEST, 2, 1))
TEAM = 8  # members: a node of the published topologies
Y_GROUP = 1
_SCHEDULES: WeakValueDictionary[tuple[object, ...], Schedule] = WeakValueDictionary()
GATHERED_BLOCKS = 16  # parts of more blocks than this, of all members, are not given memory


@dataclass(frozen=True)
class Lot:
    """Blocks `first`.. of the residual, `count` of them, all in y of one side."""

    owner: int
    first: int
    count: int
    side: int
    inside: int  # first block within y of that side
    before: int  # blocks of the owner's lots before this one


def owned(blocks: int, members: int, owner: int) -> range:
    """Blocks that a member adds up."""
    base, extra = divmod(blocks, members)
    start = owner * base + min(owner, extra)
    return range(start, start + base + (owner < extra))


def lots(blocks: int, members: int) -> list[Lot]:
    """What each member owns, cut where y goes over from one side to the other."""
    found = []
    for owner in range(members):
        mine, before = owned(blocks, members, owner), 0
        for side, part in zip((EAST, WEST), halves(blocks), strict=True):
            first, last = max(mine.start, part.start), min(mine.stop, part.stop)
            if first < last:
                inside = first - part.start
                found.append(Lot(owner, first, last - first, side, inside, before))
                before += last - first
    return found


@dataclass(frozen=True)
class AllReduce:
    """The update of `blocks` x `tokens` rows on `members` chips over `routes`.

    With `some` tokens only the first of each block; others by moving all addresses.
    """

    memory: MemoryMap
    blocks: int
    members: int
    tokens: int
    routes: Routes
    before: str
    after: str
    some: int

    def shared_schedule(self) -> Schedule:
        """`schedule`, made once for stages that agree in all it depends on."""
        names = ("x", "y", "part", "sum")
        regions = tuple(b for n, b in self.memory.buffers.items() if n.startswith(names))
        counts = (self.blocks, self.members, self.tokens, self.some, self.before, self.after)
        key = (id(self.memory.spec), *counts, *regions, *self.routes.items())
        found = _SCHEDULES.get(key)  # it holds its spec, whose id therefore stays its own
        if found is None:
            found = _SCHEDULES[key] = self.schedule()
        return found

    def schedule(self) -> Schedule:
        """The quicker of the ways there is memory for; from cycle 0 on, when all y are there.

        The order of sums follows from the number of members alone.
        """
        if team_of(self.members) < self.members:
            return self._by_teams()
        found = [self._scattered()] if self.blocks > 1 else []
        if gathers(self.blocks, self.members):
            found.append(self._gathered())
        return min(found, key=lambda plan: plan.end_cycle)

    # --- every member adds everything -----------------------------------------------------------
    def _gathered(self) -> Schedule:
        plan, everyone = Schedule(self.memory.spec), range(self.members)
        sides = [part for part in halves(self.blocks) if len(part)]
        for side, part in enumerate(sides):
            for rank in everyone:
                source, target = self._rows(f"y{side}"), self._rows(f"part{rank}", part.start)
                self._to_all(plan, rank, everyone, source, target, len(part))
        for member in everyone:
            for side, part in enumerate(sides):
                lot = Lot(member, part.start, len(part), side, 0, part.start)
                self._add_to_x(plan, member, self._parts(lot, member, everyone), lot)
        return plan

    # --- every member adds what it owns ---------------------------------------------------------
    def _scattered(self) -> Schedule:
        plan, everyone = Schedule(self.memory.spec), range(self.members)
        mine = lots(self.blocks, self.members)
        self._to_owners(plan, [everyone], mine)
        for lot in mine:
            self._add_to_x(plan, lot.owner, self._parts(lot, lot.owner, everyone), lot)
        for lot in mine:
            self._share_out(plan, everyone, lot)
        return plan

    # --- sums of a team are exchanged -----------------------------------------------------------
    def _by_teams(self) -> Schedule:
        plan, size = Schedule(self.memory.spec), team_of(self.members)
        teams = [range(first, first + size) for first in range(0, self.members, size)]
        mine = lots(self.blocks, size)
        self._to_owners(plan, teams, mine)
        for team in teams:
            for lot in mine:
                own = self._rows("sum0", lot.before)
                operands = self._parts(lot, team[lot.owner], team)
                self._accumulate(plan, team[lot.owner], operands, own, lot.count)
        for number, team in enumerate(teams):
            for lot in mine:
                owners = range(lot.owner, self.members, size)
                source = self._rows("sum0", lot.before)
                target = self._rows(f"part{size + number}", lot.before)
                self._to_all(plan, team[lot.owner], owners, source, target, lot.count)
        for number, team in enumerate(teams):
            for lot in mine:
                sums = [
                    (SUM_PLACES[0][:2], self._rows("sum0", lot.before))
                    if other == number
                    else self._part(size + other, lot)
                    for other in range(len(teams))
                ]
                self._add_to_x(plan, team[lot.owner], sums, lot)
        for team in teams:
            for lot in mine:
                self._share_out(plan, team, lot)
        return plan

    # --- shared ---------------------------------------------------------------------------------
    def _rows(self, name: str, block: int = 0) -> Rows:
        """The rows of a buffer from a block on: of each block those of some tokens."""
        steps = (0 if self.some == self.tokens else self.tokens, 1)
        return Rows(self.memory[name], block * self.tokens, steps)

    def _counts(self, blocks: int) -> tuple[int, int]:
        """Rows that follow each other, and how often."""
        return (blocks * self.tokens, 1) if self.some == self.tokens else (self.some, blocks)

    def _part(self, number: int, lot: Lot) -> Operand:
        return part_place(number)[:2], self._rows(f"part{number}", lot.before)

    def _parts(self, lot: Lot, member: int, team: range) -> list[Operand]:
        """A team's y of a lot on one of its members: its own, and what has landed."""
        own = ((lot.side, Y_GROUP), self._rows(f"y{lot.side}", lot.inside))
        return [
            own if rank == member else self._part(number, lot) for number, rank in enumerate(team)
        ]

    def _to_owners(self, plan: Schedule, teams: list[range], mine: list[Lot]) -> None:
        """The blocks of all members of a team to those of it that own them."""
        size = len(teams[0])
        for turn in range(1, size):
            for team in teams:
                for lot in mine:
                    number = (lot.owner - turn) % size
                    source = self._rows(f"y{lot.side}", lot.inside)
                    target = self._rows(f"part{number}", lot.before)
                    route = self.routes[team[number], team[lot.owner]]
                    transfer(plan, route, source, target, *self._counts(lot.count))

    def _share_out(self, plan: Schedule, team: range, lot: Lot) -> None:
        """The owner's sums to its team: they land in its part, and are copied to their rows."""
        landing = self._rows(f"part{lot.owner}", lot.before)
        result = self._rows(self.after, lot.first)
        self._to_all(plan, team[lot.owner], team, result, landing, lot.count)
        for member in team:
            if member != team[lot.owner]:
                chain = Chain(plan.spec, "all-reduce: copy", member)
                loops = over(*self._counts(lot.count))
                chain.write(chain.vxm("copy", landing, loops=loops), result)
                plan.place(chain)

    def _to_all(
        self, plan: Schedule, rank: int, team: range, source: Rows, target: Rows, blocks: int
    ) -> None:
        first, size = team.index(rank), len(team)
        others = [team[(first + n) % size] for n in range(1, size)]
        for batch in batches([self.routes[rank, other] for other in others]):
            multicast(plan, batch, source, target, *self._counts(blocks))

    def _add_to_x(self, plan: Schedule, member: int, operands: Sequence[Operand], lot: Lot) -> None:
        """after = before + the operands, over the blocks of a lot."""
        value, target = (self._rows(name, lot.first) for name in (self.before, self.after))
        self._accumulate(plan, member, operands, target, lot.count, value)

    def _accumulate(
        self,
        plan: Schedule,
        member: int,
        operands: Sequence[Operand],
        target: Rows,
        blocks: int,
        value: Rows | None = None,
    ) -> None:
        """target = value + the operands, added from left to right, over rows of `blocks` blocks.

        A chain adds as many as lie in different slices, since one port serves one read.
        """
        runs = list(_runs(operands))
        for number, run in enumerate(runs):
            between = self._rows(f"sum{1 + number % 2}")
            out = target if number == len(runs) - 1 else between
            terms = run if value is None else [value, *run]
            add_rows(plan, member, terms, out, "all-reduce: add", *self._counts(blocks))
            value = out


def _runs(operands: Sequence[Operand]) -> Iterator[list[Rows]]:
    """Operands in order, cut wherever two would be read from the same slices."""
    found: list[Rows] = []
    busy: set[tuple[int, int]] = set()
    for place, rows in operands:
        if place in busy:
            yield found
            found, busy = [], set()
        found.append(rows)
        busy.add(place)
    yield found


def team_of(members: int) -> int:
    """Members of a team: all, or eight of several times eight."""
    return TEAM if members > TEAM and members % TEAM == 0 else members


def gathers(blocks: int, members: int) -> bool:
    """Whether every member's whole y is given memory on every chip."""
    return blocks == 1 or blocks * members <= GATHERED_BLOCKS


def part_place(rank: int) -> Place:
    """Where the part of a member lands."""
    return PART_PLACES[rank % len(PART_PLACES)]


def batches(routes: list[tuple[Hop, ...]]) -> list[list[tuple[Hop, ...]]]:
    """Routes in as few batches as a first fit finds, no cable twice in one batch."""
    found: list[tuple[set[tuple[int, int]], list[tuple[Hop, ...]]]] = []
    for route in routes:
        cables = {(hop.member, hop.port) for hop in route}
        for taken, batch in found:
            if not taken & cables:
                taken |= cables
                batch.append(route)
                break
        else:
            found.append((cables, [route]))
    return [batch for _, batch in found]


def at_a_time(
    blocks: int, members: int, tokens: int, routes: Routes, most_cycles: int | None
) -> Iterator[int]:
    """Tokens, the most first, whose all-reduce may take at most so many cycles; 1 in any case."""
    for some in range(tokens, 1, -1):
        least = _least_cycles(blocks, members, some, routes)
        if tokens % some == 0 and (most_cycles is None or least <= most_cycles):
            yield some
    yield 1


def _least_cycles(blocks: int, members: int, tokens: int, routes: Routes) -> int:
    """What it takes at least: at each place parts, sums and results land one after another."""
    team = team_of(members)
    if team == members and gathers(blocks, members):
        return 0
    interval = min(hop.interval_cycles for hops in routes.values() for hop in hops)
    own, landing = len(owned(blocks, team, 0)), Counter[Place]()
    for other in range(1, team):
        landing[part_place(other)] += own + len(owned(blocks, team, other))
    for other in range(1, members // team):
        landing[part_place(team + other)] += own
    return max(landing.values()) * tokens * WIDTHS["f32"] * interval


def part_requests(blocks: int, members: int, chunk: int) -> list[tuple[str, Place, int, str]]:
    """Where parts and sums of others land, and the sums of what a member adds up."""
    team = team_of(members)
    everything = team == members and gathers(blocks, members)
    rows = chunk * (blocks if everything else len(owned(blocks, team, 0)))
    numbers = range(members if team == members else team + members // team)
    found = [(f"part{number}", part_place(number), rows, "f32") for number in numbers]
    return found + [(f"sum{n}", place, rows, "f32") for n, place in enumerate(SUM_PLACES)]


def swapped(memory: MemoryMap, index: int, address: int) -> int:
    """x0 for x1 and the other way round: they lie in the two banks of the same slices."""
    first, second = (memory[name].region for name in ("x0", "x1"))
    assert first.index == second.index
    if first.index <= index < first.index + first.slices:
        for here, there in ((first, second), (second, first)):
            if here.address <= address < here.address + here.words:
                return address - here.address + there.address
    return address
