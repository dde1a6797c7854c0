"""From program bytes to a short list of NumPy steps: all checking happens here, once, at load.

timeline -> streams -> weights -> graph (nodes) -> order -> Linked
"""

from dataclasses import dataclass, replace

from chip.errors import OrderError
from chip.linker import order, steps
from chip.linker.graph import Graph, State, Step
from chip.linker.streams import resolve
from chip.linker.timeline import Issue, check_memory, timeline, words
from chip.linker.weights import check_accumulators, resolve_tiles
from chip.program import Program
from chip.spec import SPECS, ChipSpec


@dataclass(frozen=True)
class Transfer:
    """One C2C instruction: its issue cycles on the launch's time axis, and its segment."""

    issue: int
    port: int
    cycles: tuple[int, ...]
    segment: int


@dataclass(frozen=True)
class Linked:
    """An executable program. `segments` are lists of steps; nothing in it belongs to one chip.

    `end_cycle` is the launch cycle at which the last result has left the last tile. `written` are
    (slice, first word, last word) that the program writes.
    """

    program: Program
    spec: ChipSpec
    segments: tuple[tuple[Step, ...], ...]
    values: int
    sends: tuple[Transfer, ...]
    receives: tuple[Transfer, ...]
    end_cycle: int
    segment_end_cycles: tuple[int, ...]
    written: tuple[tuple[int, int, int], ...]
    instructions: int


def link(program: Program) -> Linked:
    """Check a program against the chip's contract and resolve it; raises HazardError."""
    spec = SPECS[program.spec]
    issues = timeline(program, spec)
    check_memory(issues, program, spec)
    feeds = resolve(issues, spec)
    tiles = resolve_tiles(issues, spec)
    check_accumulators(issues)
    graph = Graph(program, spec, issues, feeds, steps.builders(tiles))
    steps.write_groups(graph)
    for issue in issues:
        if issue.op.name not in ("mem.read", "mxm.lw", "mxm.iw"):
            graph.node(issue)
    return _finish(program, spec, issues, graph)


def relocate(linked: Linked, program: Program) -> Linked:
    """The result of linking `program`, which differs from the linked one in chip and start only."""
    shift = program.start_cycle - linked.program.start_cycle

    def moved(transfers: tuple[Transfer, ...]) -> tuple[Transfer, ...]:
        return tuple(replace(t, cycles=tuple(c + shift for c in t.cycles)) for t in transfers)

    return replace(
        linked,
        program=program,
        sends=moved(linked.sends),
        receives=moved(linked.receives),
        end_cycle=linked.end_cycle + shift,
        segment_end_cycles=tuple(cycle + shift for cycle in linked.segment_end_cycles),
    )


def _finish(program: Program, spec: ChipSpec, issues: list[Issue], graph: Graph) -> Linked:
    before = _dependencies(issues, graph)
    starts = [node.start for node in graph.nodes]
    try:
        sequence = order.topological(len(graph.nodes), before, starts)
    except ValueError as error:
        first = issues[graph.nodes[error.args[0][0]].issues[0]]
        raise first.hazard(OrderError, "its words and streams form a loop") from None
    segment = _segments(issues, graph, sequence, before)
    count = max(segment, default=0) + 1
    ends = [0] * count
    for number, node in enumerate(graph.nodes):
        done = max(_completion(issues[i], spec) for i in node.issues)
        ends[segment[number]] = max(ends[segment[number]], program.start_cycle + done)
    return Linked(
        program=program,
        spec=spec,
        segments=tuple(
            tuple(graph.nodes[n].step for n in sequence if segment[n] == number)
            for number in range(count)
        ),
        values=len(graph.nodes),
        sends=_transfers(issues, graph, segment, "c2c.send"),
        receives=_transfers(issues, graph, segment, "c2c.receive"),
        end_cycle=program.start_cycle + max((_completion(i, spec) for i in issues), default=0),
        segment_end_cycles=tuple(ends),
        written=_written(issues),
        instructions=len(issues),
    )


def _completion(issue: Issue, spec: ChipSpec) -> int:
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
        if issue.op.name == "mxm.acc":
            number = graph.node_of[issue.id]
            if issue.unit in last:
                before[number].add(last[issue.unit])
            last[issue.unit] = number
    return before


def _segments(
    issues: list[Issue], graph: Graph, sequence: list[int], before: dict[int, set[int]]
) -> list[int]:
    """Segment of each node: cut by dependence on packets, never by time.

    Receives are numbered by their last cycle. Neighbouring ones share a segment unless a send that
    depends on the earlier ones leaves before the later one is over: then that may depend on it.
    """
    receives = [i for i in issues if i.op.name == "c2c.receive"]
    receives.sort(key=lambda issue: (issue.last_cycle, issue.unit))
    base = {graph.node_of[issue.id]: n + 1 for n, issue in enumerate(receives)}
    level = order.levels(sequence, before, base)
    sends = [(level[graph.node_of[i.id]], i.cycle) for i in issues if i.op.name == "c2c.send"]
    segment_of = [0]
    first = 1
    for number, issue in enumerate(receives, start=1):
        cut = any(first <= sent < number and cycle < issue.last_cycle for sent, cycle in sends)
        if number == 1 or cut:
            segment_of.append(segment_of[-1] + 1)
            first = number
        else:
            segment_of.append(segment_of[-1])
    return [segment_of[n] for n in level]


def _transfers(
    issues: list[Issue], graph: Graph, segment: list[int], op: str
) -> tuple[Transfer, ...]:
    start = graph.program.start_cycle
    return tuple(
        Transfer(i.id, i.unit, tuple((i.cycles + start).tolist()), segment[graph.node_of[i.id]])
        for i in issues
        if i.op.name == op
    )


def _written(issues: list[Issue]) -> tuple[tuple[int, int, int], ...]:
    """Merged (slice, first word, last word) of every write and scatter."""
    spans: dict[int, list[tuple[int, int]]] = {}
    for issue in issues:
        if issue.family == "mem.w":
            spans.setdefault(issue.unit, []).append(words(issue))
    merged = []
    for index, ranges in sorted(spans.items()):
        ranges.sort()
        start, stop = ranges[0]
        for low, high in ranges[1:]:
            if low > stop + 1:
                merged.append((index, start, stop))
                start, stop = low, high
            stop = max(stop, high)
        merged.append((index, start, stop))
    return tuple(merged)


__all__ = ["Linked", "State", "Transfer", "link", "relocate"]
