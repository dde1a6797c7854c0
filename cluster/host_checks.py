"""What a host has for an emulator: each check says what it found, and what to do if it fails."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from chip.jit import backend
from cluster.errors import BadValue
from cluster.machines.ray import addresses
from cluster.model.fetch import GGUF_NAME, MINILM_FOLDER, cache_folder
from cluster.program_store import FOLDER

DISTRIBUTION = "lpu-cluster"
OLDEST_PYTHON = (3, 11)
MEMORY_BYTES, SHARED_BYTES, DISK_BYTES = 2 << 30, 300 << 20, 1 << 30
SHARED = Path("/dev/shm")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: `advice` says what to do where it is not `ok`."""

    name: str
    ok: bool
    found: str
    advice: str = ""


def checks(environment: Mapping[str, str] = os.environ) -> Iterator[Check]:
    """All of them, quick ones first; what is only advice is ok."""
    yield _python()
    yield _packages()
    yield _cores()
    yield _memory()
    yield _shared_memory()
    yield _kernels()
    yield _cache()
    yield _kept("costs of plans", "costs", "**/*.json", "`lpu plan` fills them")
    yield _kept("linked programs", FOLDER, "*", "`lpu run` keeps them")
    yield _kept("rows of sweeps", "", "sweeps.sqlite", "`lpu sweep` keeps them")
    yield from _models()
    yield _ray(environment)


def _python() -> Check:
    """Whether this Python is new enough."""
    found = ".".join(map(str, sys.version_info[:3]))
    oldest = ".".join(map(str, OLDEST_PYTHON))
    ok = sys.version_info >= OLDEST_PYTHON
    return Check("Python", ok, f"{found} at {sys.executable}", f"{oldest} or newer is needed")


def _packages() -> Check:
    """Whether what pip was to install is there."""
    try:
        wanted = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        return Check("packages", True, "run from a checkout that is not installed")
    names = [_name(one) for one in wanted if "extra ==" not in one]
    missing = [name for name in names if not _there(name)]
    found = f"{len(names) - len(missing)} of {len(names)} installed"
    return Check("packages", not missing, found, f"pip install {' '.join(missing)}")


def _name(requirement: str) -> str:
    """The name in a requirement.

    >>> _name("ray[default]>=2.40"), _name("numpy >=2.0 ; python_version > '3'")
    ('ray', 'numpy')
    """
    for sign in "[<>=!~; ":
        requirement = requirement.partition(sign)[0]
    return requirement


def _there(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def _cores() -> Check:
    """Processors for this process."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Check("cores", mine >= 1, f"{mine} of {os.cpu_count()}")


def _memory() -> Check:
    """Memory that is free, as Linux sees it."""
    free = _meminfo().get("MemAvailable")
    if free is None:
        return Check("memory", True, "not known on this system")
    wanted = f"smollm2 takes about 1 GiB; {MEMORY_BYTES / 2**30:.0f} GiB leave room for more chips"
    return Check("memory", free >= MEMORY_BYTES, f"{free / 2**30:.1f} GiB free", wanted)


def _meminfo() -> dict[str, int]:
    """/proc/meminfo in bytes; empty where there is none."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    parts = (line.split() for line in lines)
    return {part[0].rstrip(":"): int(part[1]) * 1024 for part in parts if len(part) > 1}


def _shared_memory() -> Check:
    """Room for Ray's object store and the channels between actors."""
    if not SHARED.is_dir():
        return Check("shared memory", True, "no /dev/shm: Ray takes files instead, and is slower")
    free = shutil.disk_usage(SHARED).free
    advice = "Ray wants more: in a container, --shm-size=1g"
    return Check("shared memory", free >= SHARED_BYTES, f"{free / 2**30:.1f} GiB free", advice)


def _kernels() -> Check:
    """Whether chips compute by compiled code."""
    how = backend()
    return Check("kernels", how == "compiled", how, "pip install numba: NumPy alone is slower")


def _cache() -> Check:
    """Whether what is fetched and found can be kept."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as trial:
            trial.write(b"\0")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check("cache", False, f"{folder}: {error.strerror}", "point LPU_CACHE elsewhere")
    advice = "make room, or point LPU_CACHE at another disk"
    return Check("cache", free >= DISK_BYTES, f"{folder}, {free / 2**30:.1f} GiB free", advice)


def _kept(name: str, folder: str, pattern: str, what: str) -> Check:
    """How much of something is in the cache."""
    files = list((cache_folder() / folder).glob(pattern))
    size = sum(path.stat().st_size for path in files)
    return Check(name, True, f"{size / 2**20:.1f} MiB" if files else f"none yet; {what}")


def _models() -> Iterator[Check]:
    """Which models that can be fetched are here."""
    for name, inside in (("smollm2", GGUF_NAME), ("minilm", MINILM_FOLDER)):
        here = next(cache_folder().rglob(inside), None) if cache_folder().is_dir() else None
        found = str(here) if here else f"not here yet; `lpu fetch {name}` downloads it"
        yield Check(f"model {name}", True, found)


def _ray(environment: Mapping[str, str]) -> Check:
    """Ray's version, and whether a cluster answers where the environment says there is one."""
    if not _there("ray"):
        return Check("Ray", False, "not installed", "pip install 'ray[default]'")
    installed = f"{version('ray')}"
    try:
        place = addresses.place(None, environment)
        if place is None or not place.listens():
            return Check("Ray", True, f"{installed}; --machine ray starts one of our own")
    except BadValue as error:
        return Check("Ray", False, installed, f"{error}; unset RAY_ADDRESS to start one here")
    return Check("Ray", True, f"{installed}; a cluster answers at {place.address}")
