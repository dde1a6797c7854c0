"""Instruction control: what a queue does between the instructions of its unit.

[ISCA20, Table 1] for NOP; [ISCA22, section on synchronous communication] for the deskews. The queue
`icu` is the start sequence of a program: it runs while all other queues are parked.
"""

import numpy as np
import numpy.typing as npt

from chip.errors import ChipError
from chip.isa.op import op


@op("icu.nop", "any", "count:int", "NOP N", steers="wait")
def nop(count: int) -> int:
    """Wait `count` cycles on this queue."""
    return count


@op("icu.deskew", "icu", "", "Deskew", steers="deskew")
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


@op("icu.sync", "any", "", "Sync", steers="park")
def sync() -> None:
    """Park this queue until the next Notify of any queue, in this cycle or later.

    The queue goes on `ChipSpec.barrier_cycles` after that Notify.
    """


@op("icu.notify", "any", "", "Notify", steers="notify")
def notify() -> None:
    """Release all parked queues of the chip; this queue itself goes on in the next cycle."""


@op("icu.config", "any", "lanes:int", "Config")
def config(lanes: int) -> int:
    """From the next instruction of this queue on, work with the first `lanes` lanes only.

    16 to 320 in steps of a superlane; the others are powered down: nothing is read from them,
    driven on them, written or sent (as zeros) there. At its start a program has all lanes.
    """
    return lanes


@op("icu.ifetch", "any", "a:in.u8", "Ifetch", role="fetch")
def ifetch(a: npt.NDArray[np.uint8], image: npt.NDArray[np.uint8]) -> None:
    """Take the next 20 instructions of this queue, 16 B each, off the stream that passes.

    The queue's instructions must be what arrives: others are an error (ChipError). Programs
    without Ifetch are preloaded, and refilled in ways hidden from the schedule.
    """
    wrong = np.argwhere(a != image)
    if len(wrong):
        vector, lane = (int(n) for n in wrong[0])
        raise ChipError(
            f"Ifetch: vector {vector} has byte {int(a[vector, lane])} in lane {lane}, where the "
            f"queue's instructions have {int(image[vector, lane])}; "
            "fetch what chip.program.fetch_image gives"
        )
