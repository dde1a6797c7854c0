"""What a stage of a decoder does in a launch, on a tensor-parallel group, step by step.

`steps` lists what happens to `tokens` tokens at the end of `blocks` x 320 tokens of context: each
step is placed once, for one layer and for members that do the same, and `schedule` repeats it where
it belongs. The map is in `stage_map`, the chains of a layer are in `layer`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from chip.kernels import layer as chains
from chip.kernels.allreduce import AllReduce, Routes, at_a_time, swapped
from chip.kernels.attention import Heads
from chip.kernels.stage_map import StageMap
from chip.kernels.step import Moved, Step
from chip.schedule import Pace, Schedule, Sequence


@dataclass
class Stage(StageMap):
    """A stage; `members` chips of a group share its map and its schedules."""

    _parts: dict[tuple[object, ...], Schedule] = field(default_factory=dict, repr=False)

    def schedule(
        self, tokens: int, blocks: int, routes: Routes, pace: Pace | None = None, slot: int = 0
    ) -> Schedule:
        """The group's schedule; x is read from and left in the buffer `x0`.

        The caches are those of sequence slot `slot`. With a `pace` all members stall together
        between steps, where nothing is under way.
        """
        plan = Schedule(self.spec)
        order, limit = Sequence(plan, pace), pace.limit_cycles if pace else None
        for step in self.steps(tokens, blocks, routes, limit, slot):
            cycle = order.start(step.cycles)
            for part, everyone in step.parts:
                for members in everyone:
                    plan.repeat(part, cycle, step.moved, members)
        return plan

    def steps(
        self,
        tokens: int,
        blocks: int,
        routes: Routes,
        most_cycles: int | None = None,
        slot: int = 0,
    ) -> Iterator[Step]:
        """What a launch does, in order; `routes` lead from each member to each other.

        The caches are those of sequence slot `slot`. A layer on a chip alone is one step, or four
        if it takes more than `most_cycles`.
        """
        for layer in range(self.shape.layers):
            moved = partial(self.moved_to, layer=layer, slot=slot)
            if self.members == 1:
                whole = self._once(("layer", tokens, blocks), chains.whole_layer, tokens, blocks)
                if most_cycles is None or whole.quiet_cycle <= most_cycles:
                    yield Step("layer", ((whole, (None,)),), moved)
                    continue
            attend, feed_forward = self.alone(tokens, blocks, moved)
            yield attend
            yield from self._update(tokens, routes, most_cycles, False)
            yield feed_forward
            yield from self._update(tokens, routes, most_cycles, True)
        if self.shape.vocab is not None and tokens == 1:
            yield self._compute("head", lambda _index, address: address, chains.head)

    def alone(self, tokens: int, blocks: int, moved: Moved) -> tuple[Step, Step]:
        """Attention and FFN of a layer, up to where members exchange what they have."""
        attend = self._compute("attention", moved, chains.attend, 0, tokens, blocks)
        return attend, self._compute("ffn", moved, chains.feed_forward, 0, "x1", tokens)

    def _once(
        self, key: tuple[object, ...], place: Callable[..., None], *arguments: object
    ) -> Schedule:
        """The schedule that `place(self, plan, *arguments)` fills in; made once for each key."""
        if key not in self._parts:
            plan = Schedule(self.spec)
            place(self, plan, *arguments)
            self._parts[key] = plan
        return self._parts[key]

    def _compute(
        self, what: str, moved: Moved, place: Callable[..., None], *arguments: object
    ) -> Step:
        """What members do alone: placed once for all that do the same.

        Only in attention do members differ, by how their heads are assigned.
        """
        classes: dict[Heads | None, list[int]] = {}
        for member, shape in enumerate(self.shapes):
            classes.setdefault(shape.heads if what == "attention" else None, []).append(member)
        parts = []
        for mine in classes.values():
            key = (what, mine[0], *(a for a in arguments if isinstance(a, int)))
            part = self._once(key, place, mine[0], *arguments)
            parts.append((part, tuple({mine[0]: member} for member in mine)))
        return Step(what, tuple(parts), moved)

    def _update(
        self, tokens: int, routes: Routes, most_cycles: int | None, swap: bool
    ) -> Iterator[Step]:
        """x0 and the sum of all members' y into x1; x1 into x0 if they swap their places.

        If it takes more than `most_cycles`, it goes in steps of some of the tokens each.
        """

        def moved(index: int, address: int, first: int = 0) -> int:
            return first + (swapped(self.memory, index, address) if swap else address)

        if self.members == 1:
            alone = self._once(("residual", tokens), chains.residual, "x0", "x1", tokens)
            yield Step("residual", ((alone, (None,)),), moved)
            return
        blocks = self.shape.hidden.count
        most = tokens
        for some in at_a_time(blocks, self.members, tokens, routes, most_cycles):
            if some > most:
                continue
            part = self._all_reduce(tokens, some, routes)
            if not most_cycles or part.quiet_cycle <= most_cycles:
                break
            most = max(1, some * most_cycles // part.quiet_cycle)  # fewer take longer each
        for first in range(0, tokens, some):
            yield Step("all-reduce", ((part, (None,)),), partial(moved, first=first))

    def _all_reduce(self, tokens: int, some: int, routes: Routes) -> Schedule:
        key = ("all-reduce", tokens, some, *routes.items())
        if key not in self._parts:
            size = (self.shape.hidden.count, self.members, tokens, routes)
            update = AllReduce(self.memory, *size, "x0", "x1", some)
            self._parts[key] = update.shared_schedule()
        return self._parts[key]
