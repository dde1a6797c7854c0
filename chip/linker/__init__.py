"""From program bytes to a short list of nodes: all checking happens here, once, at load.

timeline -> clocks -> windows: (streams -> weights -> graph (nodes) -> order) each -> Linked
"""

from dataclasses import dataclass, replace

from chip.errors import HazardError
from chip.linker import order
from chip.linker.clocks import Deskews, Startup, check_deskews, startup
from chip.linker.graph import State
from chip.linker.hazard_context import with_context
from chip.linker.node_ops import NodeOp
from chip.linker.timeline import Issue, check_fetch, check_memory, timeline
from chip.linker.windows import Fragment, FragmentUse, Known, completion, windows
from chip.own_spec import chip_of
from chip.program import Program
from chip.spec import ChipSpec


@dataclass(frozen=True)
class Transfer:
    """One C2C instruction: its issue cycles on the launch's time axis, and its segment."""

    issue: int
    port: int
    cycles: tuple[int, ...]
    segment: int


@dataclass(frozen=True)
class Block:
    """Nodes of one fragment in one segment: its first issue, number of values, address shifts.

    They are those of `fragment.groups[part]`: the number of each, and what it does.
    """

    first: int
    values: int
    shift: tuple[int, ...]
    nodes: tuple[tuple[int, NodeOp], ...]
    fragment: Fragment
    part: int


@dataclass(frozen=True, eq=False)
class Linked:
    """An executable program. `segments` are runs of blocks; nothing in it belongs to one chip.

    `end_cycle` is the launch cycle at which the last result has left the last tile. `written` are
    (slice, first word, last word) that the program writes. `deskews` are its Runtime deskews,
    `reach_cycles` how long it issues before the first of them.
    """

    program: Program
    spec: ChipSpec
    segments: tuple[tuple[Block, ...], ...]
    sends: tuple[Transfer, ...]
    receives: tuple[Transfer, ...]
    end_cycle: int
    segment_end_cycles: tuple[int, ...]
    written: tuple[tuple[int, int, int], ...]
    instructions: int
    deskews: Deskews
    reach_cycles: int
    startup: Startup


def link(program: Program, known: Known | None = None) -> Linked:
    """Check a program against the chip's contract and resolve it; raises HazardError.

    `known` holds the stretches of programs linked before, and is added to.
    """
    spec = chip_of(program.spec)
    issues = timeline(program, spec)
    try:
        return _link(program, spec, issues, {} if known is None else known)
    except HazardError as error:
        raise with_context(error, issues) from None


def _link(program: Program, spec: ChipSpec, issues: list[Issue], known: Known) -> Linked:
    check_fetch(issues, spec)
    check_memory(issues, program, spec)
    clocks = check_deskews(program, issues, spec)
    try:
        parts = windows(program, spec, issues, cut=True, known=known)
    except HazardError:  # weights or sums may live on across a cut; as a whole it says what is so
        parts = windows(program, spec, issues, cut=False, known=known)
    return _finish(program, spec, issues, parts, clocks)


def relocate(linked: Linked, program: Program) -> Linked:
    """The result of linking `program`, which differs from the linked one in chip and start only.

    Raises OutOfStep or DeskewOverdue if its start does not fit.
    """
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
        startup=startup(program, linked.spec, linked.reach_cycles),
    )


def _finish(
    program: Program,
    spec: ChipSpec,
    issues: list[Issue],
    parts: list[FragmentUse],
    clocks: tuple[Deskews, int],
) -> Linked:
    segments = _segments(issues, parts)
    count = 1 + max((max(levels, default=0) for levels in segments), default=0)
    ends = [program.start_cycle] * count  # an empty segment is over when the launch begins
    blocks: list[list[Block]] = [[] for _ in range(count)]
    for part, levels in zip(parts, segments, strict=True):
        template, start = part.template, program.start_cycle + part.cycle
        chosen: dict[int, list[int]] = {level: [] for level in sorted(set(levels))}
        for node in template.sequence:
            chosen[levels[node]].append(node)
            ends[levels[node]] = max(ends[levels[node]], start + template.ends[node])
        fragment = template.fragment(tuple(map(tuple, chosen.values())))
        for number, (segment, nodes) in enumerate(chosen.items()):
            found = tuple((node, template.graph.nodes[node].op) for node in nodes)
            values = len(template.ends)
            blocks[segment].append(Block(part.first, values, part.shift, found, fragment, number))
    return Linked(
        program=program,
        spec=spec,
        segments=tuple(tuple(segment) for segment in blocks),
        sends=_transfers(program, parts, segments, "send"),
        receives=_transfers(program, parts, segments, "receive"),
        end_cycle=program.start_cycle + max((completion(i, spec) for i in issues), default=0),
        segment_end_cycles=tuple(ends),
        written=_written(issues),
        instructions=len(issues),
        deskews=clocks[0],
        reach_cycles=clocks[1],
        startup=startup(program, spec, clocks[1]),
    )


def _segments(issues: list[Issue], parts: list[FragmentUse]) -> list[list[int]]:
    """Segment of each node of each stretch: cut by dependence on packets, never by time.

    Receives are numbered by their last cycle. Neighbouring ones share a segment unless a send that
    depends on the earlier ones leaves before the later one is over: then that may depend on it.
    A stretch depends on all stretches before it.
    """
    receives = [i for i in issues if i.op.role == "receive"]
    receives.sort(key=lambda issue: (issue.last_cycle, issue.unit))
    rank = {issue.id: n + 1 for n, issue in enumerate(receives)}
    found, floor, sends = [], 0, []
    for part in parts:
        template, node_of = part.template, part.template.graph.node_of
        base = {}
        for issue in template.issues:
            if issue.op.role == "receive":
                base[node_of[issue.id]] = rank[part.first + issue.id]
        level = order.levels(template.sequence, template.before, base, floor)
        for issue in template.issues:
            if issue.op.role == "send":
                sends.append((level[node_of[issue.id]], part.cycle + issue.cycle))
        floor = max(level, default=floor)
        found.append(level)
    segment_of = _grouped(receives, sends)
    return [[segment_of[n] for n in level] for level in found]


def _grouped(receives: list[Issue], sends: list[tuple[int, int]]) -> list[int]:
    """Segment of everything that depends on receives up to number n, for each n."""
    segment_of, first = [0], 1
    for number, issue in enumerate(receives, start=1):
        cut = any(first <= sent < number and cycle < issue.last_cycle for sent, cycle in sends)
        if number == 1 or cut:
            segment_of.append(segment_of[-1] + 1)
            first = number
        else:
            segment_of.append(segment_of[-1])
    return segment_of


def _transfers(
    program: Program, parts: list[FragmentUse], segments: list[list[int]], role: str
) -> tuple[Transfer, ...]:
    found = []
    for part, levels in zip(parts, segments, strict=True):
        start = program.start_cycle + part.cycle
        for issue in part.template.issues:
            if issue.op.role == role:
                segment = levels[part.template.graph.node_of[issue.id]]
                cycles = tuple((issue.cycles + start).tolist())
                found.append(Transfer(part.first + issue.id, issue.unit, cycles, segment))
    return tuple(found)


def _written(issues: list[Issue]) -> tuple[tuple[int, int, int], ...]:
    """Merged (slice, first word, last word) of direct writes; others tell at run time."""
    spans: dict[int, list[tuple[int, int]]] = {}
    for issue in issues:
        if issue.op.role == "write":
            spans.setdefault(issue.unit, []).append(issue.words)
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


__all__ = ["Block", "Linked", "Startup", "State", "Transfer", "link", "relocate"]
