"""A static task graph: tasks of known cycles on the units of chips, each begun by priority."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush


@dataclass(eq=False)
class Task:
    """`cycles` of work of one `kind` on `units`, all at once, after the tasks in `after`."""

    kind: str
    cycles: int
    units: tuple[Hashable, ...]
    after: tuple["Task", ...]
    priority: tuple[int, ...]
    start: int = -1
    waited_for: "Task | None" = field(default=None, repr=False)  # what ended when it could begin

    @property
    def end(self) -> int:
        """Cycle at which it is over."""
        return self.start + self.cycles


def schedule(tasks: Sequence[Task]) -> int:
    """Give each task a start, and return the end of the last.

    Whenever a task ends, of those that may begin the ones of smallest priority go first.
    """
    waiting = {task: len(task.after) for task in tasks}
    follow: dict[Task, list[Task]] = defaultdict(list)
    for task in tasks:
        for before in task.after:
            follow[before].append(task)
    ready = sorted((t for t in tasks if not t.after), key=lambda t: t.priority)
    busy: set[Hashable] = set()
    number = {task: n for n, task in enumerate(tasks)}  # ties end in the order given
    running: list[tuple[int, int, Task]] = []
    now, last = 0, None
    while ready or running:
        left = []
        for task in ready:
            if busy.isdisjoint(task.units):
                task.start, task.waited_for = now, last
                busy.update(task.units)
                heappush(running, (task.end, number[task], task))
            else:
                left.append(task)
        now, _, last = heappop(running)
        busy.difference_update(last.units)
        for task in follow[last]:
            waiting[task] -= 1
            if not waiting[task]:
                left.append(task)
        ready = sorted(left, key=lambda t: t.priority)
    return now


def critical_path(tasks: Sequence[Task]) -> dict[str, int]:
    """Cycles by kind of the tasks that, one after another, lead to the last end; most first."""
    found: dict[str, int] = defaultdict(int)
    task: Task | None = max(tasks, key=lambda t: t.end)
    while task is not None:
        found[task.kind] += task.cycles
        task = task.waited_for
    return dict(sorted(found.items(), key=lambda item: -item[1]))
