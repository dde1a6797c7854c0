"""Chips on Ray actors. The only file that imports Ray.

The driver submits one call per batch of segments, in an order in which every packet exists before
it is needed; arguments and returns are bundles of packets, as ObjectRefs. It never waits inside a
launch, and nothing waits inside an actor.
"""

import os
import shutil
import signal
import socket
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from chip.board import Facts, Wiring
from chip.core import Array
from chip.group import Batch, batches
from chip.own_spec import identity
from cluster.chip_host import ChipHost, replies
from cluster.errors import BadValue, MachineError
from cluster.grouping import Constant, actor_name, chunks, grouped
from cluster.loadable import Loadable
from cluster.machine import (
    LINKING,
    STARTING,
    Inputs,
    Progress,
    Result,
    check_cycles,
    counted_constants,
)

OBJECT_STORE_BYTES = 256 << 20
WEIGHT_FLIGHT_BYTES = 64 << 20  # of all unfinished calls that bring weights
WAVE_TIMEOUT_S, KNOCK_TIMEOUT_S = 300.0, 10.0


class RayMachine:
    """One actor per `chips_per_actor` chips, on the cluster at `address` or one of our own."""

    name = "ray"

    def __init__(self, chips_per_actor: int = 1, address: str | None = None) -> None:
        self._pack, self._address = chips_per_actor, address
        self._ours = False
        self._folder: Path | None = None
        self._actors: list[Any] = []
        self._groups: list[list[int]] = []
        self._names: list[str] = []
        self._wirings: dict[str, Wiring] = {}
        self._batches: dict[str, tuple[Batch, ...]] = {}

    @property
    def actors(self) -> int:
        """Worker processes besides this one."""
        return len(self._actors)

    # --- load -------------------------------------------------------------------------------
    def load(self, lowered: Loadable, progress: Progress) -> None:
        """Start Ray and the actors; link programs and store constants there."""
        self._groups = grouped(lowered, self._pack)
        self._names = [actor_name(lowered, group) for group in self._groups]
        progress(STARTING, 0, len(self._groups))
        if not ray.is_initialized():
            self._connect()
        self._start(identity(lowered.plan.spec), progress)
        self._wirings = check_cycles(lowered, self._link(lowered, progress))
        self._prepare()
        self._store(counted_constants(lowered, progress))

    def _connect(self) -> None:
        self._ours = True
        for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
            os.environ.setdefault(name, "0")  # no reports to anyone; no warning about GPUs
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        address = self._address or os.environ.get("RAY_ADDRESS")
        if address:
            try:
                _knock(address)
                with _undisturbed():
                    ray.init(address, runtime_env=_our_code(), **quiet)
            except (OSError, ValueError, RuntimeError, RayError) as error:
                raise BadValue("--address", address, f"no Ray cluster there: {error}") from None
            return
        self._folder = Path(tempfile.mkdtemp(prefix="lpu-ray-", dir="/tmp"))  # sockets: short paths
        with _loopback(), _undisturbed():
            ray.init(
                "local",
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=str(self._folder),
                **quiet,
            )

    def _start(self, spec: str, progress: Progress) -> None:
        """Start the actors in waves; each answers before the next wave starts."""
        remote = ray.remote(ChipHost)
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        wave = max(4, 2 * int(resources.get("CPU", 2)))
        total = len(self._groups)
        for first in range(0, total, wave):
            for number in range(first, min(first + wave, total)):
                actor = remote.options(num_cpus=0, name=self._names[number])
                self._actors.append(actor.remote(self._groups[number], spec))
            waiting = [actor.ready.remote() for actor in self._actors[first:]]
            while waiting:
                done, waiting = ray.wait(waiting, timeout=WAVE_TIMEOUT_S)
                self._get(done)
                if not done:
                    missing = f"{len(waiting)} of {total} actors do not come up"
                    raise MachineError("ray", missing, "free memory, or use --chips-per-actor")
                progress(STARTING, len(self._actors) - len(waiting), total)

    def _link(self, lowered: Loadable, progress: Progress) -> dict[str, dict[int, Facts]]:
        mine: list[list[tuple[str, int, bytes]]] = []
        for group in self._groups:
            mine.append(
                [
                    (name, chip, launch.programs[chip])
                    for name, launch in lowered.launches.items()
                    for chip in group
                    if chip in launch.programs
                ]
            )
        calls = [actor.load.remote(p) for actor, p in zip(self._actors, mine, strict=True)]
        known: dict[str, dict[int, Facts]] = {name: {} for name in lowered.launches}
        progress(LINKING, 0, len(calls))
        for done, (call, programs) in enumerate(zip(calls, mine, strict=True), start=1):
            for (name, chip, _), facts in zip(programs, self._get(call), strict=True):
                known[name][chip] = facts
            progress(LINKING, done, len(calls))
        return known

    def _prepare(self) -> None:
        group_of = {chip: n for n, group in enumerate(self._groups) for chip in group}
        self._batches = {name: batches(w, group_of) for name, w in self._wirings.items()}
        calls = []
        for number, actor in enumerate(self._actors):
            mine = {
                name: [batch for batch in all_batches if batch.group == number]
                for name, all_batches in self._batches.items()
            }
            calls.append(actor.prepare.remote(mine))
        self._get(calls)

    def _store(self, constants: Iterable[Constant]) -> None:
        """Stream constants to the actors, a bounded number of bytes in flight."""
        group_of = {chip: n for n, group in enumerate(self._groups) for chip in group}
        flight: deque[tuple[Any, int]] = deque()
        flying = 0
        for number, chunk in chunks(constants, group_of):
            size = sum(values.nbytes for _, _, values in chunk)
            while flight and flying + size > WEIGHT_FLIGHT_BYTES:
                call, landed = flight.popleft()
                self._get(call)
                flying -= landed
            flight.append((self._actors[number].write.remote(chunk), size))
            flying += size
        self._get([call for call, _ in flight])

    # --- run --------------------------------------------------------------------------------
    def launch(self, name: str, inputs: Inputs) -> Result:
        """Submit all batches of a launch in order, then wait for what the actors are left with."""
        flying: dict[tuple[int, int], Any] = {}
        waiting, last = [], []
        begun: set[int] = set()
        for batch in self._batches[name]:
            mine = None
            if batch.group not in begun:
                begun.add(batch.group)
                mine = {chip: inputs[chip] for chip in self._groups[batch.group] if chip in inputs}
            bundles = [flying.pop((source, batch.index)) for source, _ in batch.inbox]
            method = self._actors[batch.group].run.options(num_returns=replies(batch))
            reply = method.remote(name, batch.index, mine, *bundles)
            returned = reply if isinstance(reply, list) else [reply]
            for (target, _), bundle in zip(batch.outbox, returned, strict=False):
                flying[batch.index, target] = bundle
            if batch.last:
                last.append(returned[-1])
            elif not batch.outbox:
                waiting.append(returned[0])
        self._get(waiting)
        outputs: dict[int, dict[str, Array]] = {}
        digests: dict[int, bytes] = {}
        for finished in self._get(last):
            outputs |= finished.outputs
            digests |= finished.digests
        return Result(outputs, self._wirings[name].end_cycle, digests)

    def worker_bytes(self) -> int:
        """Peak memory of all actors together."""
        return sum(self._get([actor.memory.remote() for actor in self._actors]))

    def _get(self, refs: Any) -> Any:
        """ray.get, with errors raised in actors as themselves and Ray's own as one line."""
        try:
            return ray.get(refs)
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            text = str(error).strip().splitlines()
            first = text[0] if text else type(error).__name__
            raise MachineError("ray", first, "look into the Ray logs") from None

    # --- end --------------------------------------------------------------------------------
    def close(self) -> None:
        """End the actors; also Ray, where we have started it."""
        actors, self._actors = self._actors, []
        with _undisturbed():
            if ray.is_initialized():
                for actor in actors:
                    ray.kill(actor)
                if self._ours:
                    ray.shutdown()
            if self._folder:
                shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def _loopback() -> Iterator[None]:
    """Make what starts inside listen on 127.0.0.1 only.

    Ray turns a loopback `_node_ip_address` into the host's outer one; the switch that keeps it on
    loopback is the one for operating systems on which it is not meant to form clusters.
    """
    name, constants = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", ray._private.ray_constants
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


@contextmanager
def _undisturbed() -> Iterator[None]:
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


def _knock(address: str) -> None:
    """Raise OSError when nothing listens at `host:port`; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=KNOCK_TIMEOUT_S).close()


def _our_code() -> dict[str, Any]:
    """Runtime environment that brings our packages along; a Ray job has brought them already."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return {}
    root = Path(__file__).resolve().parent.parent
    return {"py_modules": [str(root / name) for name in ("chip", "topology", "cluster")]}
