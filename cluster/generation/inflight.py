"""Beats of several sequences on a machine: their programs, the host's inputs, their logits."""

from cluster.compiler.launch import StageProgram, kind_of
from cluster.compiler.lower import Lowered
from cluster.compiler.pipeline import joined
from cluster.generation.flight import Work, Works
from cluster.generation.session import embedded, host_tables, logits_of
from cluster.lowering.images import Array
from cluster.machines.machine import Digest, Machine


class Crew:
    """Runs the works of a beat, each by the stage that it has come to.

    With one slot, a beat is a launch through all stages. `names` are the launches in order,
    `parts` whose programs the chips ran in each.
    """

    def __init__(self, lowered: Lowered, machine: Machine) -> None:
        self.lowered, self.machine = lowered, machine
        self.digest = Digest(lowered)
        self.names: list[str] = []
        self.parts: dict[str, dict[int, str]] = {}
        self._tables: dict[Work, dict[str, Array]] = {}

    def __call__(self, kind: str, works: Works) -> tuple[int, Array]:
        """Executed cycles, and the logits of what has come to the end."""
        name = self._name(kind, works)
        result = self.machine.launch(name, self._inputs(works))
        self.digest.add(result)
        self.names.append(name)
        return result.end_cycle, logits_of(self.lowered, result.outputs)

    def _name(self, kind: str, works: Works) -> str:
        lowered = self.lowered
        if lowered.plan.slots == 1:
            (work,) = works
            assert work is not None
            name = str(kind_of(lowered.plan, kind, work.context))
            self.parts[name] = dict.fromkeys(lowered.launches[name].programs, name)
            return name
        cells = [
            StageProgram(kind_of(lowered.plan, kind, w.context), w.slot)
            if w
            else StageProgram(kind_of(lowered.plan, kind, 0))
            for w in works
        ]
        name = " | ".join(map(str, cells))
        if name not in self.parts:
            parts = self.parts[name] = joined(lowered.pipeline.groups, cells, lowered.launches)
            self.machine.join(name, parts)
        return name

    def _inputs(self, works: Works) -> dict[int, dict[str, Array]]:
        """Tables for the chips of every stage at work, x for those of the first."""
        known, self._tables = self._tables, {}
        stages = self.lowered.placement
        if len(works) == 1:
            stages = (tuple(chip for group in stages for chip in group),)
        inputs: dict[int, dict[str, Array]] = {}
        for work, chips in zip(works, stages, strict=True):
            if work:
                tables = known.get(work) or self._new_tables(work)
                self._tables[work] = tables
                inputs |= {chip: dict(tables) for chip in chips}
        if works[0]:
            x = embedded(self.lowered, works[0].ids, self._tokens(works[0]))
            for chip in self.lowered.placement[0]:
                inputs[chip]["x0"] = x
        return inputs

    def _new_tables(self, work: Work) -> dict[str, Array]:
        return host_tables(self.lowered, self._tokens(work), work.position, work.context)

    def _tokens(self, work: Work) -> int:
        return 1 if work.kind == "decode" else self.lowered.plan.chunk
