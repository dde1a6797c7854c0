"""Compile kernels and keep them on disk, for exactly these sources and this kind of processor."""

import zlib
from pathlib import Path
from typing import Any

import numba

# numba looks only at the file of the kernel itself to tell whether a cached one is stale. With all
# files that kernels are made of in the name, a change to any of them makes another kernel.
_NO_KERNELS = ("__init__", "convert", "fp16", "fp8", "functions", "int8", "playing")
_SOURCES = sorted(p for p in Path(__file__).parent.glob("*.py") if p.stem not in _NO_KERNELS)
_KEPT: list[Any] = []  # what addresses lead to
_FINGERPRINT = zlib.crc32(b"".join(path.read_bytes() for path in _SOURCES))


def cached(function: Any, signature: Any) -> Any:
    """Return a function compiled for one signature; it runs without the GIL."""
    function.__qualname__ += f"_{_FINGERPRINT:08x}"
    return numba.njit(signature, nogil=True, cache=True, error_model="numpy")(function)


def address(function: Any, signature: Any) -> int:
    """Return the address of a function compiled and kept like that, for `team.call`.

    A function that is called by its address is compiled once, and not again inside every caller.
    """
    function.__qualname__ += f"_{_FINGERPRINT:08x}"
    compiled: Any = numba.cfunc(signature, cache=True, error_model="numpy")(function)
    _KEPT.append(compiled)
    return int(compiled.address)
