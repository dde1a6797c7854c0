"""Fourth pass: an order of execution in which every access to SRAM sees what its cycle says.

Instructions run as whole arrays, so two that touch the same words must agree, word by word, on
who comes first; then one edge between them is enough.
"""

import heapq
from collections.abc import Iterable

import numpy as np

from chip.errors import OrderError
from chip.linker.timeline import Issue

Edges = dict[int, set[int]]  # issue id -> ids that must run before it


def memory_edges(issues: list[Issue], used: set[int]) -> Edges:
    """Order of the SRAM accesses in `used` (issue ids) that share words, one of them a write."""
    by_slice: dict[int, list[Issue]] = {}
    written = {issue.unit for issue in issues if issue.op.writes_memory}
    for issue in issues:
        if issue.op.in_memory and issue.id in used and issue.unit in written:
            by_slice.setdefault(issue.unit, []).append(issue)
    edges: Edges = {}
    for accesses in by_slice.values():
        _slice_edges(accesses, edges)
    return edges


def _slice_edges(accesses: list[Issue], edges: Edges) -> None:
    live: list[tuple[int, int, Issue, int | None]] = []  # and the cycle its words are all replaced
    for issue in accesses:  # by first cycle
        low, high = issue.words
        writes = issue.op.writes_memory
        kept = []
        for entry in live:
            start, stop, other, gone = entry
            if gone is not None and gone < issue.cycle:
                continue
            if low <= stop and start <= high and (writes or other.op.writes_memory):
                _order(other, issue, edges)
                if gone is None and writes and _covers(issue, low, high, start, stop, other):
                    entry = (start, stop, other, issue.last_cycle)
            kept.append(entry)
        kept.append((low, high, issue, None))
        live = kept


def _covers(issue: Issue, low: int, high: int, start: int, stop: int, other: Issue) -> bool:
    """Whether a write replaces every word of an earlier access, after it is over."""
    dense = issue.op.stepped is not None and high - low + 1 == issue.instruction.count
    return dense and low <= start and stop <= high and other.last_cycle < issue.cycle


def _order(first: Issue, second: Issue, edges: Edges) -> None:
    if first.last_cycle < second.cycle:
        edges.setdefault(second.id, set()).add(first.id)
        return
    before, after = _shared_word_order(first, second)
    if before and after:
        story = (first,)
        raise second.hazard(OrderError, f"with {first.queue}: {first.instruction}", None, story)
    if before:
        edges.setdefault(second.id, set()).add(first.id)
    if after:
        edges.setdefault(first.id, set()).add(second.id)


def _shared_word_order(first: Issue, second: Issue) -> tuple[bool, bool]:
    """(some shared word sees `first` before `second`, some sees it after)."""
    if first.op.stepped is None or second.op.stepped is None:
        return True, True  # an indirect access may touch any word in any cycle
    shared = np.intersect1d(first.steps, second.steps)
    before = after = False
    for word in shared:
        mine = first.cycles[first.steps == word]
        theirs = second.cycles[second.steps == word]
        before |= bool(mine.min() < theirs.max())
        after |= bool(theirs.min() < mine.max())
    return before, after


def topological(count: int, before: dict[int, set[int]], start: list[int]) -> list[int]:
    """Order nodes 0..count-1 so that `before` holds, the earliest `start` cycle first.

    Raises ValueError with the nodes on a cycle if there is none.
    """
    waiting = {node: len(before.get(node, ())) for node in range(count)}
    followers: dict[int, list[int]] = {}
    for node, needs in before.items():
        for need in needs:
            followers.setdefault(need, []).append(node)
    ready = [(start[node], node) for node in range(count) if not waiting[node]]
    heapq.heapify(ready)
    order = []
    while ready:
        _, node = heapq.heappop(ready)
        order.append(node)
        for follower in followers.get(node, ()):
            waiting[follower] -= 1
            if not waiting[follower]:
                heapq.heappush(ready, (start[follower], follower))
    if len(order) != count:
        raise ValueError(sorted(node for node, left in waiting.items() if left))
    return order


def levels(
    order: Iterable[int], before: dict[int, set[int]], base: dict[int, int], floor: int = 0
) -> list[int]:
    """Highest of `floor` and the `base` levels of each node and everything it depends on."""
    nodes = list(order)
    level = [floor] * len(nodes)
    if not base:
        return level
    for node in nodes:
        level[node] = max((level[need] for need in before.get(node, ())), default=floor)
        level[node] = max(level[node], base.get(node, floor))
    return level
