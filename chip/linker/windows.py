"""Equal stretches of a program, such as the layers of a model, are linked once.

`chip.linker.cuts` says where one stretch ends and the next begins. Stretches that issue the same
instructions at the same relative cycles, and differ only in SRAM addresses, share a template:

    layer 0    read 100   multiply   write 7         the template, for a shift of 0 words
    layer 1    read 340   multiply   write 7         shifts 240, 0, 0 of the same template
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from chip.errors import OrderError
from chip.linker import build, coalesce, order
from chip.linker.control import check_lanes, check_tiles
from chip.linker.cuts import cuts
from chip.linker.fragment import Fragment, Step
from chip.linker.graph import Graph, made_by
from chip.linker.memory import Constants
from chip.linker.streams import resolve
from chip.linker.timeline import Issue, Timeline
from chip.linker.weights import check_accumulators, resolve_tiles
from chip.own_spec import chip_of
from chip.program import Ints, Program
from chip.spec import ChipSpec

ON_DEMAND = ("read", "loads", "installs", "control")  # roles without a node of their own


@dataclass(frozen=True, eq=False)
class Template:
    """The nodes of a stretch in an order of execution, numbered like its issues from 0.

    `unit`, `low` and `high` [issues] are the words that each can touch, `ends` [nodes] the relative
    cycles by which they are complete.
    """

    issues: tuple[Issue, ...]
    graph: Graph
    before: dict[int, set[int]]
    sequence: tuple[int, ...]
    ends: tuple[int, ...]
    fragments: dict[tuple[tuple[int, ...], ...], Fragment] = field(default_factory=dict)

    def fragment(self, groups: tuple[tuple[int, ...], ...]) -> Fragment:
        """Its steps by segment, one and the same for equal groups."""
        if groups not in self.fragments:
            self.fragments[groups] = Fragment(self.steps, groups)
        return self.fragments[groups]

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """What its nodes do, for those who run them."""
        return tuple(map(self._step, range(len(self.graph.nodes))))

    def _step(self, number: int) -> Step:
        node = self.graph.nodes[number]
        issue, before = self.issues[node.issues[0]], tuple(sorted(self.before[number]))
        driven = "" if issue.op.driven is None else made_by(issue)
        return Step(node.op, tuple(sorted(node.needs)), before, issue.instruction.count, driven)

    @cached_property
    def end(self) -> int:
        """Relative cycle by which all of it is complete."""
        return max(self.ends, default=0)

    def of_role(self, role: str) -> tuple[Issue, ...]:
        """Its issues of one role."""
        return self.roles.get(role, ())

    @cached_property
    def roles(self) -> dict[str, tuple[Issue, ...]]:
        """Issues by their role."""
        names = {issue.op.role for issue in self.issues}
        return {name: tuple(i for i in self.issues if i.op.role == name) for name in names}

    @cached_property
    def nodes_of(self) -> dict[int, list[int]]:
        """The nodes that each issue is part of, if any."""
        found: dict[int, list[int]] = {}
        for number, node in enumerate(self.graph.nodes):
            for issue in node.issues:
                found.setdefault(issue, []).append(number)
        return found

    @cached_property
    def addresses(self) -> Ints:
        """First word that each issue accesses; 0 of others."""
        args = (i.instruction.args[0] if i.op.in_memory else 0 for i in self.issues)
        return np.fromiter(args, np.int64, len(self.issues))

    @cached_property
    def _alike(self) -> Ints:
        """Pairs of issues [2, n] whose addresses must move alike."""
        pairs = [(ids[0], other) for ids in self.graph.together for other in ids[1:]]
        return np.array(pairs, np.int64).reshape(-1, 2).T

    @cached_property
    def _constant_reads(self) -> Ints:
        """Of what was constant, [4, n]: issue, slice, lowest and highest word."""
        return np.array(self.graph.constant_reads, np.int64).reshape(-1, 4).T

    @cached_property
    def _apart(self) -> tuple[Ints, Ints, Ints]:
        """Issues [2, n] that access one slice, the first of which writes; all words [2, issues]."""
        by_slice: dict[int, list[int]] = {}
        for number, issue in enumerate(self.issues):
            if issue.op.in_memory:
                by_slice.setdefault(issue.unit, []).append(number)
        pairs = [np.zeros((2, 0), np.int64)]
        for numbers in by_slice.values():
            writes = [n for n in numbers if self.issues[n].op.writes_memory]
            pairs.append(np.array(np.meshgrid(writes, numbers), np.int64).reshape(2, -1))
        words = [issue.words if issue.op.in_memory else (0, 0) for issue in self.issues]
        low, high = np.array(words, np.int64).reshape(-1, 2).T
        return np.concatenate(pairs, axis=1), low, high

    def shift(self, addresses: Ints, constants: Constants) -> Ints | None:
        """Words by which other addresses lie from its own; None if that changes anything else.

        What is constant must still be, and of two accesses that move apart, one of which writes,
        the words must have nothing in common before or after.
        """
        shift = addresses - self.addresses
        first, other = self._alike
        if (shift[first] != shift[other]).any():
            return None
        issue, index, low, high = self._constant_reads
        if not constants.hold(index, low + shift[issue], high + shift[issue]).all():
            return None
        (first, other), low, high = self._apart
        apart = shift[first] != shift[other]
        first, other = first[apart], other[apart]
        for lowest, highest in ((low, high), (low + shift, high + shift)):
            meet = (lowest[first] <= highest[other]) & (lowest[other] <= highest[first])
            if meet.any():
                return None
        return shift


@dataclass
class Known:
    """Templates of stretches linked before, by what these have in common; what that is, numbered.

    A number serves for what is long to compare; it is never given twice.
    """

    templates: dict[tuple[int, bytes], list[Template]] = field(default_factory=dict)
    _numbers: dict[object, int] = field(default_factory=dict)

    def number(self, what: object) -> int:
        """The number of something."""
        return self._numbers.setdefault(what, len(self._numbers))

    def copy(self) -> "Known":
        """One that knows the same, and keeps to itself what it learns."""
        templates = {key: [*found] for key, found in self.templates.items()}
        return Known(templates, dict(self._numbers))


@dataclass(frozen=True, eq=False)
class FragmentUse:
    """One stretch of a program: its template, first issue and cycle, address shifts [issues]."""

    template: Template
    first: int
    cycle: int
    shift: Ints


def windows(issues: Timeline, cut: bool, known: Known) -> list[FragmentUse]:
    """Link the stretches of a program, equal ones once; one stretch unless `cut`.

    `known` keeps the templates, so that other programs can share them.
    """
    program, spec = issues.program, issues.spec
    bounds = cuts(issues, spec) if cut and len(issues) else [0]
    constants, alike = Constants.of(program, spec), _alike(issues, known)
    about, found = known.number((program.spec, program.maps)), []
    for start, stop in zip(bounds, [*bounds[1:], len(issues)], strict=True):
        cycle = int(issues.cycle[start]) if cut and stop > start else 0
        mine = alike[start:stop].copy()
        mine[:, 0] -= cycle
        key, addresses = (about, mine.tobytes()), issues.address[start:stop]
        for template in known.templates.get(key, ()):
            shift = template.shift(addresses, constants)
            if shift is not None:
                break
        else:
            template = _template(program, constants, issues.stretch(start, stop, cycle))
            shift = np.zeros(stop - start, np.int64)
            known.templates.setdefault(key, []).append(template)
        found.append(FragmentUse(template, start, cycle, shift))
    return found


def _alike(issues: Timeline, known: Known) -> Ints:
    """All but the addresses of each issue, [issues, 5]; the cycle is the first."""
    kinds = np.array([known.number(name) for name in issues.kinds.names], np.int64)
    queues = np.array([known.number(name) for name in issues.queues], np.int64)
    images = np.zeros(len(issues), np.int64)
    for number, image in issues.images.items():
        images[number] = 1 + known.number(image)
    columns = [issues.cycle, queues[issues.queue], kinds[issues.kind], issues.lanes, images]
    return np.ascontiguousarray(np.stack(columns, axis=1))


def _template(program: Program, constants: Constants, issues: list[Issue]) -> Template:
    """Resolve one stretch; raises the hazards of streams, weights and order."""
    spec = chip_of(program.spec)
    feeds = resolve(issues, spec)
    check_lanes(issues, feeds, spec)
    tiles = resolve_tiles(issues, spec)
    check_tiles(issues, tiles, spec)
    check_accumulators(issues)
    graph = Graph(program, constants, issues, feeds, tiles, build.node)
    coalesce.gathered_columns(graph)
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
