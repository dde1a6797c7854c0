"""What the instructions of a chip's programs take of its SRAM.

A queue is fed by fetches of a block each, from wherever the block rests. So blocks that programs
have in common rest once: those of further sequences differ from the first one's in the addresses
of caches, and in little else.
"""

from chip.program import Program, Queues


class ProgramText:
    """Blocks of instructions at rest in the SRAM of a chip."""

    def __init__(self) -> None:
        self.instructions = 0
        self._known: set[int] = set()

    def add(self, program: Program | Queues) -> int:
        """Instructions of a further program that do not rest here already; waits count as none."""
        listing = program.listing if isinstance(program, Program) else program
        new = {key: count for key, count in listing.blocks.items() if key not in self._known}
        self._known.update(new)
        self.instructions += sum(new.values())
        return sum(new.values())
