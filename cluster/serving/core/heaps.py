"""Requests that wait, in binary heaps: for their arrival, and then for a slot."""

from cluster.serving.core.columns import LATER, WAITING, State


def before(s: State, heap: int, one: int, other: int) -> bool:
    """Whether one request goes before another: of those that wait, the more urgent."""
    q = s.requests
    if heap == WAITING and q.priority[one] != q.priority[other]:
        return q.priority[one] > q.priority[other]
    if q.arrives_s[one] != q.arrives_s[other]:
        return q.arrives_s[one] < q.arrives_s[other]
    return q.number[one] < q.number[other]


def push(s: State, heap: int, r: int) -> None:
    """Put a request into a binary heap."""
    items = s.later if heap == LATER else s.waiting
    at = s.sizes[heap]
    s.sizes[heap] += 1
    while at > 0 and before(s, heap, r, items[(at - 1) // 2]):
        items[at] = items[(at - 1) // 2]
        at = (at - 1) // 2
    items[at] = r


def pull(s: State, heap: int, at: int) -> int:
    """Take the request at a place out of a heap; the first one is at 0."""
    items = s.later if heap == LATER else s.waiting
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
