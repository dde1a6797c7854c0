"""The compiled path: what the chips of `chip.numerics` compute, by numba, with equal bits.

This is its one seam. A chip either interprets the nodes of a program, or plays what `chip.tape` has
made of them; numba is imported when first asked whether it can play. From the outside in:

    play                  runs the records of a program, one after another
    team                  shares the products of a run with helper threads
    words                 multiplies a word of weights with rows of x; tests 1 and 2 of their sums
    activations, weights  rows of x in shape; what the tests must know of rows and of words
    columns16, columns8   the inner loops, in LLVM; `vectors` and `halves` are what they are made of
    exact                 test 3: the sums that the others leave in doubt, in integers
    rows                  all other instructions: kernels for a row of lanes
    layout, memory        what records and the rest look like, without numba and with it
    cache                 compiles kernels and keeps them on disk

docs/fp16-product.md follows an fp16 product from its definition to the kernel.
"""

import functools
import os
import sys
from typing import Literal

from chip.jit.layout import GRAIN

Name = Literal["numpy", "compiled", "auto"]
_NAMES = ("numpy", "compiled", "auto")
_chosen: Name = "auto"


def set_backend(name: Name) -> None:
    """Choose how chips compute from now on; `auto` is compiled where numba and its cache work."""
    global _chosen
    if name not in _NAMES:
        raise ValueError(f"unknown numerics backend {name!r}: {', '.join(_NAMES)}")
    _chosen = name


def backend() -> Literal["numpy", "compiled"]:
    """How chips compute; loads the compiled code, and compiles it the first time ever."""
    if _chosen == "numpy":
        return "numpy"
    return "compiled" if _compiles(_chosen) else "numpy"


@functools.cache
def _compiles(chosen: Name) -> bool:
    try:
        import chip.jit.play  # noqa: F401
    except (ImportError, RuntimeError):
        if chosen == "compiled":
            raise
        return False
    return True


def plays(lanes: int) -> bool:
    """Whether chips of so many lanes play tapes; else they interpret nodes. Loads as `backend`."""
    return lanes % GRAIN == 0 and backend() == "compiled"


def set_threads(count: int) -> None:
    """Compute with so many threads from now on, also in a process that is a fork of another."""
    os.environ["NUMBA_NUM_THREADS"] = str(count)  # read when numba is imported
    if "numba" in sys.modules:
        sys.modules["numba"].config.reload_config()
    if "chip.jit.play" in sys.modules:
        sys.modules["chip.jit.play"].team.cache_clear()


def thread_count() -> int:
    """Threads that compiled code may keep busy; 1 besides those of a BLAS if there is none."""
    if backend() == "numpy":
        return 1
    from chip.jit.play import team

    return team().size
