"""A process that has imported what an actor needs and linked its programs; actors fork from it.

Their memory is its memory until they write to it, and none of them imports or links anything. It
lives as long as the process that has started it, and serves the workers of one Ray on one host.
"""

import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

from chip.errors import ChipError, ProgramError
from chip.jit import plays
from chip.spec import GROQCHIP1
from chip.tape import Player
from cluster.machines.ray.chip_host import LINKER
from cluster.machines.ray.fork_worker import SOCKET

LENGTH_BYTES = 8  # before what is asked and answered
LINK, TAKE, PACK = b"l", b"t", b"p"  # before that: what is asked
DONE = b"+"
# One thread for an actor's BLAS, one heap for all its threads; and no pages of 2 MiB for NumPy's
# arrays, of which a chip's SRAM would fill one for each kilobyte in use here and there.
LEAN = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_ARENA_MAX"), "1")
LEAN["NUMPY_MADVISE_HUGEPAGE"] = "0"
ROOT = Path(__file__).resolve().parents[3]
Request = tuple[list[str], str, dict[str, str]]  # command, folder, environment


def can_fork() -> bool:
    """Whether a process that has imported Ray, with its threads, can be forked here."""
    return sys.platform == "linux"


class ForkServer:
    """The server of a Ray whose folder is `folder`, as its driver sees it."""

    def __init__(self, folder: Path, modules: Sequence[str]) -> None:
        """Start it; `modules` are imported before the first fork, with the settings of a worker."""
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        with socket.socket(socket.AF_UNIX) as listener, (folder / "forks.err").open("wb") as errors:
            listener.bind(str(folder / SOCKET))
            listener.listen(socket.SOMAXCONN)  # workers wait there until the server is ready
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(listener.fileno()), *modules],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=os.environ | LEAN | {"PYTHONPATH": paths},
                pass_fds=[listener.fileno()],
                cwd=folder,
                start_new_session=True,  # Ctrl-C of a terminal is for the driver
            )

    def link(self, program: bytes) -> None:
        """Link a program (msgpack); one that is refused is left to its actor, to say why."""
        self._ask(LINK, program)

    def take(self, data: bytes) -> None:
        """As that of the server's linker."""
        if not self._ask(TAKE, data):
            raise ProgramError("corrupt data")

    def pack(self) -> bytes:
        """As that of the server's linker; nothing if it is gone."""
        return self._ask(PACK, b"")

    def _ask(self, what: bytes, data: bytes) -> bytes:
        """The answer; none if it is gone, as then workers start as Ray's do."""
        asked, answered = self._process.stdin, self._process.stdout
        assert asked is not None and answered is not None, "they are pipes"
        try:
            asked.write(what + len(data).to_bytes(LENGTH_BYTES, "big") + data)
            asked.flush()
        except BrokenPipeError:
            return b""
        return answered.read(int.from_bytes(answered.read(LENGTH_BYTES), "big"))

    def close(self) -> None:
        """End the server; its workers are Ray's and go on."""
        self._process.kill()
        self._process.communicate()


def serve(socket_number: int, modules: Sequence[str]) -> Request:
    """Link programs from stdin and fork workers; returns in a worker, with its request."""
    plays(GROQCHIP1.lanes)
    with socket.socket(fileno=socket_number) as listener:
        while True:
            ready, _, _ = select.select([0, socket_number], [], [])
            if 0 in ready:
                _answer(sys.stdin.buffer)
            elif (request := _forked(listener, modules)) is not None:
                return request


def _answer(asked: BinaryIO) -> None:
    """Link a program and write its tapes, or take or pack many; ends with its driver."""
    what, size = asked.read(1), asked.read(LENGTH_BYTES)
    if not size:
        os._exit(0)
    data, answer = asked.read(int.from_bytes(size, "big")), b""
    with suppress(ChipError):  # the actor that is given it will say so
        if what == LINK:
            Player.encode(LINKER(data))
        elif what == TAKE:
            LINKER.take(data)
            answer = DONE
        else:
            answer = LINKER.pack()
    with open(1, "wb", closefd=False) as out:
        out.write(len(answer).to_bytes(LENGTH_BYTES, "big") + answer)


def _forked(listener: socket.socket, modules: Sequence[str]) -> Request | None:
    """The request of a worker, in that worker; None in the server."""
    connection, _ = listener.accept()
    with connection:
        data = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        command, folder, environment = json.loads(data)
        if not sys.modules.keys() >= set(modules):
            os.environ.update(environment)  # Ray reads its settings when it is imported
            for name in modules:
                import_module(name)
        gc.collect()
        gc.freeze()  # or its first collection would write to all objects of a worker
        if os.fork():
            with suppress(OSError):  # who asked has been killed meanwhile
                connection.send(DONE)
            return None
    return command, folder, environment


def become(command: list[str], folder: str, environment: dict[str, str]) -> None:
    """Go on as the worker of a request."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nowhere, standard)  # Ray opens its logs there
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)  # Ray ends the process group of a worker that has died
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Ray looks after the workers
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # as in all processes of Ray's
    become(*serve(int(sys.argv[1]), sys.argv[2:]))
