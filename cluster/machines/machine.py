"""A machine runs lowered launches: the protocol, and one process as a machine."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from chip.board import Facts, Wiring, wire
from chip.checkpoint import Block
from chip.core import Array
from chip.digest import RunDigest
from chip.group import ChipGroup, batches
from chip.jit import plays
from chip.linker.reuse import Linker
from chip.program import Region
from cluster.errors import ClusterError
from cluster.machines.loadable import Loadable
from cluster.program_store import NOTHING_KEPT, ProgramStore

Inputs = Mapping[int, Mapping[str, Array]]  # chip -> input name -> vectors
Regions = Mapping[int, Sequence[Region]]  # chip -> places in its SRAM
Contents = Mapping[int, Sequence[bytes]]  # of regions
Parts = Mapping[int, str]  # chip -> the launch whose program it runs
Known = Mapping[str, Mapping[int, Facts]]  # of every program, by launch and chip
Progress = Callable[[str, int, int], None]  # what, done, of how many
THREADS = 3  # that load: one for kernels, two for weights
STARTING, LINKING, WEIGHTS, KERNELS = "start", "link", "weights", "kernels"  # reports of a load


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
    digests: Mapping[int, bytes]


class Machine(Protocol):
    """Anything that runs lowered launches; all give equal results to the bit."""

    name: str

    def load(self, lowered: Loadable, progress: Progress) -> None:
        """Bring up the chips with their constants and programs."""

    def join(self, name: str, parts: Parts) -> None:
        """Make a launch `name` of programs that are loaded; raises the hazards of its links."""

    def launch(self, name: str, inputs: Inputs) -> Result:
        """Run one launch on every chip."""

    def contents(self, regions: Regions) -> Contents:
        """What is in the SRAM of chips, between two launches."""

    def put(self, regions: Regions, contents: Contents) -> None:
        """Put it into regions as large, between two launches."""

    def close(self) -> None:
        """Release everything the machine holds."""

    def worker_bytes(self) -> int:
        """Memory of all worker processes together; pages that they share count once."""

    def costs(self) -> dict[str, int]:
        """What else there is to say of the workers, by JSON key."""

    @property
    def actors(self) -> int:
        """Worker processes besides this one."""

    @property
    def wirings(self) -> dict[str, Wiring]:
        """Who sends what to whom, by launch; known once it is loaded."""


class Digest(RunDigest):
    """The digest of a run of `lowered`."""

    def __init__(self, lowered: Loadable) -> None:
        super().__init__(launch.programs for _, launch in sorted(lowered.launches.items()))

    def add(self, result: Result) -> None:
        """Fold in one launch: the chips' digests, logits and cycles."""
        self.fold(result.outputs, result.digests, result.end_cycle)


def check_cycles(lowered: Loadable, known: Known) -> dict[str, Wiring]:
    """Wire every launch; raises ScheduleMismatch if a program's cycles are not the scheduler's."""
    wirings = {}
    for name, launch in lowered.launches.items():
        for chip, scheduled in launch.end_cycles.items():
            executed = known[name][chip].end_cycle
            if executed != scheduled:
                raise ScheduleMismatch(name, chip, scheduled, executed)
        wirings[name] = wire(known[name], lowered.cables)
    return wirings


def wire_parts(lowered: Loadable, known: Known, parts: Parts) -> Wiring:
    """Wire a launch of programs that belong to several; raises PortBusy, NothingArrives, ..."""
    return wire({chip: known[part][chip] for chip, part in parts.items()}, lowered.cables)


class LocalMachine:
    """All chips in this process."""

    name = "local"
    actors = 0

    def __init__(self, store: ProgramStore = NOTHING_KEPT) -> None:
        """Programs that are in the store are not linked again."""
        self._store = store
        self._group: ChipGroup | None = None
        self._known: dict[str, dict[int, Facts]] = {}
        self.wirings: dict[str, Wiring] = {}

    def load(self, lowered: Loadable, progress: Progress) -> None:
        """Bring up the chips with their constants and programs."""
        everyone = sorted({*lowered.chips, *lowered.transit_chips})
        with ThreadPoolExecutor(THREADS) as beside:
            kernels = beside.submit(plays, lowered.plan.spec.lanes)  # mostly Python
            self._load(lowered, everyone, progress)
            stages = lowered.placement
            progress(WEIGHTS, 0, len(stages))
            filled = beside.map(self._fill, stages)  # mostly NumPy, which runs beside it
            for done, _ in enumerate(filled, 1):
                progress(WEIGHTS, done, len(stages))
            progress(KERNELS, 0, 0)
            kernels.result()

    def _fill(self, chips: Sequence[int]) -> None:
        """Store the constants of a stage's chips."""
        assert self._group is not None, "it is made first"
        self._group.write(self._lowered.constants(frozenset(chips)))

    def _load(self, lowered: Loadable, everyone: Sequence[int], progress: Progress) -> None:
        linker = Linker()
        group = self._group = ChipGroup(everyone, lowered.plan.spec, linker)
        known = self._known = {name: {} for name in lowered.launches}
        self._lowered = lowered
        every = [
            (name, number, data)
            for name, launch in lowered.launches.items()
            for number, data in launch.programs.items()
        ]
        with self._store.linked(linker, [data for _, _, data in every]):
            for done, (name, number, data) in enumerate(every, 1):
                known[name][number] = group.load(name, number, data)
                progress(LINKING, done, len(every))
        self.wirings = check_cycles(lowered, known)
        for name, wiring in self.wirings.items():
            group.prepare(name, batches(wiring, dict.fromkeys(everyone, 0)))

    def join(self, name: str, parts: Parts) -> None:
        """Make a launch of programs that are loaded."""
        assert self._group is not None, "load comes first"
        wiring = self.wirings[name] = wire_parts(self._lowered, self._known, parts)
        self._group.join(name, parts, batches(wiring, dict.fromkeys(parts, 0)))

    def launch(self, name: str, inputs: Inputs) -> Result:
        """Run one launch on every chip."""
        group = self._group
        assert group is not None, "load comes first"
        group.begin(name, inputs)
        group.run(name, 0)
        finished = group.finish(name)
        return Result(finished.outputs, self.wirings[name].end_cycle, finished.digests)

    def contents(self, regions: Regions) -> Contents:
        """What is in the SRAM of chips."""
        assert self._group is not None, "load comes first"
        return self._group.contents(regions)

    def put(self, regions: Regions, contents: Contents) -> None:
        """Put it into regions as large."""
        assert self._group is not None, "load comes first"
        self._group.put(regions, contents)

    def worker_bytes(self) -> int:
        """There are no workers."""
        return 0

    def costs(self) -> dict[str, int]:
        """How many nodes of programs are interpreted, in each launch of all."""
        return {"interpreted_nodes": self._group.interpreted_nodes if self._group else 0}

    def changes(self) -> dict[int, list[Block]]:
        """Blocks of SRAM, by chip, that have changed since the last call."""
        assert self._group is not None, "load comes first"
        return self._group.changes()

    def restore(self, blocks: Mapping[int, list[Block]]) -> None:
        """Go back to where the changes of every chip were `blocks`."""
        assert self._group is not None, "load comes first"
        self._group.restore(blocks)

    def revive(self) -> None:
        """Nothing here can get lost."""

    def close(self) -> None:
        """Drop the chips."""
        self._group = None


def counted_constants(lowered: Loadable, progress: Progress) -> Iterator[tuple[int, Region, Array]]:
    """The constants of all chips, with a progress step whenever another stage begins."""
    stage_of = {chip: n for n, group in enumerate(lowered.placement) for chip in group}
    begun = 0
    progress(WEIGHTS, 0, len(lowered.placement))
    for chip, region, values in lowered.constants():
        if stage_of[chip] > begun:
            begun = stage_of[chip]
            progress(WEIGHTS, begun, len(lowered.placement))
        yield chip, region, values
    progress(WEIGHTS, len(lowered.placement), len(lowered.placement))
