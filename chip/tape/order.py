"""The order of a tape: one that the linker allows, with independent products side by side."""

import heapq
from collections.abc import Iterable, Sequence
from enum import IntEnum


class Kind(IntEnum):
    """What a node is to a tape. Of those that can go on, the first kind does."""

    ROWS = 0  # done row by row
    RECORD = 1  # done by some other record
    STEP = 2  # not done by records
    PRODUCTS = 3


Unit = tuple[Kind, list[int]]


def units(
    nodes: Iterable[int], before: Sequence[Iterable[int]], kinds: Sequence[Kind]
) -> list[Unit]:
    """Order nodes so that `before` holds, as units of one kind.

    Those done by rows may depend on each other, others of a unit do not. Products wait until
    nothing else can go on.
    """
    sequence = list(nodes)
    rank = {node: n for n, node in enumerate(sequence)}
    waiting: dict[int, int] = {}
    followers: dict[int, list[int]] = {}
    ready: dict[Kind, list[int]] = {kind: [] for kind in Kind}
    for node in sequence:
        needs = [need for need in before[node] if need in rank]
        waiting[node] = len(needs)
        for need in needs:
            followers.setdefault(need, []).append(node)
        if not needs:
            ready[kinds[node]].append(rank[node])
    found: list[Unit] = []
    while any(ready.values()):
        kind = next(kind for kind in Kind if ready[kind])
        ranks, unit = ready[kind], list[int]()
        if kind != Kind.ROWS:
            ready[kind] = []
        while ranks:
            unit.append(sequence[heapq.heappop(ranks)])
            for follower in followers.get(unit[-1], ()):
                waiting[follower] -= 1
                if not waiting[follower]:
                    heapq.heappush(ready[kinds[follower]], rank[follower])
        found.append((kind, unit))
    return found
