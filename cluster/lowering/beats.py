"""Beats: launches in which every stage is at work, each on a sequence of its own.

Pipelined, a launch is not the way of a token through all stages but one beat of the pipeline:
first every stage hands what it has to the next, on all links at once, then each works on what it
got, all from the same cycle on. As the hand-over takes the same cycles whatever the stages work
on, programs for different sequences go together as they are: a beat is made of *cells*, what the
chips of one stage do for one sequence.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from chip.kernels.io_double_buffer import KEPT, NEXT, OUT, copy_rows
from chip.kernels.transfer import transfer
from chip.schedule import Outline, Pace, Rows, Schedule
from cluster.compiler.stage import Stage
from cluster.compiler.stages import CONTEXT_BLOCK, Plan
from cluster.errors import BadValue
from cluster.lowering.clocking import Clocking
from cluster.lowering.host_regions import input_regions, output_regions
from cluster.lowering.parts import Axis, Parts, in_parts
from cluster.lowering.wires import Group, Wires, group_of
from cluster.mapping.placement import Placement

KINDS = ("decode", "prefill")


class HasPrograms(Protocol):
    """A launch, as far as a beat is concerned."""

    @property
    def programs(self) -> Mapping[int, bytes]:
        """Return the program of every chip."""


def cell_name(kind: str, slot: int | None = None, context: int = 0) -> str:
    """Name of the launch in which all stages work for sequence slot `slot`, or for none."""
    return f"{kind}.idle" if slot is None else f"{kind}.{slot}@{context}"


def parts_of(
    teams: Sequence[Sequence[int]], cells: Sequence[str], launches: Mapping[str, HasPrograms]
) -> dict[int, str]:
    """Whose program each chip runs in a beat: `cells` are those of the stages.

    `teams` are the chips of each stage; others, which pass vectors on, do the same in all cells.
    """
    parts = dict.fromkeys(launches[cells[0]].programs, cells[0])
    for team, cell in zip(teams, cells, strict=True):
        parts |= dict.fromkeys(team, cell)
    return parts


@dataclass
class Beats:
    """What the cells of a plan are made of; equal stages, and what slots share, is made once."""

    plan: Plan
    placement: Placement
    stages: tuple[Stage, ...]
    wires: Wires
    clocks: Clocking | None
    _made: dict[tuple[object, ...], Schedule | Outline] = field(default_factory=dict)
    _copies: dict[tuple[object, ...], Schedule] = field(default_factory=dict)
    _given: dict[int, list[Schedule]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.teams = [group_of(self.wires, group) for group in self.placement]
        _check_apart(self.plan, self.teams)

    def tokens(self, kind: str) -> int:
        """Tokens of a beat of that kind, in each stage."""
        return 1 if kind == "decode" else self.plan.chunk

    def cells(self) -> Iterator[tuple[str, int | None, int]]:
        """(kind, slot, context) of every cell that a chip must hold."""
        for kind in KINDS:
            if self.plan.pp > 1:
                yield kind, None, 0
            for context in range(CONTEXT_BLOCK, self.plan.context + 1, CONTEXT_BLOCK):
                yield from ((kind, slot, context) for slot in range(self.plan.slots))

    def compose(self, kind: str, slot: int | None, context: int, outline: bool = False) -> Axis:
        """All stages at work for one slot, or for none: the time axis of a cell on all chips.

        With `outline` it is the same without instructions.
        """
        tokens, axis = self.tokens(kind), Axis(self.clocks)
        for chip in self.clocks.depth if self.clocks else ():
            axis.parts[chip] = Parts(self.clocks)  # all of them hear of the start
        axis.boundary(self._hand_over(tokens, axis.pace))
        if slot is not None:
            stages = range(len(self.stages))
            work = [self._work(n, axis.pace, tokens, context, slot, outline) for n in stages]
            axis.beside(zip((team.members for team in self.teams), work, strict=True))
        return axis

    # --- the parts of a beat ----------------------------------------------------------------
    def _hand_over(self, tokens: int, pace: Pace | None) -> list[Schedule]:
        """x from every stage to the next, in parts where the clocks demand it; members are chips.

        Equal in all cells, and in length, as they share a beat.
        """
        if tokens not in self._given:
            rows = self.stages[0].hidden_blocks * tokens
            limit = pace.limit_cycles if pace else None
            self._given[tokens] = in_parts(rows, limit, lambda *cut: self._rows_on(tokens, *cut))
        return self._given[tokens]

    def _rows_on(self, tokens: int, first: int, last: int) -> Schedule:
        """Some rows of x from every stage to the next.

        Last stages first: what a stage hands on is read before the next x overwrites it.
        """
        plan, source = Schedule(self.plan.spec), KEPT if tokens == 1 else "x0"
        for number in reversed(range(self.plan.pp - 1)):
            stage, following = self.stages[number], self.stages[number + 1]
            x, to = Rows(stage.memory[source], first), Rows(following.memory["x0"], first)
            pair = self.placement[number], self.placement[number + 1]
            for path in self.wires.all_paths(list(zip(*pair, strict=True))):
                transfer(plan, tuple(self.wires.hops(path)), x, to, last - first)
        return plan

    def _work(
        self, number: int, pace: Pace | None, tokens: int, context: int, slot: int, outline: bool
    ) -> tuple[Schedule | Outline, ...]:
        """Inputs in, a stage's layers, its result to where the next beat or the host finds it."""
        stage, routes = self.stages[number], self.teams[number].routes
        opening = self._take_in(number, tokens, context // CONTEXT_BLOCK)
        closing = self._put_out(number, tokens)
        if pace:
            limit, since = pace.limit_cycles - closing.end_cycle, pace.since_cycles
            pace = Pace(pace.stall_cycles, limit, since + opening.end_cycle)
        key = (id(stage), pace, tokens, context, 0 if outline else slot, outline, *routes.items())
        if key not in self._made:
            make = stage.outline if outline else stage.schedule
            self._made[key] = make(tokens, context // CONTEXT_BLOCK, routes, pace, slot)
        return opening, self._made[key], closing

    def _take_in(self, number: int, tokens: int, blocks: int) -> Schedule:
        """The host's inputs to where the stage wants them."""
        stage, first = self.stages[number], number == 0
        key = ("in", id(stage), first, tokens, blocks)
        if key not in self._copies:
            plan = self._copies[key] = Schedule(self.plan.spec)
            for name, region in input_regions(stage, first, tokens, blocks).items():
                source, target = (stage.view(n, region.vectors) for n in (NEXT + name, name))
                for member in range(stage.members):
                    copy_rows(plan, member, source, target, f"take in {name}")
        return self._copies[key]

    def _put_out(self, number: int, tokens: int) -> Schedule:
        """x, or logits, to where a beat leaves them; x of a prefill rests where it is."""
        stage, last = self.stages[number], number == self.plan.pp - 1
        key = ("out", id(stage), last, tokens)
        if key not in self._copies:
            plan = self._copies[key] = Schedule(self.plan.spec)
            names = {name: OUT + name for name in output_regions(stage, tokens)}
            if tokens == 1 and not last:
                names = {"x0": KEPT}
            for name, target in names.items():
                for member in range(stage.members):
                    copy_rows(plan, member, stage.memory[name], stage.memory[target], "put out")
        return self._copies[key]


def _check_apart(plan: Plan, teams: Sequence[Group]) -> None:
    """Stages that work side by side must not need each other's chips for their all-reduces."""
    holder: dict[int, int] = {}
    for number, team in enumerate(teams):
        for chip in team.members:
            if holder.setdefault(chip, number) != number:
                shared = f"all-reduces of stages {holder[chip]} and {number} both cross chip {chip}"
                advice = "name a --topology that keeps tensor groups together, or another --tp"
                raise BadValue("--concurrency", plan.slots, f"{shared}; {advice}")
