"""A machine that also writes down what each launch moved and how long it took."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from chip.board import Wiring
from chip.core import Array
from cluster.machines.loadable import Loadable
from cluster.machines.machine import Inputs, Machine, Parts, Progress, Result


@dataclass(frozen=True)
class Entry:
    """One launch: its program, what its host link moved, its cycles and its wall time.

    Every chip has a host link of its own, so the bytes are those of the chip with the most.
    """

    name: str
    in_bytes: int
    out_bytes: int
    cycles: int
    wall_s: float


class Ledger:
    """Passes every call on to `machine` and keeps an entry of each launch."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.name = machine, machine.name
        self.entries: list[Entry] = []

    @property
    def actors(self) -> int:
        """Worker processes of the machine."""
        return self.machine.actors

    @property
    def wirings(self) -> dict[str, Wiring]:
        """Who sends what to whom, by launch."""
        return self.machine.wirings

    def load(self, lowered: Loadable, progress: Progress) -> None:
        """Load the machine."""
        self.machine.load(lowered, progress)

    def join(self, name: str, parts: Parts) -> None:
        """Join the programs."""
        self.machine.join(name, parts)

    def launch(self, name: str, inputs: Inputs) -> Result:
        """Run a launch and write it down."""
        start = time.perf_counter()
        result = self.machine.launch(name, inputs)
        wall_s = time.perf_counter() - start
        moved = _most_bytes(inputs), _most_bytes(result.outputs)
        self.entries.append(Entry(name, *moved, result.end_cycle, wall_s))
        return result

    def worker_bytes(self) -> int:
        """Peak memory of the machine's workers."""
        return self.machine.worker_bytes()

    def costs(self) -> dict[str, int]:
        """What the machine says of its workers."""
        return self.machine.costs()

    def close(self) -> None:
        """Close the machine."""
        self.machine.close()


def _most_bytes(vectors: Mapping[int, Mapping[str, Array]]) -> int:
    return max((sum(a.nbytes for a in named.values()) for named in vectors.values()), default=0)
