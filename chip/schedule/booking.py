"""A chain that has its place, and the instructions that follow from that."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from chip.program import Instruction
from chip.schedule.flows import Further, Need, Piece
from chip.schedule.footprint import PORTS, Elsewhere


class Booking(NamedTuple):
    """Pieces and needs of a chain from `start` on, with what was chosen for each need.

    `base` has the last name given before, by member; each access of the chain may be `further` on,
    and it may be for members `there`.
    """

    label: str
    pieces: list[Piece]
    needs: list[Need]
    start: int
    chosen: list[int]
    base: dict[int, int]
    further: Sequence[Further]
    there: Elsewhere | None = None

    def instructions(self) -> Iterator[tuple[int, str, int, Instruction]]:
        """(member, queue, cycle, instruction) of all pieces."""
        for piece in self.pieces:
            member = self._member(piece)
            for queue, cycle, instruction in self._finished(piece):
                yield member, queue, cycle + self.start, instruction

    def by_kind(self, times: int) -> Iterator[tuple[int, str, int, Instruction, int]]:
        """The first of each piece, and how many do the same: neighbours, rows, further `times`."""
        for piece in self.pieces:
            queue, cycle, instruction = next(self._finished(piece))
            alike = len(piece.cycles) * len(piece.apart) * times
            yield self._member(piece), queue, cycle + self.start, instruction, alike

    def _member(self, piece: Piece) -> int:
        return self.there.members[piece.member] if self.there else piece.member

    def _finished(self, piece: Piece) -> Iterator[tuple[str, int, Instruction]]:
        """(queue, cycle, instruction) once the scheduler has chosen streams and queues."""
        args, needs, chosen, base = list(piece.args), self.needs, self.chosen, self.base
        for operand, (need, offset) in piece.needs.items():
            args[operand] = chosen[need] + offset
        moved = self.further[piece.access].words if piece.op.startswith("mem.") else None
        address = None if moved is None else args[0] + moved
        first = piece.unit if piece.unit_need is None else chosen[piece.unit_need]
        if self.there and piece.family in PORTS:
            first = self.there.ports[piece.member, first]
        names = tuple(base[piece.member] + name if name else 0 for name in piece.names)
        for later, words in piece.apart:
            for unit, cycle in enumerate(piece.cycles, first):
                if piece.spread:
                    operand, need, plane = piece.spread
                    args[operand] = chosen[need] + (unit - first + plane) % needs[need].width
                if address is not None:
                    args[0] = address + words
                instruction = Instruction(piece.op, tuple(args), piece.loops, names)
                yield f"{piece.family}:{unit}", cycle + later, instruction
