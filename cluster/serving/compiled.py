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
    """`play`, compiled; or as it stands, where numba is not installed."""
    try:
        from chip.jit.cache import lazily
    except ImportError:
        return play.play
    sources = b"".join(Path(module.__file__ or "").read_bytes() for module in MODULES)
    scope: dict[str, Any] = {}  # of all functions: each finds the others compiled
    for module in MODULES:
        scope |= vars(module)
    for module in MODULES:
        for name, function in vars(module).items():
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                copy = FunctionType(function.__code__, scope, name)
                scope[name] = lazily(copy, f"{zlib.crc32(sources):08x}")
    found: Callable[..., bool] = scope["play"]
    return found
