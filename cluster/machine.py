"""A machine runs lowered launches: the protocol, linking with reuse, and one process as a machine."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from chip.board import Wiring, wire
from chip.core import Array, Chip
from chip.linker import Linked, link, relocate
from chip.program import Program, Region
from chip.wire import pack, unpack
from cluster.errors import ClusterError
from cluster.lower import Lowered

Inputs = Mapping[int, Mapping[str, Array]]  # chip -> input name -> vectors
Progress = Callable[[str, int, int], None]  # what, done, of how many


class ScheduleMismatch(ClusterError):
    """Executed cycles differ from scheduled ones: never the user's fault."""

    def __init__(self, launch: str, chip: int, scheduled: int, executed: int) -> None:
        super().__init__(launch, chip, scheduled, executed)
        self.launch, self.chip = launch, chip
        self.scheduled, self.executed = scheduled, executed

    def message(self) -> str:
        """Return the launch, the chip and both cycle counts."""
        return (
            f"launch {self.launch}: chip {self.chip} was scheduled to end at cycle "
            f"{self.scheduled}, its program ends at {self.executed}"
        )


@dataclass(frozen=True)
class Result:
    """Outputs of a launch by chip and name, its executed cycles, and each chip's digest."""

    outputs: dict[int, dict[str, Array]]
    end_cycle: int
    digests: dict[int, bytes]


class Machine(Protocol):
    """Anything that runs lowered launches; all give equal results to the bit."""

    name: str

    def load(self, lowered: Lowered, progress: Progress) -> None:
        """Bring up the chips with their constants and programs."""

    def launch(self, name: str, inputs: Inputs) -> Result:
        """Run one launch on every chip."""

    def close(self) -> None:
        """Release everything the machine holds."""

    @property
    def actors(self) -> int:
        """Worker processes besides this one."""


class Linker:
    """Links programs; those that differ only in chip and start cycle are linked once."""

    def __init__(self) -> None:
        self._known: dict[bytes, Linked] = {}

    def __call__(self, data: bytes) -> Linked:
        """Return the linked program; raises the chip package's errors."""
        program = unpack(data)
        bare = pack(replace(program, chip=0, start_cycle=0))
        key = hashlib.sha256(bare).digest()
        if key not in self._known:
            self._known[key] = link(program)
        return relocate(self._known[key], program)


class Digest:
    """SHA-256 over the programs, then over every launch, all in chip order."""

    def __init__(self, lowered: Lowered) -> None:
        self._hash = hashlib.sha256()
        for _, launch in sorted(lowered.launches.items()):
            for _, program in sorted(launch.programs.items()):
                self._hash.update(program)

    def add(self, result: Result) -> None:
        """Fold in one launch: the chips' digests, logits and cycles."""
        for chip in sorted(result.digests):
            self._hash.update(result.digests[chip])
            for _, values in sorted(result.outputs.get(chip, {}).items()):
                self._hash.update(np.ascontiguousarray(values))
        self._hash.update(str(result.end_cycle).encode())

    def hexdigest(self) -> str:
        """Return the digest so far."""
        return self._hash.hexdigest()


def check_cycles(lowered: Lowered, linked: Mapping[str, Mapping[int, Linked]]) -> dict[str, Wiring]:
    """Wire every launch; raises ScheduleMismatch if a program's cycles are not the scheduler's."""
    wirings = {}
    for name, launch in lowered.launches.items():
        for chip, scheduled in launch.end_cycles.items():
            executed = linked[name][chip].end_cycle
            if executed != scheduled:
                raise ScheduleMismatch(name, chip, scheduled, executed)
        wirings[name] = wire(linked[name], lowered.cables)
    return wirings


class LocalMachine:
    """All chips in this process."""

    name = "local"
    actors = 0

    def __init__(self) -> None:
        self.chips: dict[int, Chip] = {}
        self._wirings: dict[str, Wiring] = {}
        self._programs: dict[str, dict[int, Program]] = {}

    def load(self, lowered: Lowered, progress: Progress) -> None:
        """Bring up the chips with their constants and programs."""
        linker = Linker()
        everyone = sorted({*lowered.chips, *lowered.transit_chips})
        self.chips = {n: Chip(n, lowered.plan.spec) for n in everyone}
        linked: dict[str, dict[int, Linked]] = {}
        total = sum(len(launch.programs) for launch in lowered.launches.values())
        done = 0
        for name, launch in lowered.launches.items():
            linked[name] = {}
            for number, data in launch.programs.items():
                linked[name][number] = self.chips[number].load(name, data, linker(data))
                done += 1
                progress("linking programs", done, total)
        self._wirings = check_cycles(lowered, linked)
        self._programs = {n: {c: p.program for c, p in m.items()} for n, m in linked.items()}
        groups = len(lowered.placement)
        seen: set[int] = set()
        for chip, region, values in lowered.constants():
            self.chips[chip].write(region, values)
            seen.add(next(n for n, group in enumerate(lowered.placement) if chip in group))
            progress("loading weights", len(seen), groups)

    def launch(self, name: str, inputs: Inputs) -> Result:
        """Run one launch on every chip."""
        programs, wiring = self._programs[name], self._wirings[name]
        for number in programs:
            chip = self.chips[number]
            chip.begin(name)
            for key, values in inputs.get(number, {}).items():
                chip.write(programs[number].inputs[key], values)
        sent: dict[tuple[int, int], Array] = {}
        for call in wiring.calls:
            packets = {receive: sent.pop((chip, send)) for receive, chip, send in call.packets}
            for issue, packet in self.chips[call.chip].run(call.segment, packets).items():
                sent[call.chip, issue] = packet
        digests = {n: self.chips[n].finish().digest for n in sorted(programs)}
        outputs = {
            n: {key: self.chips[n].read(region) for key, region in p.outputs.items()}
            for n, p in programs.items()
            if p.outputs
        }
        return Result(outputs, wiring.end_cycle, digests)

    def close(self) -> None:
        """Drop the chips."""
        self.chips.clear()


__all__ = ["Digest", "Inputs", "Linker", "LocalMachine", "Machine", "Region", "Result"]
