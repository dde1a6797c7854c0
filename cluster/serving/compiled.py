"""The rules as numba compiles them: of the same functions that Python runs."""

import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

from cluster.serving.core import heaps, play, slots, steps, wants

MODULES = (wants, heaps, slots, steps, play)


@cache
def compiled_play() -> Callable[..., bool]:
    """`play`, compiled once and kept on disk; or as it stands, where numba is not installed."""
    try:
        from chip.jit.cache import kept
    except ImportError:
        return play.play
    sources = b"".join(Path(module.__file__ or "").read_bytes() for module in MODULES)
    fingerprint = f"{zlib.crc32(sources):08x}"
    scope: dict[str, Any] = {}  # of all functions: each finds the others compiled
    for module in MODULES:
        scope |= vars(module)
    for module in MODULES:
        for name, function in vars(module).items():
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                copy = FunctionType(function.__code__, scope, name)
                copy.__qualname__ = f"{name}_{fingerprint}"
                with kept(copy):
                    scope[name] = _lazily(copy, inner=function is not play.play)
    found: Callable[..., bool] = scope["play"]
    return found


def _lazily(function: Any, inner: bool) -> Any:
    """Compiled for the types it is first called with; unless `inner`, Python can call it.

    It counts no references: its arrays are those of its caller, and it makes none.
    """
    import numba

    njit: Any = numba.njit  # whose types do not know all of its options
    found = njit(
        cache=True, nogil=True, error_model="numpy", _nrt=False, no_cpython_wrapper=inner,
        no_cfunc_wrapper=True,
    )(function)  # fmt: skip
    # or it would be compiled again for each constant that it is given
    chosen, unliteral = found.get_call_template, numba.types.unliteral
    found.get_call_template = lambda args, kws: chosen(tuple(map(unliteral, args)), kws)
    return found
