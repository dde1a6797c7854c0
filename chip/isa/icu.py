"""Instruction control: what a queue does between the instructions of its unit.

[ISCA20, Table 1] for NOP; [ISCA22, section on synchronous communication] for the deskews. The queue
`icu` is the start sequence of a program: it runs while all other queues are parked.
"""

from chip.isa.op import op


@op("icu.nop", "any", "count:int", "NOP N")
def nop(count: int) -> int:
    """Wait `count` cycles on this queue."""
    return count


@op("icu.deskew", "icu", "", "Deskew")
def deskew(hac: int, period: int) -> int:
    """Stop issue until the hardware aligned counter (HAC) overflows next: the epoch boundary."""
    return period - hac


@op("icu.runtime_deskew", "any", "stall:int", "Runtime deskew t")
def runtime_deskew(stall: int) -> int:
    """Stall `stall` cycles, give or take what brings the program's counter (SAC) back to the HAC.

    Every queue in use holds it in the same cycle, and nothing is under way then. On the time axis
    of a schedule it takes its nominal stall.
    """
    return stall
