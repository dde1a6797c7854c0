"""All-reduce of a residual update: x + the sum of every member's y, on every member.

It is a collective of `topology.collectives` whose sums run in the order of members: `direct` sends
each member the rows it adds up, and the sums to all; `exchange` sends all rows to all, which is one
crossing of the links instead of two, but many times the bytes. Groups of several times eight
members work by `teams` of eight, which exchange their sums. So all members get the same bits, and
the order of additions follows from the number of members alone.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import NamedTuple

from chip.errors import PoolFull
from chip.isa import WIDTHS
from chip.kernels.collective import APART_ROWS, RESIDUAL, Compiler, Home
from chip.kernels.collective_items import Items, Message
from chip.kernels.layout import halves
from chip.kernels.memory import MemoryMap
from chip.kernels.transfer import Hop
from chip.schedule import Beside, Buffer, Schedule, TooLong
from chip.spec import EAST, WEST, ChipSpec

Routes = Mapping[tuple[int, int], tuple[Hop, ...]]
Place = tuple[int, int, int]  # (side, group, bank)
# Where parts land, several at a time: not where x is read and written.
PART_PLACES: tuple[Place, ...] = ((WEST, 1, 1), (WEST, 0, 1), (EAST, 1, 1), (EAST, 2, 1))
# Where long sums rest, as a bank is not read while written: of a team; so far, in turn.
SUM_PLACES: tuple[Place, ...] = ((EAST, 2, 0), (WEST, 2, 0), (WEST, 2, 1))
AGENT_ROWS = 64  # of an all-reduce by agents: more come in blocks of several rows
AGENTS_AMONG = 64  # members at most: agents of more take seconds to find
GATED_ROWS = 24  # of one by gates or relays: more keep links busy for longer than they save
RELAYS_AMONG = 32  # members at most: with more teams relays hand on more sums than they save
TEAM = 8  # members: a node of the published topologies
GATHERED_BLOCKS = 16  # parts of more blocks than this, of all members, are not given memory


class Reach(NamedTuple):
    """What bounds of collectives in a group are made of.

    Cables of the rank with the fewest, cycles per vector of the fastest, and cycles on the cables
    between the two nearest and the two farthest ranks, with the number of these cables.
    """

    cables: int = 0
    interval_cycles: int = 0
    nearest_cycles: int = 0
    farthest_cycles: int = 0
    farthest_hops: int = 0


NO_REACH = Reach()  # of a chip alone


@dataclass(frozen=True, eq=False)
class Network(Mapping[tuple[int, int], tuple[Hop, ...]]):
    """How the members of a group reach each other, and what the messages of a collective are.

    A mapping from pairs of members to hops. `all_reduce(algorithm, rows, residual, sums)` lists an
    all-reduce of fp32 rows, with a `residual` onto what each member has; between nodes travel
    `sums` of that format. `digest` is equal for equal routes and cables; these and the reach are
    `written` out once somebody wants them.
    """

    digest: str
    routes: Routes
    all_reduce: Callable[[str, int, bool, str], Items] = field(repr=False)
    written: Callable[[], tuple[frozenset[Hop], Reach]] = field(repr=False)

    @cached_property
    def _written(self) -> tuple[frozenset[Hop], Reach]:
        return self.written()

    @property
    def cables(self) -> frozenset[Hop]:
        """All cables of the links between members, parallel ones too."""
        return self._written[0]

    @property
    def reach(self) -> Reach:
        """What bounds of collectives follow from."""
        return self._written[1]

    def __getitem__(self, pair: tuple[int, int]) -> tuple[Hop, ...]:
        return self.routes[pair]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.routes)

    def __len__(self) -> int:
        return len(self.routes)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Network) and self.digest == other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)


@dataclass(frozen=True)
class AllReduce:
    """The update of `blocks` x `tokens` rows on `members` chips over `routes`, a Network.

    `before`, if any, is the residual x, `after` the result, `update` the halves of y, east and
    west: names of buffers. With `some` tokens only the first of each block; others by moving all
    addresses. What teams exchange is in the format `sums`.
    """

    memory: MemoryMap
    blocks: int
    members: int
    tokens: int
    routes: Routes
    before: str | None
    after: str
    some: int
    sums: str
    update: tuple[str, str] = ("y0", "y1")

    def shared_schedule(self) -> Schedule:
        """The quickest schedule, made once for stages that agree in all it depends on.

        Raises PoolFull.
        """
        return min(_schedules(*self._problem), key=lambda plan: plan.end_cycle)

    @property
    def listed_cycles(self) -> int:
        """Cycles after which timetables have the last message leave, in the quickest of them."""
        return min(items.last_cycle for items in self._problem[2])

    def beside(
        self, plans: Beside, ready: Sequence[int], most_cycles: int | None = None
    ) -> Schedule:
        """The quickest one that begins while members are making y, as `plans` say.

        Rows that are `ready` first, by those cycles, are the first to leave. Raises PoolFull, and
        TooLong if something is under way after `most_cycles` in all of them.
        """
        spec, sizes, listed, rooms = self._problem
        made = sorted(range(len(ready)), key=lambda row: (ready[row], row))

        def compiled(items: Items) -> Schedule:
            if most_cycles is not None and ready[made[0]] + _busiest_cycles(items) > most_cycles:
                raise TooLong
            order = _by_order(items, made)
            return _compiled(spec, sizes, items, rooms, order, plans, most_cycles)

        return min(_with_room(listed, compiled), key=lambda plan: plan.end_cycle)

    @cached_property
    def _problem(self) -> tuple[ChipSpec, tuple[int, int, int], tuple[Items, ...], "_Rooms"]:
        assert isinstance(self.routes, Network), "members of a group are joined by a Network"
        names = [name for name in (*self.update, self.before, self.after) if name is not None]
        named = tuple((name, self.memory[name]) for name in names)
        rests = self.memory.buffers.items()
        parts, sums = ([b for n, b in rests if n.startswith(what)] for what in ("part", "between"))
        listed = tuple(
            self.routes.all_reduce(algorithm, self.blocks * self.some, bool(self.before), self.sums)
            for algorithm in self._algorithms(sum(part.region.vectors for part in parts))
        )
        sizes = (self.blocks, self.tokens, self.some)
        rooms = _Rooms(named, tuple(parts), tuple(sums), self.before, self.after, self.update)
        return self.memory.spec, sizes, listed, rooms

    def _algorithms(self, room: int) -> tuple[str, ...]:
        """Those there is room for: so many rows that land.

        A rank may add up all rows of its team, and all that teams have. Of many rows of fp32 agents
        are quickest past chips outside of the group; else they, or all ranks.
        """
        names, team, rows = algorithms(self.blocks, self.members), TEAM, self.blocks * self.some
        most = (team - 1) * rows + self.members // team * rows
        if names != ("teams",) or most > room:
            return names
        few, wide = rows <= GATED_ROWS, self.sums == "fp32"
        if self.members > AGENTS_AMONG or rows > AGENT_ROWS:
            return ("homes", "gates", "teams") if few else ("homes", "teams")
        assert isinstance(self.routes, Network), "members of a group are joined by a Network"
        detours = any(hop.member >= self.members for hop in self.routes.cables)
        if few:
            return "agents", "relays" if wide and self.members <= RELAYS_AMONG else "gates"
        return ("agents",) if detours and wide else ("agents", "teams")


@dataclass(frozen=True)
class _Rooms:
    """Buffers of an `AllReduce`: those it names, and room for what lands and what is added up."""

    named: tuple[tuple[str, Buffer], ...]
    parts: tuple[Buffer, ...]
    sums: tuple[Buffer, ...]
    before: str | None
    after: str
    update: tuple[str, str]


@lru_cache(maxsize=64)
def _schedules(
    spec: ChipSpec, sizes: tuple[int, int, int], listed: tuple[Items, ...], rooms: _Rooms
) -> tuple[Schedule, ...]:
    """Those of all algorithms there is memory for; from cycle 0 on, when all y are there."""
    return tuple(_with_room(listed, lambda items: _compiled(spec, sizes, items, rooms)))


def _with_room(listed: tuple[Items, ...], compiled: Callable[[Items], Schedule]) -> list[Schedule]:
    """Schedules of the lists there is memory and time for; raises PoolFull or TooLong for none."""
    found: list[Schedule] = []
    for items in listed:
        try:
            found.append(compiled(items))
        except (PoolFull, TooLong):
            if items is listed[-1] and not found:
                raise
    return found


@lru_cache(maxsize=64)
def _busiest_cycles(items: Items) -> int:
    """Cycles in which the cable that takes most of the rows is busy with them."""
    busy = Counter[tuple[int, int]]()
    for item in items:
        if isinstance(item, Message):
            vectors = item.source.length * WIDTHS["f32"]
            for hop in item.hops:
                busy[hop.member, hop.port] += vectors * hop.interval_cycles
    return max(busy.values(), default=0)


def _compiled(
    spec: ChipSpec, sizes: tuple[int, int, int], items: Items, rooms: _Rooms,
    order: tuple[int, ...] = (), beside: Beside | None = None, most_cycles: int | None = None,
) -> Schedule:  # fmt: skip
    """The schedule of a list of items; row n of it is row `order[n]`, where that is given."""
    blocks, tokens, some = sizes
    buffers = dict(rooms.named)
    y = tuple(
        (part.start, buffers[name])
        for name, part in zip(rooms.update, halves(blocks), strict=True)
        if len(part)
    )
    homes = {0: Home(y, tokens, some, order)}
    result = max(item.target.slot for item in items)  # scratch slots come before it
    homes[result] = Home(((0, buffers[rooms.after]),), tokens, some, order)
    if rooms.before is not None:
        homes[RESIDUAL] = Home(((0, buffers[rooms.before]),), tokens, some, order)
    compiler = Compiler(spec, homes, rooms.parts, rooms.sums, label="all-reduce")
    return compiler.compile(items, beside, most_cycles)


def _by_order(items: Items, made: Sequence[int]) -> tuple[int, ...]:
    """Which row of y each row of the list is, so that those made first leave first.

    Only where each leaves by itself: of a message of several rows all must be there.
    """
    first: dict[int, int] = {}
    for item in items:
        if isinstance(item, Message) and item.source.slot == 0:
            if item.source.length > 1:
                return ()
            row = item.source.first
            first[row] = min(first.get(row, item.start_cycle), item.start_cycle)
    order = dict(zip(sorted(first, key=lambda row: (first[row], row)), made, strict=True))
    return tuple(order[row] for row in range(len(made)))


def algorithms(blocks: int, members: int) -> tuple[str, ...]:
    """Those with one order of additions and memory for what lands."""
    if team_of(members) < members:
        return ("teams",)
    return ("direct", "exchange") if gathers(blocks, members) else ("direct",)


def team_of(members: int) -> int:
    """Members of a team: all, or eight of several times eight."""
    return TEAM if members > TEAM and members % TEAM == 0 else members


def gathers(blocks: int, members: int) -> bool:
    """Whether every member's whole y is given memory on every chip."""
    return blocks == 1 or blocks * members <= GATHERED_BLOCKS


def at_a_time(
    blocks: int, members: int, tokens: int, routes: Routes, most_cycles: int | None
) -> Iterator[int]:
    """Tokens, the most first, whose all-reduce may take at most so many cycles; 1 in any case.

    Among several, messages that read and write row by row are over in a third of the time of
    longer ones, which keep their slices to themselves: so there are few tokens in each, if need be.
    """
    short = members > 2 and _message_rows(blocks, members, 1) <= APART_ROWS
    for some in range(tokens, 1, -1):
        if tokens % some or (short and _message_rows(blocks, members, some) > APART_ROWS):
            continue
        if most_cycles is None or _least_cycles(blocks, members, some, routes) <= most_cycles:
            yield some
    yield 1


def _message_rows(blocks: int, members: int, tokens: int) -> int:
    """Rows of the part that a member of a team adds up."""
    return -(-blocks * tokens // team_of(members))


def _least_cycles(blocks: int, members: int, tokens: int, routes: Routes) -> int:
    """What it takes at least: parts to an owner, and its sums back, over one cable each."""
    team = team_of(members)
    if team == members and gathers(blocks, members):
        return 0
    interval = min(hop.interval_cycles for hops in routes.values() for hop in hops)
    return 2 * (blocks * tokens // team) * WIDTHS["f32"] * interval


def part_requests(blocks: int, members: int, chunk: int) -> list[tuple[str, Place, int, str]]:
    """Where parts and sums of others land: as many places as a member gets messages to add up."""
    team = team_of(members)
    everything = team == members and gathers(blocks, members)
    rows = blocks * chunk if everything else -(-blocks * chunk // team)
    count = team - 1 if team == members else team - 1 + members // team
    places = (PART_PLACES[number % len(PART_PLACES)] for number in range(count))
    return [(f"part{number}", place, rows, "f32") for number, place in enumerate(places)]


def swapped(memory: MemoryMap, index: int, address: int) -> int:
    """x0 for x1 and the other way round: they lie in the two banks of the same slices."""
    first, second = (memory[name].region for name in ("x0", "x1"))
    assert first.index == second.index
    if first.index <= index < first.index + first.slices:
        for here, there in ((first, second), (second, first)):
            if here.address <= address < here.address + here.words:
                return address - here.address + there.address
    return address
