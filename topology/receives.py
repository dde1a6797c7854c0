"""Every receive of a run against its vector's arrival, on oscillators that do not agree.

A schedule says in which cycle a chip receives. Both chips count cycles by their own oscillators
since their last deskew; a vector that arrives later than the margin after that cycle is missed. One
that arrives earlier waits in the clock-crossing FIFO.
"""

from dataclasses import dataclass

import networkx as nx
import numpy as np

from topology.alignment import align, jitter
from topology.clocks import ClockPlan
from topology.errors import MarginExceeded
from topology.fabric import Ints


@dataclass(frozen=True)
class Receives:
    """Vectors of a launch: from `src` to `dst`, received in `cycle` of the launch.

    The other two: cycles from the last deskew of the sender to the Send, of the receiver to the
    Receive.
    """

    src: Ints
    dst: Ints
    cycle: Ints
    sent_since_cycles: Ints
    received_since_cycles: Ints


class Oscillators:
    """The clocks of a run; all draws come from `seed`.

    Each oscillator is off by up to `drift_ppm`, and the two ends of one cable, drawn among those
    in use, are off by all of it: its sender is slow, its receiver fast. `drift_ppm` and
    `jitter_std_cycles` are what really happens (default: what the plan was made for).
    """

    def __init__(
        self,
        graph: nx.Graph,
        plan: ClockPlan,
        seed: int = 0,
        drift_ppm: float | None = None,
        jitter_std_cycles: float | None = None,
    ) -> None:
        spec = self.spec = plan.spec
        self.drift_ppm = spec.drift_ppm if drift_ppm is None else drift_ppm
        self.jitter_std_cycles = (
            spec.jitter_std_cycles if jitter_std_cycles is None else jitter_std_cycles
        )
        self._rng = np.random.default_rng([seed, 3])
        self._error = align(graph, spec, seed).error_cycles
        ppm = self.drift_ppm
        self._rate = self._rng.uniform(-ppm, ppm, len(self._error)) * 1e-6
        self._drawn = False
        self.checked, self.worst_slip_cycles = 0, -np.inf
        self.worst_link = (0, 0)

    def check(self, receives: Receives) -> None:
        """Raise MarginExceeded for the receive of a launch that misses its vector by most."""
        if not len(receives.src):
            return
        if not self._drawn:
            self._stretch(receives)
        slip = self._slip(receives)
        at = int(slip.argmax())
        link, margin = (int(receives.src[at]), int(receives.dst[at])), self.spec.margin_cycles
        if slip[at] > margin:
            missed = int(np.ceil(slip[at] - margin))
            raise MarginExceeded(*link, int(receives.cycle[at]), missed, margin)
        self.checked += len(slip)
        if slip[at] > self.worst_slip_cycles:
            self.worst_slip_cycles, self.worst_link = float(slip[at]), link

    def _stretch(self, receives: Receives) -> None:
        """Put the ends of one cable in use at the ends of the tolerance."""
        at = int(self._rng.integers(len(receives.src)))
        self._rate[receives.src[at]] = -self.drift_ppm * 1e-6
        self._rate[receives.dst[at]] = self.drift_ppm * 1e-6
        self._drawn = True

    def _slip(self, receives: Receives) -> np.ndarray:
        """Cycles by which each vector comes after the cycle of its Receive."""
        src, dst = receives.src, receives.dst
        late = -self._rate[src] * receives.sent_since_cycles
        early = self._rate[dst] * receives.received_since_cycles
        noise = jitter(self.spec, len(src), self._rng, self.jitter_std_cycles)
        # SACs are brought back to the HACs by whole cycles: half a cycle more.
        slip: np.ndarray = late + early + noise + self._error[src] - self._error[dst] + 0.5
        return slip
