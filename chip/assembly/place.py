"""When each line issues, and where values travel: the time law, applied to what is written.

An instruction of cycle t at position p drives its result at t + d_func, and a unit at position q
meets it |q - p| cycles later. `@%value` asks for that cycle, `@t>queue` solves it for the issue.
"""

from collections.abc import Mapping, Sequence

from chip.assembly.lines import Line, When
from chip.assembly.source import Source
from chip.board import Cable
from chip.errors import ProgramError
from chip.isa import ALU_BASE, NO_STREAM, STREAM_CODES
from chip.linker.timeline import locate
from chip.program import Instruction
from chip.spec import ChipSpec
from chip.wire import MAX_CYCLES, check_instruction

Key = tuple[int, str]  # chip, name
HALF = STREAM_CODES // 2


class Placer:
    """Finds cycles on demand, as lines may wait for one another in any order."""

    def __init__(
        self,
        source: Source,
        spec: ChipSpec,
        lines: Mapping[int, Sequence[Line]],
        cables: tuple[Cable, ...],
    ) -> None:
        self.source, self.spec = source, spec
        self.by_queue: dict[Key, list[Line]] = {}
        self.labels: dict[Key, Line] = {}
        self.drivers: dict[Key, list[Line]] = {}
        self.chip_of: dict[Line, int] = {}
        self.before: dict[Line, Line | None] = {}
        self.known: dict[Line, int] = {}
        self.waiting: set[Line] = set()
        self.ends: dict[tuple[int, int], tuple[int, int, int]] = {}
        for c in cables:
            self.ends[c.chip, c.port] = (c.other_chip, c.other_port, c.latency_cycles)
            self.ends[c.other_chip, c.other_port] = (c.chip, c.port, c.latency_cycles)
        for chip, written in lines.items():
            for line in written:
                self._register(chip, line)
        self.numbers = {chip: _numbered(written) for chip, written in lines.items()}

    def _register(self, chip: int, line: Line) -> None:
        queue = self.by_queue.setdefault((chip, line.queue), [])
        self.chip_of[line] = chip
        self.before[line] = queue[-1] if queue else None
        queue.append(line)
        if line.label:
            other = self.labels.setdefault((chip, line.label), line)
            if other is not line:
                where = f"it is on line {other.at.line}"
                raise self.source.error(line.at, f"label {line.label} is defined twice; {where}")
        driven = -1 if line.op.driven is None else line.op.driven
        if driven in line.names:
            self.drivers.setdefault((chip, line.names[driven]), []).append(line)

    # --- programs -----------------------------------------------------------------------------
    def queues(
        self, chip: int, names: Sequence[str]
    ) -> tuple[dict[str, tuple[Instruction, ...]], dict[tuple[str, int], str]]:
        """The queues of a chip, NOPs where nothing issues; file and line by (queue, index)."""
        found, where = {}, {}
        for name in names:
            lines = self.by_queue.get((chip, name), [])
            timed = any(line.when is not None for line in lines)
            filled: list[Instruction] = []
            for line in lines:
                if timed:
                    filled += self._gap(line)
                where[name, len(filled)] = f"{self.source.path}:{line.at.line}"
                filled.append(self.instruction(chip, line))
            found[name] = tuple(filled)
        return found, where

    def _gap(self, line: Line) -> list[Instruction]:
        """What fills a queue from the line before to this one; raises AssemblyError."""
        cycle, free = self.cycle(line), self._free(self.before[line])
        if cycle > free:
            return [Instruction("icu.nop", (cycle - free,))]
        if cycle < free:
            before = self.before[line]
            taken = f" (line {before.at.line})" if before else ""
            what = f"issues at cycle {cycle}, {line.queue} is taken until {free}{taken}"
            raise self.source.error(line.at, what)
        return []

    def _free(self, before: Line | None) -> int:
        """First cycle after a line in which its queue can issue again."""
        if before is None:
            return 0
        cycle = self.cycle(before)
        if before.op.steers == "park":
            return self._release(before, cycle)
        return cycle + Instruction(before.op.name, _numbers(before), before.loops).queue_cycles

    def _release(self, line: Line, cycle: int) -> int:
        """When a parked queue goes on: a barrier after the next Notify of its chip."""
        chip = self.chip_of[line]
        notices = [
            self.cycle(other)
            for (number, _), queue in self.by_queue.items()
            for other in queue
            if number == chip and other.op.steers == "notify"
        ]
        later = [notice for notice in notices if notice >= cycle]
        if not later:
            raise self.source.error(line.at, "no icu.notify comes in this cycle or later")
        return min(later) + self.spec.barrier_cycles

    def instruction(self, chip: int, line: Line) -> Instruction:
        """The finished instruction of a line."""
        args = tuple(
            self._stream(chip, line, index) if value is None else value
            for index, value in enumerate(line.args)
        )
        slots = [*line.op.sources]
        if line.op.timing:
            slots.append(-1 if line.op.driven is None else line.op.driven)
        names: tuple[int, ...] = ()
        if line.names:
            numbers = self.numbers[chip]
            names = tuple(numbers[line.names[s]] if s in line.names else 0 for s in slots)
        made = Instruction(line.op.name, args, line.loops, names)
        try:
            check_instruction(made, f"queue {line.queue}", 1 << 16)
        except ProgramError as error:
            raise self.source.error(line.at, error.what) from None
        return made

    # --- cycles -------------------------------------------------------------------------------
    def cycle(self, line: Line) -> int:
        """Issue cycle of a line, from the start of its chip's program."""
        todo: list[Line] = []
        while line not in self.known and line.when is None:
            before = self.before[line]
            if before is None:
                break
            todo.append(line)
            line = before
        cycle = self._cycle(line)
        for later in reversed(todo):
            cycle = self.known[later] = self._free(self.before[later])
        return cycle

    def _cycle(self, line: Line) -> int:
        if line in self.known:
            return self.known[line]
        if line in self.waiting:
            raise self.source.error(line.at, "waits for itself")
        self.waiting.add(line)
        try:
            cycle = 0 if line.when is None else self._solve(line, line.when)
        except RecursionError:
            raise self.source.error(line.at, "waits for too long a chain of lines") from None
        self.waiting.discard(line)
        if not 0 <= cycle < MAX_CYCLES:
            what = f"would issue at cycle {cycle}"
            hint = "; start what it waits for later" if cycle < 0 else ""
            raise self.source.error(line.at, what + hint)
        self.known[line] = cycle
        return cycle

    def _solve(self, line: Line, when: When) -> int:
        chip = self.chip_of[line]
        if when.number is not None:
            base = when.number
        elif when.value:
            base = self._arrival(chip, line, when.value)
        else:
            base = self._label(chip, line, when.label)
        cycle = base + when.shift
        if not when.target:
            return cycle
        try:
            _, _, there = locate(when.target, self.spec)
        except ProgramError as error:
            raise self.source.error(line.at, error.what) from None
        return cycle - self._travel(line, there) - self.spec.d_func(line.op.timing)

    def _label(self, chip: int, line: Line, name: str) -> int:
        where, dot, key = name.partition(".")
        if not dot:
            return self.cycle(self._labelled(chip, line, name))
        if where == "peer":
            return self._from_peer(chip, line, key)
        number = where.removeprefix("chip")
        if not number.isdecimal():
            raise self.source.error(line.at, f"@{name} is not a label; write chip0.{key}")
        return self.cycle(self._labelled(int(number), line, key))

    def _labelled(self, chip: int, line: Line, name: str) -> Line:
        if (chip, name) not in self.labels:
            known = ", ".join(label for c, label in self.labels if c == chip) or "none"
            raise self.source.error(line.at, f"chip {chip} has no label {name}; it has {known}")
        return self.labels[chip, name]

    def _from_peer(self, chip: int, line: Line, name: str) -> int:
        """Cycle in which what a neighbour sends at its label arrives at this line's port."""
        family, _, port = line.queue.partition(":")
        if family != "c2c.r":
            raise self.source.error(line.at, "@peer. is for a c2c.r queue: it follows the cable")
        if (chip, int(port)) not in self.ends:
            raise self.source.error(line.at, f"no cable on port {port} of chip {chip}")
        peer, far, latency_cycles = self.ends[chip, int(port)]
        send = self._labelled(peer, line, name)
        if send.queue != f"c2c.s:{far}":
            what = f"{name} of chip {peer} is on {send.queue}, the cable ends at c2c.s:{far}"
            raise self.source.error(line.at, what)
        return self.cycle(send) + latency_cycles

    # --- values -------------------------------------------------------------------------------
    def _arrival(self, chip: int, line: Line, value: str) -> int:
        """Cycle in which a value is at the unit of a line."""
        there = locate(line.queue, self.spec)[2]
        cycles = set()
        for driver in self._drivers(chip, line, value):
            driven = self.cycle(driver) + self.spec.d_func(driver.op.timing)
            cycles.add(driven + self._travel(driver, there, line))
        if len(cycles) > 1:
            what = f"%{value} is driven several times, and is at {line.queue} at cycles"
            raise self.source.error(line.at, f"{what} {', '.join(map(str, sorted(cycles)))}")
        return cycles.pop()

    def _drivers(self, chip: int, line: Line, value: str) -> list[Line]:
        found = self.drivers.get((chip, value), [])
        if not found:
            known = sorted({f"%{name}" for c, name in self.drivers if c == chip})
            what = f"nothing on chip {chip} drives %{value}"
            raise self.source.error(line.at, f"{what}; known: {', '.join(known) or 'none'}")
        return found

    def _travel(self, driver: Line, there: int, line: Line | None = None) -> int:
        """Cycles from the driver's position to another, in the direction of its stream."""
        here = locate(driver.queue, self.spec)[2]
        code = NO_STREAM if driver.op.driven is None else driver.args[driver.op.driven]
        if code is None or code >= STREAM_CODES or (here == there and driver.queue[:3] == "vxm"):
            if here != there:
                what = f"the result of {driver.op.name} stays in its unit"
                raise self.source.error((line or driver).at, what)
            return 0
        away = there - here if code < HALF else here - there
        if away <= 0:
            way = "east" if code < HALF else "west"
            target = f"{line.queue}" if line else "its target"
            what = f"{driver.queue} drives {way}ward, {target} does not lie there"
            raise self.source.error((line or driver).at, what)
        return away

    def _stream(self, chip: int, line: Line, index: int) -> int:
        """The stream, or ALU, on which a line finds a value."""
        codes = []
        for driver in self._drivers(chip, line, line.names[index]):
            driven = driver.op.driven
            code = NO_STREAM if driven is None else driver.args[driven]
            if driver.queue.startswith("vxm:") and line.queue.startswith("vxm:"):
                code = ALU_BASE + int(driver.queue.partition(":")[2])
            if code is None or code == NO_STREAM:
                what = f"%{line.names[index]} is on no stream: {driver.queue} keeps it"
                raise self.source.error(line.at, what)
            codes.append(code)
        width = line.op.operands[index]
        step = line.member if width.kind == "in" and width.dtype == "u8" else 0
        return min(codes) + step


def _numbers(line: Line) -> tuple[int, ...]:
    return tuple(value or 0 for value in line.args)


def _numbered(lines: Sequence[Line]) -> dict[str, int]:
    """A number for every value name of a chip; those that are numbers stay what they are."""
    names = dict.fromkeys(name for line in lines for name in line.names.values())
    found = {name: int(name) for name in names if name.isdecimal()}
    taken, free = set(found.values()), 1
    for name in names:
        if name not in found:
            while free in taken:
                free += 1
            found[name] = free
            taken.add(free)
    return found
