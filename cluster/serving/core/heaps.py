"""Requests that wait, in binary heaps: for their arrival, and then for a slot."""

from cluster.serving.core.columns import ARRIVES, NUMBER, PRIORITY, WAITING, State


def before(s: State, heap: int, one: int, other: int) -> bool:
    """Whether one request goes before another: of those that wait, the more urgent."""
    q = s.requests
    if heap == WAITING and q[PRIORITY][one] != q[PRIORITY][other]:
        return q[PRIORITY][one] > q[PRIORITY][other]
    if s.times[ARRIVES][one] != s.times[ARRIVES][other]:
        return s.times[ARRIVES][one] < s.times[ARRIVES][other]
    return q[NUMBER][one] < q[NUMBER][other]


def push(s: State, heap: int, r: int) -> None:
    """Put a request into a binary heap."""
    items = s.heaps[heap]
    at = s.sizes[heap]
    s.sizes[heap] += 1
    while at > 0 and before(s, heap, r, items[(at - 1) // 2]):
        items[at] = items[(at - 1) // 2]
        at = (at - 1) // 2
    items[at] = r


def pull(s: State, heap: int, at: int) -> int:
    """Take the request at a place out of a heap; the first one is at 0."""
    items = s.heaps[heap]
    found = items[at]
    s.sizes[heap] -= 1
    size = s.sizes[heap]
    if at == size:
        return found
    moved = items[size]
    while at > 0 and before(s, heap, moved, items[(at - 1) // 2]):
        items[at] = items[(at - 1) // 2]
        at = (at - 1) // 2
    child = 2 * at + 1
    while child < size:
        if child + 1 < size and before(s, heap, items[child + 1], items[child]):
            child += 1
        if not before(s, heap, items[child], moved):
            break
        items[at] = items[child]
        at, child = child, 2 * child + 1
    items[at] = moved
    return found
