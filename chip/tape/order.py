"""The order of a tape: one that the linker allows, with independent products side by side."""

import heapq
from collections.abc import Callable, Iterable, Sequence
from itertools import chain


def runs(
    nodes: Iterable[int], before: Sequence[Iterable[int]], is_product: Callable[[int], bool]
) -> list[list[int]]:
    """Order nodes so that `before` holds, as runs: single nodes, and products that do not depend.

    Among the possible orders, the one closest to that of `nodes` in which products wait until
    nothing else can go on.
    """
    sequence = list(nodes)
    rank = {node: n for n, node in enumerate(sequence)}
    waiting: dict[int, int] = {}
    followers: dict[int, list[int]] = {}
    for node in sequence:
        needs = [need for need in before[node] if need in rank]
        waiting[node] = len(needs)
        for need in needs:
            followers.setdefault(need, []).append(node)
    others = [rank[n] for n in sequence if not waiting[n] and not is_product(n)]
    products = [n for n in sequence if not waiting[n] and is_product(n)]
    found: list[list[int]] = []
    while others or products:
        if others:
            run = [sequence[heapq.heappop(others)]]
        else:
            run = sorted(products, key=rank.__getitem__)
        if is_product(run[0]):
            products = []
        found.append(run)
        for node in run:
            for follower in followers.get(node, ()):
                waiting[follower] -= 1
                if waiting[follower]:
                    continue
                if is_product(follower):
                    products.append(follower)
                else:
                    heapq.heappush(others, rank[follower])
    return found


def last_uses(
    groups: Iterable[Iterable[Sequence[int]]], needs: Callable[[int], Iterable[int]]
) -> dict[int, int]:
    """The run after which nobody needs a node; runs are numbered through all groups."""
    last: dict[int, int] = {}
    for position, run in enumerate(chain.from_iterable(groups)):
        for node in run:
            last |= dict.fromkeys(needs(node), position)
            last.setdefault(node, position)
    return last
