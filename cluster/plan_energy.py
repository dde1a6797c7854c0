"""Energy of planned launches: the instructions of their schedules, counted."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from chip.energy import Activity, count, energy_table
from chip.program import Instruction
from chip.schedule import Outline, Schedule
from cluster.energy import Joules
from cluster.lower import compose
from cluster.parts import Parts
from cluster.timing import Timed


def plan_energy(timed: Timed, seconds: float, interval_s: float) -> dict[str, Any]:
    """Joules of a token that takes `seconds` alone, and of one every `interval_s`; null if unknown.

    `joules_per_token` is of the chips of one user; the parts are those of `lpu run`.
    """
    table = energy_table(timed.plan.spec)
    if table is None:
        return {"joules_per_token": None, "energy": None}
    chips = len(timed.launch("decode", timed.plan.context).busy_cycles)
    dynamic = table.dynamic_j(decode_activity(timed))
    one, full = (Joules(table, chips, dynamic, s) for s in (seconds, interval_s))
    return {
        "joules_per_token": one.chips_j,
        "energy": {
            "dynamic_j": dynamic,
            "idle_j": one.idle_j,
            "system_j": one.system_j,
            "full_pipeline": {
                "interval_s": interval_s,
                "joules_per_token": full.chips_j,
                "system_j": full.system_j,
            },
        },
    }


def decode_activity(timed: Timed) -> Activity:
    """What the programs of a decode launch do, on all chips; equal schedules are counted once."""
    plan = timed.plan
    where = (timed.placement, timed.stages, timed.wires, timed.clocks)
    known: dict[tuple[int, int], Activity] = {}
    often: Counter[tuple[int, int]] = Counter()
    deskews = 0
    for part in compose(*where, 1, plan.context, outline=True).parts.values():
        queues: set[str] = set()
        for schedule, member in _made_of(part):
            key = (id(schedule), member)
            if key not in known:
                known[key] = count(_items(schedule, member), plan.spec)
            often[key] += 1
            queues.update(schedule.placed[member])
        deskews += len(queues) * len(part.deskews)
    stall = Instruction("icu.runtime_deskew", (1,))
    total = count([("icu", 0, stall)], plan.spec).times(deskews)
    for key, times in often.items():
        total += known[key].times(times)
    return total


def _made_of(part: Parts) -> Iterator[tuple[Schedule, int]]:
    """The schedules a chip has a part in, and who it is in them, as often as it does."""
    for plan, member, _ in part.items:
        if isinstance(plan, Outline):
            yield from plan.made_of[member]
        else:
            yield plan, member


def _items(schedule: Schedule, member: int) -> Iterator[tuple[str, int, Instruction]]:
    for queue, placed in schedule.placed[member].items():
        for cycle, instruction in placed:
            yield queue, cycle, instruction
