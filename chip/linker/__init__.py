"""From program bytes to a short list of nodes: all checking happens here, once, at load.

timeline -> memory -> clocks -> cuts -> windows: streams -> weights -> graph -> order, each
"""

from dataclasses import dataclass, replace

import numpy as np

from chip.errors import HazardError
from chip.linker import cuts, order
from chip.linker.clocks import Deskews, Startup, check_deskews, startup
from chip.linker.fragment import Fragment
from chip.linker.graph import State
from chip.linker.hazard_context import with_context
from chip.linker.memory import check_fetch, check_memory
from chip.linker.node_ops import NodeOp
from chip.linker.timeline import Issue, Timeline, timeline
from chip.linker.windows import FragmentUse, Known, windows
from chip.own_spec import chip_of
from chip.program import Ints, Program
from chip.spec import ChipSpec

Span = tuple[int, int, int]  # slice, first word, last word


@dataclass(frozen=True)
class Transfer:
    """One C2C instruction: its issue cycles on the launch's time axis, and its segment."""

    issue: int
    port: int
    cycles: tuple[int, ...]
    segment: int


@dataclass(frozen=True, eq=False)
class Block:
    """Nodes of one fragment in one segment: its first issue, address shifts [issues].

    They are those of `fragment.groups[part]`.
    """

    first: int
    shift: Ints
    fragment: Fragment
    part: int

    @property
    def nodes(self) -> tuple[tuple[int, NodeOp], ...]:
        """The number of each node, and what it does."""
        return self.fragment.ops[self.part]

    @property
    def values(self) -> int:
        """How many values the nodes of the fragment have."""
        return len(self.fragment.steps)


@dataclass(frozen=True, eq=False)
class Linked:
    """An executable program. `segments` are runs of blocks; nothing in it belongs to one chip.

    `end_cycle` is the launch cycle at which the last result has left the last tile. `written` are
    (slice, first word, last word) that the program writes, `scattered` those of regions in which
    the data says where. `deskews` are its Runtime deskews, `reach_cycles` how long it issues before
    the first of them.
    """

    program: Program
    spec: ChipSpec
    segments: tuple[tuple[Block, ...], ...]
    sends: tuple[Transfer, ...]
    receives: tuple[Transfer, ...]
    end_cycle: int
    segment_end_cycles: tuple[int, ...]
    written: tuple[Span, ...]
    scattered: tuple[Span, ...]
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
        return _link(issues, Known() if known is None else known)
    except HazardError as error:
        raise with_context(error, issues) from None


def _link(issues: Timeline, known: Known) -> Linked:
    program, spec = issues.program, issues.spec
    check_fetch(issues, spec)
    check_memory(issues, program, spec)
    clocks = check_deskews(issues)
    try:
        parts = windows(issues, cut=True, known=known)
    except HazardError:  # weights or sums may live on across a cut; as a whole it says what is so
        parts = windows(issues, cut=False, known=known)
    return _finish(issues, parts, clocks)


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


def _finish(issues: Timeline, parts: list[FragmentUse], clocks: tuple[Deskews, int]) -> Linked:
    program, spec = issues.program, issues.spec
    segments = _segments(issues, parts)
    count = 1 + max((max(levels, default=0) for levels in segments), default=0)
    ends = [program.start_cycle] * count  # an empty segment is over when the launch begins
    blocks: list[list[Block]] = [[] for _ in range(count)]
    for part, levels in zip(parts, segments, strict=True):
        template, start = part.template, program.start_cycle + part.cycle
        chosen: dict[int, list[int]] = {level: [] for level in sorted(set(levels))}
        if len(chosen) == 1:
            (only,) = chosen
            chosen[only], ends[only] = [*template.sequence], max(ends[only], start + template.end)
        else:
            for node in template.sequence:
                chosen[levels[node]].append(node)
                ends[levels[node]] = max(ends[levels[node]], start + template.ends[node])
        fragment = template.fragment(tuple(map(tuple, chosen.values())))
        for number, segment in enumerate(chosen):
            blocks[segment].append(Block(part.first, part.shift, fragment, number))
    return Linked(
        program=program,
        spec=spec,
        segments=tuple(tuple(segment) for segment in blocks),
        sends=_transfers(program, parts, segments, "send"),
        receives=_transfers(program, parts, segments, "receive"),
        end_cycle=program.start_cycle + int((issues.driven + spec.superlanes).max(initial=0)),
        segment_end_cycles=tuple(ends),
        written=_merged(_spans(issues, "write")),
        scattered=tuple(_spans(issues, "scatter")),
        instructions=len(issues),
        deskews=clocks[0],
        reach_cycles=clocks[1],
        startup=startup(program, spec, clocks[1]),
    )


def _segments(issues: Timeline, parts: list[FragmentUse]) -> list[list[int]]:
    """Segment of each node of each stretch: cut by dependence on packets, never by time.

    Receives are numbered by their last cycle. Neighbouring ones share a segment unless a send that
    depends on the earlier ones leaves before the later one is over: then that may depend on it.
    A stretch depends on all stretches before it, except that of a prelude only on what it must.
    """
    receives = [issues[n] for n in np.flatnonzero(issues.have("receive")).tolist()]
    receives.sort(key=lambda issue: (issue.last_cycle, issue.unit))
    rank = {issue.id: n + 1 for n, issue in enumerate(receives)}
    found: list[list[int]] = []
    floor, sends = 0, []
    for part in parts:
        template, node_of = part.template, part.template.graph.node_of
        base = {node_of[i.id]: rank[part.first + i.id] for i in template.of_role("receive")}
        if cuts.is_after_prelude(part.first):
            for node, level in _after_prelude(issues, parts, found[0]).items():
                base[node] = max(base.get(node, 0), level)
            levels = order.levels(template.sequence, template.before, base)
        else:
            levels = order.levels(template.sequence, template.before, base, floor)
        for issue in template.of_role("send"):
            sends.append((levels[node_of[issue.id]], part.cycle + issue.cycle))
        floor = max(levels, default=floor)
        found.append(levels)
    segment_of = _grouped(receives, sends)
    return [[segment_of[n] for n in level] for level in found]


def _after_prelude(issues: Timeline, parts: list[FragmentUse], levels: list[int]) -> dict[int, int]:
    """Least levels of nodes of the second stretch: of those of the prelude that they share words
    with, one of both writing. Nothing else of a prelude lives on.
    """
    ops, first, here = issues.kinds.ops, parts[0].template, parts[1].first
    memory, writes = (
        np.array(flags, np.bool_)[issues.kind]
        for flags in ([op.in_memory for op in ops], [op.writes_memory for op in ops])
    )
    within = slice(here, here + len(parts[1].template.issues))
    unit, low, high = issues.unit[within], issues.low[within], issues.high[within]
    found: dict[int, int] = {}
    for node, level in zip(first.graph.nodes, levels, strict=True):
        for one in (one for one in node.issues if level and memory[one]):
            shared = memory[within] & (unit == issues.unit[one])
            shared &= (low <= issues.high[one]) & (issues.low[one] <= high)
            for other in np.flatnonzero(shared & (writes[within] | writes[one])).tolist():
                for later in parts[1].template.nodes_of.get(other, ()):
                    found[later] = max(found.get(later, 0), level)
    return found


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
        for issue in part.template.of_role(role):
            segment = levels[part.template.graph.node_of[issue.id]]
            cycles = tuple((issue.cycles + start).tolist())
            found.append(Transfer(part.first + issue.id, issue.unit, cycles, segment))
    return tuple(found)


def _spans(issues: Timeline, role: str) -> list[Span]:
    """(slice, first word, last word) of the issues of a role, each once, in order."""
    at = issues.have(role)
    places = np.stack([issues.unit[at], issues.low[at], issues.high[at]], axis=1)
    return [(unit, low, high) for unit, low, high in np.unique(places, axis=0).tolist()]


def _merged(places: list[Span]) -> tuple[Span, ...]:
    """The same, those of a slice that meet or overlap as one."""
    spans: dict[int, list[tuple[int, int]]] = {}
    for unit, low, high in places:
        spans.setdefault(unit, []).append((low, high))
    merged = []
    for index, ranges in spans.items():
        start, stop = ranges[0]
        for low, high in ranges[1:]:
            if low > stop + 1:
                merged.append((index, start, stop))
                start, stop = low, high
            stop = max(stop, high)
        merged.append((index, start, stop))
    return tuple(merged)


__all__ = ["Block", "Linked", "Startup", "State", "Transfer", "link", "relocate"]
