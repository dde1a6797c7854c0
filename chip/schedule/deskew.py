"""Where the schedule of a group stalls as a whole, so that its chips re-align their counters."""

from collections.abc import Callable
from dataclasses import dataclass

from chip.errors import ProgramError
from chip.schedule.reserve import Schedule
from chip.schedule.timing import TimingSequence


@dataclass(frozen=True)
class Pace:
    """A Runtime deskew of `stall_cycles`, `limit_cycles` after the one before at the latest.

    `since_cycles` have passed since the last one when the schedule begins.
    """

    stall_cycles: int
    limit_cycles: int
    since_cycles: int = 0


@dataclass
class Sequence:
    """Parts of a schedule one after another, with a stall between two where it is due.

    The stalls are noted in the `plan`.
    """

    plan: Schedule | TimingSequence
    pace: Pace | None = None
    cycle: int = 0

    def __post_init__(self) -> None:
        self.plan.since_cycles = self.pace.since_cycles if self.pace else 0

    def start(self, cycles: int, early_cycles: int = 0, tail_cycles: int = 0) -> int:
        """Cycle at which a part begins that is over `cycles` after the one before.

        It may have begun `early_cycles` before that was over; and what follows it may, and is then
        over `tail_cycles` later: between these two nothing stalls. Raises ProgramError if no stall
        can come in time.
        """
        pace, plan = self.pace, self.plan
        if early_cycles:
            begin = self.cycle - early_cycles
            self.cycle += cycles
            plan.since_cycles += cycles
            return begin
        whole = cycles + tail_cycles
        if pace and plan.since_cycles + whole > pace.limit_cycles:
            if whole > pace.limit_cycles:
                what = f"{whole:,} cycles without a place for the Runtime deskew"
                limit = f"that the clocks demand every {pace.limit_cycles:,} cycles"
                advice = "use more tensor-parallel chips, or clocks that drift less"
                raise ProgramError(f"{what} {limit}; {advice}")
            plan.stalls.append((self.cycle, pace.stall_cycles))
            self.cycle += pace.stall_cycles
            plan.since_cycles = 0
        begin = self.cycle
        self.cycle += cycles
        plan.since_cycles += cycles
        return begin

    def repeat(self, part: Schedule, moved: Callable[[int, int], int]) -> None:
        """Add a schedule as the next part; see `Schedule.repeat`."""
        assert isinstance(self.plan, Schedule)
        self.plan.repeat(part, self.start(part.quiet_cycle), moved)
