"""Parts of pipeline steps as timings, from what is known of their width."""

from collections.abc import Sequence

from chip.schedule import ScheduleTiming, TimingSequence
from cluster.compiler.launch import LaunchKind
from cluster.compiler.pipeline import step_paths
from cluster.compiler.place import Placement
from cluster.compiler.wires import Paths, Wires
from cluster.planning.costs import KeptTimings


class KeptParts:
    """What the steps of one sequence's prompt are made of; see `StepParts`."""

    def __init__(self, work: KeptTimings, wires: Wires, placement: Placement) -> None:
        self.costs, self.width, self.stage = work.costs, work.width, work.stage
        self.paths = Paths(path for _, some in step_paths(wires, placement) for path in some)

    def sent(self, kind: LaunchKind, limit_cycles: int | None) -> Sequence[ScheduleTiming]:
        """x of all stages to the next, on all links at once."""
        return self.costs.crossing(self.width, kind.rows, self.paths, limit_cycles)

    def take_in(self, number: int, kind: LaunchKind) -> TimingSequence | None:
        """x to its place in the first stage."""
        if number:
            return None
        found = TimingSequence()
        found.add(self.costs.take_in(self.width, kind.rows), 0)
        return found

    def put_out(self, number: int, kind: LaunchKind) -> None:
        """Nothing: x of a prefill rests where it is."""
