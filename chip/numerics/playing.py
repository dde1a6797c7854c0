"""Runs tapes with the helper threads of the compiled backend."""

from typing import Any

import numpy as np

from chip.numerics.backend import make_backend
from chip.numerics.exact import Int64
from chip.numerics.tape import FUNCTIONS, run_tape

_ALONE = np.zeros(1, np.int64)


def play(parts: Int64, scratch: Any, spare: Any, owner: Any) -> tuple[int, int, bool]:
    """Run tapes; see `chip.numerics.tape`. `owner` keeps all that they point to.

    Returns the part and record that failed, or -1, and whether the scratch buffers must not be
    used again, as a helper that came late may still write there.
    """
    team = make_backend("compiled").team  # type: ignore[attr-defined]
    buffers = (scratch.ctypes.data, spare.ctypes.data)
    with team.helpers(2) as control:
        if control is None:
            part, record, _ = run_tape(parts, FUNCTIONS, _ALONE, 1, *buffers)
            return part, record, False
        part, record, late = run_tape(parts, FUNCTIONS, control, team.size, *buffers)
        if late:
            team.abandon(late, (scratch, parts, owner))
        return part, record, bool(late)
