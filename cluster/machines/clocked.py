"""A machine whose oscillators are real: every receive of every launch is checked on them."""

from cluster.compiler.clocking import receives
from cluster.errors import ClockMiss
from cluster.machines.loadable import Loadable
from cluster.machines.machine import Inputs, Machine, Parts, Progress, Result
from cluster.machines.wrapper import MachineWrapper
from topology.errors import MarginExceeded
from topology.receives import Oscillators, Receives


class Clocked(MachineWrapper[Machine]):
    """Raises ClockMiss for a vector that comes too late."""

    def __init__(
        self,
        machine: Machine,
        seed: int = 0,
        drift_ppm: float | None = None,
        jitter_cycles: float | None = None,
    ) -> None:
        super().__init__(machine)
        self.seed = seed
        self._actual = (drift_ppm, jitter_cycles)
        self.oscillators: Oscillators | None = None
        self._receives: dict[str, Receives] = {}

    def load(self, lowered: Loadable, progress: Progress) -> None:
        """Load the machine and set its oscillators going."""
        super().load(lowered, progress)
        clocks = lowered.clocking
        if clocks is not None:
            self.oscillators = Oscillators(clocks.graph, clocks.plan, self.seed, *self._actual)
            self._receives = {name: receives(w) for name, w in self.wirings.items()}

    def join(self, name: str, parts: Parts) -> None:
        """Join the programs; their receives are checked with every launch of them."""
        super().join(name, parts)
        if self.oscillators is not None:
            self._receives[name] = receives(self.wirings[name])

    def launch(self, name: str, inputs: Inputs) -> Result:
        """Check the arrivals of a launch, then run it."""
        clocks = self.oscillators
        if clocks is not None:
            try:
                clocks.check(self._receives[name])
            except MarginExceeded as error:
                missed = error.cycle, error.slip_cycles, error.margin_cycles
                really = clocks.drift_ppm, clocks.jitter_std_cycles
                holds = clocks.spec.drift_ppm, clocks.spec.jitter_std_cycles
                link = error.src, error.dst
                raise ClockMiss(name, link, missed, really, holds) from None
        return super().launch(name, inputs)
