"""Equal stretches of a program, such as the layers of a model, are linked once.

A program is cut where nothing is under way: no instruction issues across the cut, no result is
still to be driven, and no diagonal driven before it is read after it. Stretches that issue the
same instructions at the same relative cycles, and differ only in SRAM addresses, share a template.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from chip.errors import OrderError
from chip.isa import lookup
from chip.linker import build, coalesce, order
from chip.linker.control import check_lanes, check_tiles
from chip.linker.graph import Graph, inside
from chip.linker.streams import drive_keys, read_keys, resolve
from chip.linker.timeline import Ints, Issue, constant_ranges
from chip.linker.weights import check_accumulators, planes_of, resolve_tiles
from chip.program import Instruction, Program
from chip.spec import ChipSpec

ON_DEMAND = ("read", "loads", "installs", "control")  # roles without a node of their own
FEWEST = 256  # issues below which cutting is not worth its bookkeeping


@dataclass(frozen=True)
class Template:
    """The nodes of a stretch in an order of execution, numbered like its issues from 0."""

    issues: tuple[Issue, ...]
    graph: Graph
    before: dict[int, set[int]]
    sequence: tuple[int, ...]
    ends: tuple[int, ...]  # per node, the relative cycle by which it is complete
    fragments: dict[tuple[tuple[int, ...], ...], "Fragment"] = field(default_factory=dict)

    def fragment(self, groups: tuple[tuple[int, ...], ...]) -> "Fragment":
        """This template with its nodes by segment, one and the same for equal groups."""
        return self.fragments.setdefault(groups, Fragment(self, groups))


@dataclass(frozen=True, eq=False)
class Fragment:
    """A template with its nodes by segment; `made` is what `chip.tape` makes of it."""

    template: Template
    groups: tuple[tuple[int, ...], ...]
    made: list[Any] = field(default_factory=list, repr=False)


Known = dict[tuple[object, ...], list[Template]]


@dataclass(frozen=True)
class FragmentUse:
    """One stretch of a program: its template, first issue and cycle, and address shifts."""

    template: Template
    first: int
    cycle: int
    shift: tuple[int, ...]


def windows(
    program: Program, spec: ChipSpec, issues: list[Issue], cut: bool, known: Known
) -> list[FragmentUse]:
    """Link the stretches of a program, equal ones once; one stretch unless `cut`.

    `known` keeps the templates, so that other programs can share them.
    """
    bounds = _cuts(issues, spec) if cut else [0]
    ranges = constant_ranges(program)
    names: dict[Instruction, tuple[object, ...]] = {}
    found = []
    for start, stop in zip(bounds, [*bounds[1:], len(issues)], strict=True):
        part = issues[start:stop]
        cycle = part[0].cycle if cut and part else 0
        alike = (
            (i.queue, i.cycle - cycle, i.lanes, i.image, *_nameless(i.instruction, names))
            for i in part
        )
        key = (program.spec, program.maps, *alike)
        for template in known.get(key, ()):
            shift = _shift(template, part, ranges)
            if shift is not None:
                break
        else:
            template = _template(program, spec, part, cycle)
            shift = (0,) * len(part)
            known.setdefault(key, []).append(template)
        found.append(FragmentUse(template, start, cycle, shift))
    return found


def _nameless(
    instruction: Instruction, names: dict[Instruction, tuple[object, ...]]
) -> tuple[object, ...]:
    """What two instructions that differ only in their SRAM address have in common."""
    if instruction not in names:
        args = instruction.args
        if lookup(instruction.op).in_memory:
            args = args[1:]
        names[instruction] = (instruction.op, args, instruction.loops, instruction.names)
    return names[instruction]


def _template(program: Program, spec: ChipSpec, part: Sequence[Issue], cycle: int) -> Template:
    """Resolve one stretch; raises the hazards of streams, weights and order."""
    issues = [replace(i, id=n, cycle=i.cycle - cycle) for n, i in enumerate(part)]
    feeds = resolve(issues, spec)
    check_lanes(issues, feeds, spec)
    tiles = resolve_tiles(issues, spec)
    check_tiles(issues, tiles, spec)
    check_accumulators(issues)
    graph = Graph(program, spec, issues, feeds, tiles, build.node)
    coalesce.typed_writes(graph)
    coalesce.append_rows(graph)
    for issue in issues:
        if issue.op.role not in ON_DEMAND:
            graph.node(issue)
    before = _dependencies(issues, graph)
    starts = [node.start for node in graph.nodes]
    try:
        sequence = order.topological(len(graph.nodes), before, starts)
    except ValueError as error:
        first = issues[graph.nodes[error.args[0][0]].issues[0]]
        raise first.hazard(OrderError, "its words and streams form a loop") from None
    ends = tuple(max(completion(issues[i], spec) for i in node.issues) for node in graph.nodes)
    return Template(tuple(issues), graph, before, tuple(sequence), ends)


def completion(issue: Issue, spec: ChipSpec) -> int:
    """Cycle by which the last tile has done its part: issue + d_func + one cycle per tile."""
    delay = spec.d_func(issue.op.timing) if issue.op.timing else 0
    return issue.last_cycle + delay + spec.superlanes


def _dependencies(issues: list[Issue], graph: Graph) -> dict[int, set[int]]:
    """Nodes that must run before each node: data, memory and accumulator order."""
    before = {number: set(node.needs) for number, node in enumerate(graph.nodes)}
    nodes_of: dict[int, list[int]] = {}
    for number, node in enumerate(graph.nodes):
        for issue_id in node.issues:
            nodes_of.setdefault(issue_id, []).append(number)
    for later, earlier in order.memory_edges(issues, set(nodes_of)).items():
        for number in nodes_of[later]:
            for need in earlier:
                before[number].update(n for n in nodes_of[need] if n != number)
    last: dict[int, int] = {}
    for issue in issues:
        if issue.op.role == "sums":
            number = graph.node_of[issue.id]
            if issue.unit in last:
                before[number].add(last[issue.unit])
            last[issue.unit] = number
    return before


# --- where to cut ---------------------------------------------------------------------------
def _cuts(issues: list[Issue], spec: ChipSpec) -> list[int]:
    """First issues of the stretches."""
    last = np.array([completion(i, spec) - spec.superlanes for i in issues], np.int64)
    first = np.array([issue.cycle for issue in issues], np.int64)
    _hold_loads(issues, last, spec)
    quiet = np.maximum.accumulate(last)[:-1] < first[1:]
    cuts = [0]
    ends = _Ends(spec)
    for number in (np.flatnonzero(quiet) + 1).tolist():
        if number - cuts[-1] < FEWEST:
            continue
        reach = int(first[number]) - spec.positions, int(first[number]) + spec.positions
        before = [issues[n] for n in np.flatnonzero(last[:number] > reach[0])]
        after = issues[number : int(np.searchsorted(first, reach[1]))]
        if not ends.cross(before, after):
            cuts.append(number)
    return cuts


def _hold_loads(issues: list[Issue], last: Ints, spec: ChipSpec) -> None:
    """A load is under way until the next install takes it; one never taken, for ever."""
    install: dict[tuple[int, int], int] = {}
    for number in range(len(issues) - 1, -1, -1):
        issue = issues[number]
        if issue.op.role == "installs":
            install |= {(issue.unit, plane): issue.last_cycle for plane in planes_of(issue, spec)}
        elif issue.op.role == "loads":
            planes = [(issue.unit, plane) for plane in planes_of(issue, spec)]
            taken = max(install.get(plane, np.iinfo(np.int64).max) for plane in planes)
            last[number] = max(last[number], taken)


class _Ends:
    """Diagonals that issues drive and read, worked out once for each."""

    def __init__(self, spec: ChipSpec) -> None:
        self.spec = spec
        self._driven: dict[int, frozenset[tuple[int, int]]] = {}
        self._read: dict[int, frozenset[tuple[int, int]]] = {}

    def cross(self, before: list[Issue], after: list[Issue]) -> bool:
        """Whether some issue of `after` can read a diagonal that one of `before` drives."""
        driven: set[tuple[int, int]] = set()
        for issue in before:
            if issue.id not in self._driven:
                self._driven[issue.id] = self._diagonals(drive_keys(issue, self.spec))
            driven |= self._driven[issue.id]
        for issue in after:
            if issue.id not in self._read:
                self._read[issue.id] = self._diagonals(read_keys(issue, self.spec))
            if not driven.isdisjoint(self._read[issue.id]):
                return True
        return False

    def _diagonals(self, ends: list[tuple[int, Ints]]) -> frozenset[tuple[int, int]]:
        width = self.spec.positions
        return frozenset((c, k) for c, keys in ends for k in (keys // width).tolist())


# --- whether a stretch is like a template ----------------------------------------------------
def _shift(
    template: Template, part: Sequence[Issue], ranges: dict[int, list[tuple[int, int]]]
) -> tuple[int, ...] | None:
    """Words by which each access lies from the template's, if that changes nothing else."""
    shift = tuple(
        mine.instruction.args[0] - theirs.instruction.args[0] if mine.op.in_memory else 0
        for mine, theirs in zip(part, template.issues, strict=True)
    )
    graph = template.graph
    if any(len({shift[i] for i in ids}) > 1 for ids in graph.together):
        return None
    for issue, index, low, high in graph.constant_reads:
        if not inside(ranges, index, low + shift[issue], high + shift[issue]):
            return None
    return shift if _same_overlaps(template.issues, shift) else None


def _same_overlaps(issues: Sequence[Issue], shift: tuple[int, ...]) -> bool:
    """Whether accesses that move apart share no words, here or in the template.

    Per slice, accesses with one shift stay as they were to each other; the boxes around those
    with different shifts must be disjoint before and after, unless nobody writes.
    """
    boxes: dict[int, dict[int, list[int]]] = {}
    written: set[int] = set()
    for issue, words_on in zip(issues, shift, strict=True):
        if issue.op.in_memory:
            low, high = issue.words
            box = boxes.setdefault(issue.unit, {}).setdefault(words_on, [low, high])
            box[0], box[1] = min(box[0], low), max(box[1], high)
            if issue.op.writes_memory:
                written.add(issue.unit)
    for unit in written:
        if len(boxes[unit]) > 1:
            for move in (0, 1):
                spans = sorted((a + move * d, b + move * d) for d, (a, b) in boxes[unit].items())
                if any(end >= start for (_, end), (start, _) in pairwise(spans)):
                    return False
    return True
