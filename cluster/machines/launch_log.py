"""A machine that also writes down what each launch moved and how long it took."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from chip.core import Array
from cluster.machines.machine import Inputs, Machine, Result
from cluster.machines.wrapper import MachineWrapper


@dataclass(frozen=True)
class LaunchEntry:
    """One launch: its program, what its host link moved, its cycles and its wall time.

    Every chip has a host link of its own, so the bytes are those of the chip with the most.
    """

    name: str
    in_bytes: int
    out_bytes: int
    cycles: int
    wall_s: float


class LaunchLog(MachineWrapper[Machine]):
    """Keeps an entry of each launch."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.entries: list[LaunchEntry] = []

    def launch(self, name: str, inputs: Inputs) -> Result:
        """Run a launch and write it down."""
        start = time.perf_counter()
        result = super().launch(name, inputs)
        wall_s = time.perf_counter() - start
        moved = _most_bytes(inputs), _most_bytes(result.outputs)
        self.entries.append(LaunchEntry(name, *moved, result.end_cycle, wall_s))
        return result


def _most_bytes(vectors: Mapping[int, Mapping[str, Array]]) -> int:
    return max((sum(a.nbytes for a in named.values()) for named in vectors.values()), default=0)
