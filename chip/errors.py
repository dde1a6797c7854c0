"""Everything a chip, its programs or its linker can reject.

Fields are positional, and formatted only in `__str__`, so every error survives pickling.
"""

from difflib import get_close_matches


class ChipError(Exception):
    """Base of all errors of the chip package."""


class ProgramError(ChipError):
    """A malformed program: unknown op, bad operand, corrupt bytes. One line says what and where."""

    def __init__(self, what: str, where: str = "") -> None:
        super().__init__(what, where)
        self.what, self.where = what, where

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class PoolFull(ProgramError):
    """Messages find no room where they land: fewer rows at a time take less."""


class SpecError(ChipError):
    """A chip that cannot be: which field, its value, and the rule it breaks."""

    def __init__(self, chip: str, field: str, value: object, rule: str) -> None:
        super().__init__(chip, field, value, rule)
        self.chip, self.field, self.value, self.rule = chip, field, value, rule

    def __str__(self) -> str:
        return f"chip {self.chip}: {self.field} = {self.value!r} {self.rule}"


class UnknownChip(ChipError):
    """A chip name that is not in the table."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(name, known)
        self.name, self.known = name, known

    def __str__(self) -> str:
        near = get_close_matches(self.name.lower(), self.known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(self.known)}"
        return f"unknown chip {self.name!r}; {hint}"


class HazardError(ChipError):
    """A program that breaks the chip's static contract: rejected when it is linked.

    Carries the chip, the queue, the cycle, the instruction text and the story: the instructions
    that lead to it, oldest first.
    """

    rule = "hazard"

    def __init_subclass__(cls) -> None:
        cls.rule = (cls.__doc__ or cls.__name__).rstrip(".")

    def __init__(
        self,
        chip: int,
        queue: str,
        cycle: int,
        instruction: str,
        detail: str,
        story: tuple[str, ...] = (),
    ) -> None:
        super().__init__(chip, queue, cycle, instruction, detail, story)
        self.chip, self.queue, self.cycle = chip, queue, cycle
        self.instruction, self.detail, self.story = instruction, detail, story

    def __str__(self) -> str:
        head = (
            f"{self.rule}: chip {self.chip} queue {self.queue} cycle {self.cycle}: "
            f"{self.instruction}: {self.detail}"
        )
        return "\n  after ".join([head, *self.story]) if self.story else head


class QueueConflict(HazardError):
    """Two issues on one queue in a cycle."""


class EmptyStream(HazardError):
    """Reading a diagonal nobody drives."""


class StreamConflict(HazardError):
    """Two drivers of one slot."""


class Overwritten(HazardError):
    """Value overwritten before its named reader."""


class BankConflict(HazardError):
    """Both ports of a bank in one cycle."""


class AddressError(HazardError):
    """Address out of range."""


class Misaligned(HazardError):
    """Misaligned stream group or wrong type."""


class WeightsMissing(HazardError):
    """ABC before IW, or IW before LW is complete."""


class WeightsInUse(HazardError):
    """LW over weights still in use."""


class WeightsMistyped(HazardError):
    """Planes hold weights of another type."""


class AccumulatorEmpty(HazardError):
    """Adding to an accumulator that was never set."""


class RateExceeded(HazardError):
    """Unit used faster than its rate."""


class PortBusy(HazardError):
    """Send on a busy port."""


class NothingArrives(HazardError):
    """Receive with nothing arriving at that cycle."""


class ConstantWritten(HazardError):
    """Write into a constant region."""


class NeverNotified(HazardError):
    """Sync that no Notify releases."""


class LanesOff(HazardError):
    """Reading lanes that are powered down."""


class OrderError(HazardError):
    """Iterations of two instructions depend on each other both ways."""


class OutOfStep(HazardError):
    """Start sequence out of step with the epochs or with its program."""


class DeskewMismatch(HazardError):
    """Runtime deskew that not every queue holds in the same cycle."""


class DeskewOverlap(HazardError):
    """Instruction or value under way in a Runtime deskew."""


class DeskewOverdue(HazardError):
    """Instruction longer after the last deskew than the clocks allow."""


class ProgramsTooLarge(ChipError):
    """The chip's programs, which live in SRAM, do not fit beside its data."""


class EccError(ChipError):
    """Two flipped bits in a word: detected by its consumer, beyond correction.

    `where` names the slice, address and superlane, or the stream register, of the flips.
    """

    def __init__(self, chip: int, where: str, consumer: str, detail: str) -> None:
        super().__init__(chip, where, consumer, detail)
        self.chip, self.where, self.consumer, self.detail = chip, where, consumer, detail

    def __str__(self) -> str:
        return f"uncorrectable: chip {self.chip} {self.where}: {self.consumer}: {self.detail}"


class AssemblyError(ChipError):
    """Assembly text that makes no program: file, line and column (from 1), and what is wrong."""

    def __init__(self, path: str, line: int, column: int, what: str) -> None:
        super().__init__(path, line, column, what)
        self.path, self.line, self.column, self.what = path, line, column, what

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.what}"
