"""A stage of a pipeline on a tensor-parallel group: its memory map, and what a launch does."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from chip.kernels.allreduce import Routes, part_requests
from chip.kernels.conflicts import Conflicts
from chip.kernels.io_double_buffer import double_buffers
from chip.kernels.layout import Layout
from chip.kernels.memory import MemoryMap
from chip.kernels.step import Moved, Step
from chip.kernels.trial import NO_DEMANDS, Demands
from chip.kernels.work import HALVES, INPUT, Request, Work
from chip.schedule import Buffer, Pace, Schedule, Sequence, TooLong
from chip.spec import EAST, ChipSpec
from cluster.compiler.assign import RESIDUAL, SUMMANDS, Assigned, Copy
from cluster.compiler.kernels import carries_peaks, enter, in_turn, place
from cluster.compiler.limits import CONTEXT_BLOCK
from cluster.compiler.memory_map import ALONE, cut_map, memory_map
from cluster.compiler.op_by_op import op_by_op
from cluster.compiler.section_demands import asked, lane_maps
from cluster.compiler.segments import by_heads, looks_back, segments, what_of
from cluster.compiler.shard import Sharded
from cluster.compiler.stage_shape import StageShape, roomy
from cluster.compiler.update import Update
from cluster.compiler.weight_cycles import column_cycles, hidden_cycles
from cluster.model.graph.collective import AllReduce
from cluster.model.graph.norm import Norm
from cluster.model.graph.op import GraphError, Op

Vectors = npt.NDArray[Any]
FIRST = range(1)  # the first sequence slot


@dataclass
class Stage:
    """A stage; the members of its group share its map and its schedules."""

    spec: ChipSpec
    shape: StageShape
    _parts: dict[tuple[object, ...], Schedule] = field(default_factory=dict, repr=False)
    _too_long: dict[tuple[object, ...], int] = field(default_factory=dict, repr=False)
    _assigned: dict[tuple[Sharded, int, int], Assigned] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.members = len(self.shape.ranks)
        self._check()

    def _check(self) -> None:
        """Raise GraphError unless sections can be laid out, and layers end where they began."""
        for sharded in self.shape.kinds:
            assigned, out = self.assigned(sharded, 0, self.shape.chunk).check(), sharded.section.out
            ends = assigned.residual.get(out.name)
            if ends != RESIDUAL[0]:
                rule = f"a layer must end in the buffer {RESIDUAL[0]}, it ends in {ends}"
                raise GraphError("stage", (out.name,), rule)
        sections = [one for one in (self.shape.opening, *self.shape.kinds) if one]
        if len({carries_peaks(self.assigned(one, 0, self.shape.chunk)) for one in sections}) > 1:
            raise GraphError("stage", (), "all sections must end in a LayerNorm, or none")
        if self.shape.head is not None:
            self.assigned(self.shape.head, 0, 1).check()

    @property
    def key(self) -> str:
        """What all schedules of the stage follow from, beside the chip."""
        return self.shape.digest

    # --- the map ----------------------------------------------------------------------------
    @cached_property
    def memory(self) -> MemoryMap:
        """Where all of it rests, which is the same for equal stages; raises SramFull."""
        return _map_of(self.spec, self.shape)

    def lay_out(self) -> MemoryMap:
        """Find room for all that kernels ask for; raises SramFull."""
        shape, blocks = self.shape, self.blocks
        demands, rank = NO_DEMANDS, shape.ranks[0]
        spec = roomy(self.spec)  # what kernels ask for is the same in any chip
        if shape.opening is not None:
            demands += asked(
                spec, shape.opening, rank, "opening.", shape.chunk, blocks, shape.weights,
                self.carried, part_rows=shape.part_rows,
            )  # fmt: skip
        for kind, section in enumerate(shape.kinds):
            prefix = self.prefix(kind)
            some = (shape.chunk, blocks, shape.weights, self.carried, shape.rows)
            demands += asked(spec, section, rank, prefix, *some, shape.part_rows)
        if shape.head is not None:
            most = self.most_rows(shape.head)
            size = (most, blocks, shape.weights, (), 1, shape.part_rows)
            demands += asked(spec, shape.head, rank, "head.", *size)
        if shape.slots > 1:
            demands += self._double_buffers(demands)
        counts = {
            self.prefix(kind): shape.layers.count(one) for kind, one in enumerate(shape.kinds)
        }
        counts |= dict.fromkeys(ALONE, 1)
        slots = shape.slots, shape.rows
        if shape.anywhere:
            return cut_map(self.spec, demands, counts, slots, self._fixed())
        apart = shape.part_rows > 0  # rows lie around the columns that this stage has
        usual = usual_places(self.spec, shape.whole) if shape.whole and not apart else {}
        return memory_map(self.spec, demands, counts, slots, self._fixed(), usual, apart)

    def _double_buffers(self, demands: Demands) -> Demands:
        """Room for the inputs of the next pipeline step and the results of the last one."""
        first = Request(RESIDUAL[0], self.hidden_blocks * self.shape.chunk, "f32", EAST, INPUT)
        kept = replace(first, vectors=self.hidden_blocks * self.shape.rows)
        requests = double_buffers((*demands.requests, first), kept)
        return Demands(tuple(requests), {}, Conflicts({}, {}), 0)

    def _fixed(self) -> list[tuple[str, tuple[int, int, int], int, str]]:
        """The residual stream in both banks of the same slices, what is added to it, and parts."""
        hidden = self.hidden_blocks * self.shape.chunk
        found = [(name, (EAST, 0, bank), hidden, "f32") for bank, name in enumerate(RESIDUAL)]
        if self.members > 1:
            found += [(name, (side, 1, 0), hidden, "f32") for side, name in enumerate(SUMMANDS)]
            found += part_requests(self.hidden_blocks, self.members, self.shape.chunk)
        return found

    @property
    def hidden_blocks(self) -> int:
        """Rows of a token of the residual stream."""
        return self.layout_x.blocks

    @cached_property
    def layout_x(self) -> Layout:
        """How the residual stream lies in rows."""
        sharded = self.shape.head or self.shape.layers[0]
        return self.assigned(sharded, 0, 1).layout(sharded.section.x)

    @cached_property
    def carried(self) -> tuple[Copy, ...]:
        """Copies of the residual stream that norms at the end of all sections leave to the next."""
        sections = [
            sharded.section for sharded in (self.shape.opening, *self.shape.layers) if sharded
        ]
        if not all(isinstance(section.ops[-1], Norm) for section in sections):
            return ()
        one = self.shape.ranks[0], self.spec, self.shape.chunk, self.shape.weights
        kinds = [Assigned(s, *one).kinds(s.x) for s in dict.fromkeys(sections)]
        return tuple(dict.fromkeys(copy for copies in kinds for copy in copies))

    @property
    def entry(self) -> str:
        """The buffer that x comes to."""
        first = self.shape.opening or (*self.shape.layers, self.shape.head)[0]
        assert first is not None
        return self.assigned(first, 0, 1).residual[first.section.x.name]

    def in_order(self, x: Vectors) -> Vectors:
        """Rows [blocks, tokens, lanes] of x as the buffer `entry` has them: part by part."""
        each = self.shape.part_rows or x.shape[1]
        starts = range(0, x.shape[1], each)
        return np.concatenate([x[:, s : s + each].reshape(-1, x.shape[2]) for s in starts])

    def most_rows(self, sharded: Sharded) -> int:
        """Tokens at most in a launch of a section: a head is for one of each slot, if it may be."""
        whole = sharded != self.shape.head or sharded.section.takes_sequence
        return self.shape.chunk if whole else self.shape.rows

    def has_head(self, rows: int, slots: int) -> bool:
        """Whether launches of so many rows of so many slots take the head in."""
        head = self.shape.head
        return head is not None and (rows == slots or head.section.takes_sequence)

    @property
    def column_cycles(self) -> int:
        """Cycles in which weights of a first layer can enter the two arrays at best."""
        return column_cycles(self.assigned(self.shape.kinds[0], 0, self.shape.chunk))

    @property
    def hidden_cycles(self) -> int:
        """Cycles in which some of them may enter while norms look for their factors."""
        return hidden_cycles(self.assigned(self.shape.kinds[0], 0, self.shape.chunk))

    @property
    def blocks(self) -> int:
        """Context blocks."""
        return self.shape.context // CONTEXT_BLOCK

    def prefix(self, kind: int) -> str:
        """What stands before the names of what a kind of layers has for itself."""
        kinds = (self.shape.whole or self.shape).kinds
        return "layer." if len(kinds) == 1 else f"layer{kinds.index(self.shape.kinds[kind])}."

    @cached_property
    def maps(self) -> tuple[tuple[int, ...], ...]:
        """Lane maps of its programs."""
        return lane_maps(self.shape.kinds, self.shape.weights)

    def assigned(self, sharded: Sharded, member: int, most: int) -> Assigned:
        """How a member's values of a section lie in SRAM."""
        key = (sharded, member, most)
        if key not in self._assigned:
            rank, weights = self.shape.ranks[member], self.shape.weights
            carried = () if sharded == self.shape.head else self.carried
            each = self.shape.part_rows
            size = (self.spec, min(most, each or most), weights, carried, each > 0)
            self._assigned[key] = Assigned(sharded.section, rank, *size)
        return self._assigned[key]

    def _work(
        self, plan: Schedule, member: int, rows: int, blocks: int, prefix: str, most: int,
        slots: int = 1,
    ) -> Work:  # fmt: skip
        shape = self.shape
        half = next((one for one in HALVES if prefix.endswith(one)), "")
        prefix = prefix.removesuffix(half)
        limits = (most, self.blocks, shape.weights, prefix, self.maps, slots, shape.rows)
        work = Work(plan, self.memory, member, rows, blocks, *limits, shape.part_rows)
        return replace(work, half=half)

    def view(self, name: str, vectors: int) -> Buffer:
        """A buffer cut to the rows a program with fewer tokens uses."""
        return Work.cut(self.memory[name], vectors)

    # --- a launch ---------------------------------------------------------------------------
    def schedule(
        self, rows: int, blocks: int, routes: Routes | None, pace: Pace | None = None,
        slots: range = FIRST, only: int | None = None,
    ) -> Schedule:  # fmt: skip
        """The group's schedule, or what `only` one member does; x is read from and left in `x0`.

        Rows are those of one sequence slot, or of one each. With a `pace` all members stall
        together between steps, where nothing is under way.
        """
        plan = Schedule(self.spec)
        found = Sequence(plan, pace)
        limit = pace.limit_cycles if pace else None
        for step in self.steps(rows, blocks, routes, limit, slots):
            cycle = found.start(step.cycles, step.early_cycles, step.tail_cycles)
            for part, everyone in step.parts:
                plan.repeat(part, cycle, step.moved, everyone, only)
        return plan

    def steps(
        self,
        rows: int,
        blocks: int,
        routes: Routes | None,
        most_cycles: int | None = None,
        slots: range = FIRST,
    ) -> Iterator[Step]:
        """What a launch does, in order; `routes`, if any, lead from each member to each other.

        The caches are those of sequence `slots`. A layer on a chip alone is one step, or cut at its
        residual connections if it takes more than `most_cycles`.
        """
        kinds, counts = self.shape.kinds, [0] * len(self.shape.kinds)
        numbers = [kinds.index(sharded) for sharded in self.shape.layers]
        opening = self.shape.opening
        if opening is not None:
            yield self._compute(opening, "opening", opening.section.ops, "opening.", rows, blocks,
                                self.shape.chunk, _unmoved)  # fmt: skip
        elif self.carried or any(
            carries_peaks(self.assigned(one, 0, self.shape.chunk)) for one in kinds
        ):
            yield self._enter(rows, blocks)
        for number, kind in enumerate(numbers):
            layer, size = counts[kind], (rows, blocks, len(slots))
            moved = partial(self.memory.moved, layer=layer, slot=slots.start)
            prefix = self.memory.prefix_of_layer(self.prefix(kind), layer)
            counts[kind] += 1
            for step in self._layer((kind, prefix), size, routes, most_cycles, moved):
                yield replace(step, layer=number)
        yield from self.behind(rows, len(slots))

    def behind(self, rows: int, slots: int = 1) -> Iterator[Step]:
        """The step of the head, in launches that take it in."""
        head = self.shape.head
        if head is not None and self.has_head(rows, slots):
            yield self._compute(head, "head", head.section.ops, "head.", rows, 1,
                                self.most_rows(head), _unmoved)  # fmt: skip

    def _enter(self, rows: int, blocks: int) -> Step:
        """Copies that a stage before has not handed on."""
        key = ("enter", rows)
        if key not in self._parts:
            plan, first = Schedule(self.spec), self.shape.layers[0]
            assigned = self.assigned(first, 0, self.shape.chunk)
            enter(self._work(plan, 0, rows, blocks, self.prefix(0), self.shape.chunk), assigned)
            self._parts[key] = plan
        members = tuple({0: member} for member in range(self.members))
        return Step("enter", ((self._parts[key], members),), _unmoved)

    def _layer(
        self, kind: tuple[int, str], launch: tuple[int, int, int], routes: Routes | None,
        most_cycles: int | None, moved: Moved,
    ) -> Iterator[Step]:  # fmt: skip
        """A layer of a kind, and its prefix, in a launch of (rows, blocks, slots)."""
        (number, prefix), (rows, blocks, slots) = kind, launch
        sharded, size = self.shape.kinds[number], (prefix, rows, blocks, self.shape.chunk)
        if self.members == 1:
            some = sharded.section.ops, *size, moved, slots
            try:
                yield self._compute(sharded, "layer", *some, most_cycles)
                return
            except TooLong:
                pass
        for ops, last in segments(sharded.section):
            reduces = isinstance(last, AllReduce)
            mine, what = ops if reduces else (*ops, last), what_of(ops)
            update = None
            if isinstance(last, AllReduce) and routes is not None:
                assigned = self.assigned(sharded, 0, self.shape.chunk)
                update = Update(self.memory, assigned, last, self.members, rows, routes)
            try:
                step = self._compute(sharded, what, mine, *size, moved, slots, most_cycles)
            except TooLong:
                alone = partial(self._alone, sharded, what, (*size, moved, slots))
                yield from op_by_op(alone, mine, rows, most_cycles or 0)
                yield from update.steps(most_cycles) if update else ()
            else:
                known = self._parts, self._too_long
                yield from update.behind(step, most_cycles, *known) if update else (step,)

    def _alone(
        self, sharded: Sharded, what: str, size: tuple[str, int, int, int, Moved, int],
        ops: tuple[Op, ...], some: range | None,
    ) -> Step:  # fmt: skip
        return self._compute(sharded, what, ops, *size, some=some)

    def alone(self, rows: int, blocks: int, moved: Moved) -> tuple[Step, ...]:
        """What members do of a layer up to each point where they exchange what they have."""
        sharded, prefix = self.shape.kinds[0], self.memory.prefix_of_layer(self.prefix(0), 0)
        size = (prefix, rows, blocks, self.shape.chunk)
        return tuple(
            self._compute(sharded, what_of(ops), ops, *size, moved)
            for ops, _ in segments(sharded.section)
        )

    def _compute(
        self, sharded: Sharded, what: str, ops: tuple[Op, ...], prefix: str, rows: int, blocks: int,
        most: int, moved: Moved, slots: int = 1, most_cycles: int | None = None,
        some: range | None = None,
    ) -> Step:  # fmt: skip
        """What members do alone, `some` tokens or all: placed once for all alike; or TooLong."""
        classes: dict[object, list[int]] = {}
        differ = any(by_heads(value) for op in ops for value in (op.out, *op.inputs))
        seen = blocks if looks_back(ops) else 0
        for member, rank in enumerate(self.shape.ranks):
            classes.setdefault(rank.heads if differ else None, []).append(member)
        parts = []
        for mine in classes.values():
            key = (what, prefix, mine[0], rows, seen, ops[0].out.name, len(ops), slots, some)

            def fill(plan: Schedule, first: int = mine[0]) -> None:
                work = self._work(plan, first, rows, blocks, prefix, most, slots)
                work, assigned = replace(work, some=some), self.assigned(sharded, first, most)
                for op, how in in_turn(ops):
                    place(work, assigned, op, how)

            part = self._part(key, fill, most_cycles)
            parts.append((part, tuple({mine[0]: member} for member in mine)))
        return Step(what, tuple(parts), moved)

    def _part(
        self, key: tuple[object, ...], fill: Callable[[Schedule], None], most_cycles: int | None
    ) -> Schedule:
        """What is known by a key, filled if nothing is; raises TooLong."""
        found = self._parts.get(key)
        if most_cycles is not None:
            known = self._too_long.get(key, 0) if found is None else found.quiet_cycle - 1
            if known >= most_cycles:
                raise TooLong
        if found is None:
            found = Schedule(self.spec, most_cycles)
            try:
                fill(found)
            except TooLong:
                self._too_long[key] = most_cycles or 0
                raise
            self._parts[key] = found
        return found


@lru_cache(maxsize=64)
def _map_of(spec: ChipSpec, shape: StageShape) -> MemoryMap:
    return Stage(spec, shape).lay_out()


@lru_cache(maxsize=64)
def usual_places(spec: ChipSpec, whole: StageShape) -> dict[str, tuple[int, int]]:
    """First slice and bank of every buffer of a stage that has all there is, with room to spare."""
    wide = roomy(spec)
    buffers = Stage(wide, whole).memory.buffers
    return {
        name: (buffer.region.index, buffer.region.address // wide.bank_words)
        for name, buffer in buffers.items()
    }


def _unmoved(_index: int, address: int) -> int:
    return address
