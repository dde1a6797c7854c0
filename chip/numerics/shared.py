"""Passes shared by threads: a job is the address of a function and what that wants to know.

See `chip.numerics.team` for the threads.
"""

from typing import Any

import numba

from chip.numerics.team import (
    DONE,
    JOB,
    LATE_SPINS,
    STOP,
    await_piece,
    call,
    idle,
    load,
    publish,
    store,
    take,
)

LATE = 1 << 62
FUNCTION, PIECES, WORDS = 0, 1, 10  # of a job; the function is given the job's address and a piece


def _lead(control: Any, job: Any, pieces: Any) -> Any:
    """Run a pass, with helpers if it has several pieces; return its count.

    If some helper was late and may still be writing the same results, the count is LATE more.
    """
    if pieces == 1:
        return call(job[FUNCTION], job.ctypes.data, 0)
    publish(control, job, pieces)
    count, late = 0, 0
    while True:
        number = take(control)
        if number < 0:
            break
        store(control, DONE + number, 1 + call(job[FUNCTION], job.ctypes.data, number))
    for number in range(pieces):
        if await_piece(control, number, 1 if late else LATE_SPINS):
            count += load(control, DONE + number) - 1
        else:
            count, late = count + call(job[FUNCTION], job.ctypes.data, number), LATE
    return count + late


def _serve(control: Any) -> None:
    """Help with the passes of others until there have been none for long."""
    rounds = 0
    while load(control, STOP) == 0:
        number = take(control)
        if number >= 0:
            place = control.ctypes.data + 8 * JOB
            store(control, DONE + number, 1 + call(control[JOB + FUNCTION], place, number))
            rounds = 0
        elif idle(rounds):
            break
        else:
            rounds += 1


lead = numba.njit(nogil=True)(_lead)
serve = _serve
