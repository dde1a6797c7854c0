"""What Ray needs of the host: a folder, quiet, our code, and nothing left behind."""

import logging
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ray.exceptions import RayActorError, RayError, RayTaskError

from cluster.errors import WorkerLost
from cluster.files import scratch_folder
from cluster.machines.ray import fork_worker
from cluster.machines.ray.shm_ring import ChannelClosed

log = logging.getLogger("lpu.ray")
FOLDERS = Path("/tmp")  # Ray keeps sockets there: their paths must be short
PREFIX = "lpu-ray-"
SHARED = Path("/dev/shm")
SEMAPHORE = re.compile(r"sem\.(?:hdr|obj)(\d+)-\d+")  # of a channel; the number is its raylet's


def new_folder() -> Path:
    """Make a folder for Ray's sockets and logs; those of processes that were killed are removed."""
    for left in FOLDERS.glob(f"{PREFIX}*-*"):
        owner = left.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdecimal() and not Path("/proc", owner).exists():
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=FOLDERS))


@contextmanager
def swept(folder: Path = SHARED) -> Iterator[None]:
    """Remove the semaphores of processes that end inside: Ray leaves those of its channels."""
    ours = {owner for _, owner in _semaphores(folder) if _runs(owner)}
    try:
        yield
    finally:
        for path, owner in _semaphores(folder):
            if owner in ours and not _runs(owner):
                path.unlink(missing_ok=True)


def _semaphores(folder: Path) -> list[tuple[Path, int]]:
    """Names of the semaphores of channels, and the processes that made them."""
    named = [(path, SEMAPHORE.fullmatch(path.name)) for path in folder.glob("sem.*")]
    return [(path, int(match[1])) for path, match in named if match]


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def note(data: Mapping[str, Any], ignore_prefix: bool = False) -> None:
    """Log what Ray would print, such as that it starts many workers: stdout is for our results."""
    log.info("%s", " ".join(data["lines"]))


def in_one_line(error: Exception) -> str:
    """An error's first line, and its last; Ray's have a dozen."""
    text = str(error).strip().splitlines() or ["lost"]
    return text[0] if len(text) == 1 else f"{text[0]} ... {text[-1].strip()}"


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hold back Ctrl-C: in the middle of Ray's start or end it would crash or leave processes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


@contextmanager
def our_code() -> Iterator[dict[str, Any]]:
    """Runtime environment that brings our packages along; a Ray job has brought them already.

    They travel side by side in one folder, as everywhere: that is how they know each other.
    """
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        yield {}
        return
    root = Path(__file__).resolve().parents[3]
    with scratch_folder("lpu-code-") as folder:
        for name in ("chip", "topology", "cluster"):
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(root / name, Path(folder, name), ignore=ignore)
        yield {"working_dir": folder}


def start_own(ray: Any, folder: Path, settings: Mapping[str, Any]) -> None:
    """Start a Ray of our own in `folder`, on loopback, with workers that fork; `ray` is Ray."""
    private = ray._private
    with loopback(private.ray_constants), forking(private.parameter), undisturbed():
        ray.init("local", include_dashboard=False, _temp_dir=str(folder), **settings)


@contextmanager
def forking(parameters: Any) -> Iterator[None]:
    """Make the Ray that starts inside ask the fork server in its folder for workers.

    `parameters` is Ray's module; with Ray's own script each worker imports Ray twice.
    """
    before = parameters.RayParams
    parameters.RayParams = partial(before, setup_worker_path=fork_worker.__file__)
    try:
        yield
    finally:
        parameters.RayParams = before


@contextmanager
def loopback(constants: Any) -> Iterator[None]:
    """Make the Ray that starts inside listen on 127.0.0.1 only; `constants` are its module.

    Ray turns a loopback `_node_ip_address` into the host's outer one; the switch that keeps it on
    loopback is the one for operating systems on which it is not meant to form clusters.
    """
    name = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    before = os.environ.get(name), constants.ENABLE_RAY_CLUSTER
    os.environ[name], constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before[1]
        if before[0] is None:
            del os.environ[name]
        else:
            os.environ[name] = before[0]


def lost(errors: Sequence[Exception], actors: int) -> WorkerLost:
    """The error of a machine of so many actors, from what calls to them have raised."""
    gone = [error for error in errors if isinstance(error, RayActorError)]
    names = f"{len(gone)} of {actors} actors died: " if gone else ""
    why = in_one_line(gone[0] if gone else errors[0])
    return WorkerLost("ray", names + why, "look into the Ray logs")


def first(errors: Sequence[Exception], actors: int) -> Exception:
    """Of what the calls of one launch have raised, what it was that the others failed by."""
    own = [error for error in errors if isinstance(error, RayTaskError)]
    causes: list[Exception] = [error.cause for error in own]
    for cause in causes:
        if not isinstance(cause, RayError | ChannelClosed):
            return cause
    return lost([error for error in errors if error not in own] or errors, actors)
