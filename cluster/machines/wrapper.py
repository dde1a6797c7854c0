"""What wraps a machine passes on what it has nothing to add to."""

from typing import Generic, TypeVar

from chip.board import Wiring
from cluster.machines.loadable import Loadable
from cluster.machines.machine import (
    Contents,
    Inputs,
    Machine,
    Parts,
    Progress,
    Regions,
    Result,
)

M = TypeVar("M", bound=Machine)


class MachineWrapper(Generic[M]):
    """A machine that passes every call on to `machine`; made to be inherited from."""

    def __init__(self, machine: M) -> None:
        self.machine, self.name = machine, machine.name

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
        """Run a launch."""
        return self.machine.launch(name, inputs)

    def contents(self, regions: Regions) -> Contents:
        """What is in the SRAM of chips."""
        return self.machine.contents(regions)

    def put(self, regions: Regions, contents: Contents) -> None:
        """Put it into regions as large."""
        self.machine.put(regions, contents)

    def worker_bytes(self) -> int:
        """Peak memory of the machine's workers."""
        return self.machine.worker_bytes()

    def costs(self) -> dict[str, int]:
        """What the machine says of its workers."""
        return self.machine.costs()

    def close(self) -> None:
        """Close the machine."""
        self.machine.close()
