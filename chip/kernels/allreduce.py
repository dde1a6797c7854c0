"""All-reduce of a residual update: x + the sum of every member's y, on every member.

*Gather* sends all rows to all members, which add for themselves: one crossing of the links.
*Scatter* sends to each member the blocks it owns; it adds them, and sends the result to all: two
crossings, but 1/members of the bytes and of the memory. Sums run in member order in both, so that
all members get the same bits either way.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from weakref import WeakValueDictionary

from chip.kernels.memory import Memory
from chip.kernels.pointwise import add_rows
from chip.kernels.shape import halves
from chip.kernels.transfer import Hop, multicast, transfer
from chip.schedule import Chain, Rows, Schedule, run
from chip.spec import EAST, WEST

Routes = Mapping[tuple[int, int], tuple[Hop, ...]]
Place = tuple[int, int, int]  # (side, group, bank)
# Where parts land: not where x is read and written. Several arrive at a time, and each needs the
# write port of slices of its own.
PART_PLACES: tuple[Place, ...] = ((WEST, 1, 1), (WEST, 0, 1), (EAST, 1, 1))
SUM_PLACES: tuple[Place, ...] = ((EAST, 2, 0), (WEST, 2, 0))
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
    """The update of `blocks` x `tokens` rows on `members` chips over `routes`."""

    memory: Memory
    blocks: int
    members: int
    tokens: int
    routes: Routes
    before: str
    after: str

    def shared_schedule(self) -> Schedule:
        """`schedule`, made once for stages that agree in all it depends on."""
        names = ("x", "y", "part", "sum")
        regions = tuple(b for n, b in self.memory.buffers.items() if n.startswith(names))
        counts = (self.blocks, self.members, self.tokens, self.before, self.after)
        key = (id(self.memory.spec), *counts, *regions, *self.routes.items())
        found = _SCHEDULES.get(key)  # it holds its spec, whose id therefore stays its own
        if found is None:
            found = _SCHEDULES[key] = self.schedule()
        return found

    def schedule(self) -> Schedule:
        """The quicker of the ways there is memory for; from cycle 0 on, when all y are there."""
        found = [self._scattered()] if self.blocks > 1 else []
        if gathers(self.blocks, self.members):
            found.append(self._gathered())
        return min(found, key=lambda plan: plan.end_cycle)

    # --- every member adds everything -----------------------------------------------------------
    def _gathered(self) -> Schedule:
        plan, tokens = Schedule(self.memory.spec), self.tokens
        sides = [part for part in halves(self.blocks) if len(part)]
        for side, part in enumerate(sides):
            for rank in range(self.members):
                source = Rows(self.memory[f"y{side}"])
                target = Rows(self.memory[f"part{rank}"], part.start * tokens)
                self._to_all(plan, rank, source, target, len(part) * tokens)
        for member in range(self.members):
            for side, part in enumerate(sides):
                first, count = part.start * tokens, len(part) * tokens
                own = Rows(self.memory[f"y{side}"])
                self._accumulate(plan, member, own, (EAST, WEST)[side], first, first, count)
        return plan

    # --- every member adds what it owns ---------------------------------------------------------
    def _scattered(self) -> Schedule:
        plan, tokens = Schedule(self.memory.spec), self.tokens
        mine = lots(self.blocks, self.members)
        for turn in range(1, self.members):
            for lot in mine:
                rank = (lot.owner - turn) % self.members
                source = Rows(self.memory[f"y{lot.side}"], lot.inside * tokens)
                target = Rows(self.memory[f"part{rank}"], lot.before * tokens)
                route = self.routes[rank, lot.owner]
                transfer(plan, route, source, target, lot.count * tokens)
        for lot in mine:
            own = Rows(self.memory[f"y{lot.side}"], lot.inside * tokens)
            first, landed = lot.first * tokens, lot.before * tokens
            self._accumulate(plan, lot.owner, own, lot.side, first, landed, lot.count * tokens)
        for lot in mine:
            self._share_out(plan, lot)
        return plan

    def _share_out(self, plan: Schedule, lot: Lot) -> None:
        """The owner's sums to all others: they land in its part, and are copied to their rows."""
        first, count = lot.first * self.tokens, lot.count * self.tokens
        landing = Rows(self.memory[f"part{lot.owner}"], lot.before * self.tokens)
        result = Rows(self.memory[self.after], first)
        self._to_all(plan, lot.owner, result, landing, count)
        for member in range(self.members):
            if member != lot.owner:
                chain = Chain(plan.spec, "all-reduce: copy", member)
                chain.write(chain.vxm("copy", landing, loops=run(count)), result)
                plan.place(chain)

    # --- shared ---------------------------------------------------------------------------------
    def _to_all(self, plan: Schedule, rank: int, source: Rows, target: Rows, count: int) -> None:
        others = [(rank + n) % self.members for n in range(1, self.members)]
        for batch in batches([self.routes[rank, other] for other in others]):
            multicast(plan, batch, source, target, count)

    def _accumulate(
        self,
        plan: Schedule,
        member: int,
        own: Rows,
        side: int,
        first: int,
        landed: int,
        count: int,
    ) -> None:
        """after = before + every member's y, over rows `first`..; parts lie from row `landed` on.

        A chain adds as many parts as lie in different slices, since one port serves one read.
        """
        value = Rows(self.memory[self.before], first)
        runs = list(self._runs(member, own, side, landed))
        for number, operands in enumerate(runs):
            last = number == len(runs) - 1
            target = (
                Rows(self.memory[self.after], first)
                if last
                else Rows(self.memory[f"sum{number % 2}"])
            )
            add_rows(plan, member, [value, *operands], target, count, "all-reduce: add")
            value = target

    def _runs(self, member: int, own: Rows, side: int, landed: int) -> Iterator[list[Rows]]:
        """Operands in member order, cut wherever two would be read from the same slices."""
        found: list[Rows] = []
        busy: set[tuple[int, int]] = set()
        for rank in range(self.members):
            place = (side, Y_GROUP) if rank == member else part_place(rank)[:2]
            rows = own if rank == member else Rows(self.memory[f"part{rank}"], landed)
            if place in busy:
                yield found
                found, busy = [], set()
            found.append(rows)
            busy.add(place)
        yield found


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


def reserve_parts(memory: Memory, blocks: int, members: int, chunk: int) -> None:
    """Where y of the other members lands, and the sums of what a member adds up."""
    mine = len(owned(blocks, members, 0))
    rows = chunk * (blocks if gathers(blocks, members) else mine)
    for member in range(members):
        memory.rows(f"part{member}", part_place(member), rows, "f32")
    for number, place in enumerate(SUM_PLACES):
        memory.rows(f"sum{number}", place, rows, "f32")


def swapped(memory: Memory, index: int, address: int) -> int:
    """x0 for x1 and the other way round: they lie in the two banks of the same slices."""
    first, second = (memory[name].region for name in ("x0", "x1"))
    assert first.index == second.index
    if first.index <= index < first.index + first.slices:
        for here, there in ((first, second), (second, first)):
            if here.address <= address < here.address + here.words:
                return address - here.address + there.address
    return address
