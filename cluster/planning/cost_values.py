"""What is told of schedules once they are made: timings from disk, and what chips do in them."""

from typing import Any

from chip.energy import Activity, count_alike
from chip.program import Instruction
from chip.schedule import Schedule, ScheduleTiming


def timing_of(plain: dict[str, Any]) -> ScheduleTiming:
    """A timing from JSON, as `asdict` gives it."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
    return ScheduleTiming(**fields)


def done_in(schedule: Schedule) -> Activity:
    """What all members do."""
    total, done = Activity(), dict[int, list[tuple[str, int, Instruction, int]]]()
    for member, queue, cycle, instruction, alike in schedule.by_kind():
        done.setdefault(member, []).append((queue, cycle, instruction, alike))
    for items in done.values():
        total += count_alike(items, schedule.spec)
    return total
