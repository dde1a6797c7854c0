"""What a text says of one chip, and the program that this makes."""

from dataclasses import dataclass, field

from lark import Token

from chip.arrays import Array
from chip.assembly.lines import Line
from chip.errors import HazardError
from chip.own_spec import identity
from chip.program import Instruction, Program, Region
from chip.spec import ChipSpec
from chip.wire import check_program

STARTUP = "icu"  # queue of the start sequence


@dataclass
class Part:
    """What is said of one chip."""

    number: int
    env: dict[str, int]
    start_cycle: int = 0
    deskew_interval_cycles: int = 0
    queue: Token | None = None
    lines: list[Line] = field(default_factory=list)
    queues: list[str] = field(default_factory=list)
    maps: dict[str, tuple[int, ...]] = field(default_factory=dict)
    regions: dict[str, dict[str, Region]] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)

    def program(self, spec: ChipSpec, queues: dict[str, tuple[Instruction, ...]]) -> Program:
        """The program of the chip, checked; raises ProgramError."""
        found = Program(
            chip=self.number,
            spec=identity(spec),
            start_cycle=self.start_cycle,
            queues={name: queue for name, queue in queues.items() if name != STARTUP},
            startup=queues.get(STARTUP, ()),
            deskew_interval_cycles=self.deskew_interval_cycles,
            maps=tuple(self.maps.values()),
            inputs=dict(self.regions.get("data", {})),
            outputs=dict(self.regions.get("output", {})),
            constants=tuple(self.regions.get("constant", {}).values()),
        )
        check_program(found)
        return found


def line_by_cycle(
    program: Program, places: dict[tuple[str, int], str]
) -> dict[tuple[int, str, int], str]:
    """File and line by (chip, queue, issue cycle), as far as the cycles are known."""
    found = {}
    for queue in program.queues:
        try:
            for index, (cycle, _) in enumerate(program.issues(queue)):
                if (queue, index) in places:
                    found[program.chip, queue, cycle] = places[queue, index]
        except HazardError:  # a queue that stays parked: the linker says so
            continue
    return found
