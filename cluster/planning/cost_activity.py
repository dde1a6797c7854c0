"""What schedules do, for energy: counted while they are there."""

from weakref import WeakKeyDictionary

from chip.energy import Activity, count_alike
from chip.kernels.step import Step
from chip.program import Instruction
from chip.schedule import Schedule


class Counts:
    """Counts of steps; of schedules that a stage keeps for several steps once."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Schedule, Activity] = WeakKeyDictionary()

    def of(self, step: Step) -> Activity:
        """What all members do in a step."""
        total = Activity()
        for part, everyone in step.parts:
            if part not in self._known:
                self._known[part] = done_in(part)
            total += self._known[part].times(len(everyone))
        return total


def done_in(schedule: Schedule) -> Activity:
    """What the members of a schedule do."""
    total, done = Activity(), dict[int, list[tuple[str, int, Instruction, int]]]()
    for member, queue, cycle, instruction, alike in schedule.by_kind():
        done.setdefault(member, []).append((queue, cycle, instruction, alike))
    for items in done.values():
        total += count_alike(items, schedule.spec)
    return total
