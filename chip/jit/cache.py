"""Compile kernels and keep them on disk, for exactly these sources and this kind of processor.

They are kept per user and not beside the sources: a checkout, a wheel, and the copies of either
that Ray makes for its jobs and actors share them, and only the first process of a host compiles.
"""

import functools
import os
import re
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self, TypeVar

import numba
from llvmlite import binding as llvm  # type: ignore[import-untyped]

try:
    import fcntl
except ImportError:  # not Unix: several processes may compile the same kernel, each for itself
    fcntl = None  # type: ignore[assignment]

from chip.jit.layout import Untyped

Function = TypeVar("Function", bound=Callable[..., object])
# numba looks only at the file of the kernel itself to tell whether a cached one is stale. With all
# files that kernels are made of in the name, a change to any of them makes another kernel.
_CHIP = Path(__file__).parent.parent
SOURCES = [
    *sorted((_CHIP / "jit").glob("*.py")),
    *(_CHIP / "numerics" / f"{name}.py" for name in ("elementwise", "exact", "products")),
    _CHIP / "isa" / "vxm.py",
]
_KEPT: list[Untyped] = []  # what addresses lead to
_USED, KEPT_S = "used", 7 * 86_400  # days that kernels are kept for
_OF_SOURCES = re.compile("_([0-9a-f]{8})-")  # in names of files
_FINGERPRINT = f"{zlib.crc32(b''.join(path.read_bytes() for path in SOURCES)):08x}"


def address(function: Callable[..., object], signature: Untyped) -> int:
    """The address of a function compiled for one signature and kept on disk."""
    with kept(function):
        compiled: Untyped = numba.cfunc(signature, cache=True, error_model="numpy")(function)
    _KEPT.append(compiled)
    return int(compiled.address)


def kernel(signature: Untyped) -> Callable[[Function], Function]:
    """Compile a function that others call by its name.

    It is compiled once and kept on disk, and not again inside of every caller.
    """

    def made(function: Function) -> Function:
        symbol = f"lpu_{function.__name__}"
        llvm.add_symbol(symbol, address(function, signature))
        external: Untyped = numba.types.ExternalFunction(symbol, signature)
        found: Function = external
        return found

    return made


class KernelFolder:
    """Where numba keeps kernels, unless NUMBA_CACHE_DIR says otherwise; a locator of its cache."""

    def __init__(self, function: Untyped) -> None:
        self._line = function.__code__.co_firstlineno

    @classmethod
    def from_function(cls, function: Untyped, _file: str) -> Self | None:
        """The locator of a function; None where there is no place for it, so that numba looks."""
        return cls(function) if _folder() else None

    def get_cache_path(self) -> str:
        """The folder."""
        return str(_folder())

    def ensure_cache_path(self) -> None:
        """Make the folder: it is there."""

    def get_source_stamp(self) -> str:
        """What a kernel is made of."""
        return _FINGERPRINT

    def get_disambiguator(self) -> str:
        """What tells functions of one name apart."""
        return str(self._line)


_LOCATORS = f"{__name__}.{KernelFolder.__name__},InTreeCacheLocator,UserWideCacheLocator"


def _folder() -> Path | None:
    """The folder of kernels of this numba; None if it cannot be made or written."""
    own, shared = os.environ.get("LPU_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        home = Path(own or Path(shared or "~/.cache", "lpu")).expanduser()
        folder = home / "kernels" / f"numba-{numba.__version__}"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        return None
    return folder if os.access(folder, os.W_OK) else None


@contextmanager
def kept(function: Untyped) -> Iterator[None]:
    """Keep what is compiled inside in our folder; one process of a host compiles, others wait."""
    function.__qualname__ += f"_{_FINGERPRINT}"
    config: Untyped = numba.config
    before = config.CACHE_LOCATOR_CLASSES
    if not (before or config.CACHE_DIR):
        config.CACHE_LOCATOR_CLASSES = _LOCATORS
    try:
        with _alone(function.__qualname__):
            yield
    finally:
        config.CACHE_LOCATOR_CLASSES = before


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Hold a lock of this user's while a kernel of that name has yet to be compiled."""
    folder = _folder()
    if folder is not None:
        _note_use(folder)
    if fcntl is None or folder is None or any(folder.glob(f"*.{name}-*.nbc")):
        yield
        return
    _drop_unused(folder)
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back when the file is closed
        yield


@functools.cache
def _note_use(folder: Path) -> None:
    """Say once in a process that kernels of these sources are in use."""
    with suppress(OSError):
        (folder / f"{_USED}_{_FINGERPRINT}-").touch()


@functools.cache
def _drop_unused(folder: Path) -> None:
    """Remove kernels of other sources that no process has begun with for days.

    Where one runs beside us all the same, what it has loaded it keeps, and what it misses it
    compiles: to numba a file that is not there is a kernel that was never made.
    """
    files: dict[str, list[Path]] = {}
    for path in folder.iterdir():
        if found := _OF_SOURCES.search(path.name):
            files.setdefault(found[1], []).append(path)
    files.pop(_FINGERPRINT, None)
    for some in files.values():
        with suppress(OSError):  # another process removes them as well
            if max(path.stat().st_mtime for path in some) < time.time() - KEPT_S:
                for path in some:
                    path.unlink(missing_ok=True)
