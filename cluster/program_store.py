"""Programs on disk: what was lowered and linked once is not again while its source is the same."""

import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import chip
import topology
from chip.collection import uncollected
from chip.errors import ProgramError
from chip.wire import body_of, pack_value, unpack_value
from cluster.compiler.launch import Launch, Launches
from cluster.files import write_whole
from cluster.model.fetch import cache_folder

FOLDER = "programs"  # in the cache
HERE = Path(__file__).parent
SOURCES = (Path(chip.__file__).parent, Path(topology.__file__).parent, HERE / "compiler")
MOST_BYTES = 256 << 20  # of all files; SmolLM2 takes half a megabyte, on 90 chips twice as much
QUICK = 1  # of zlib, whose checksum tells a damaged file


@cache
def _source() -> bytes:
    """The source that launches and linked programs follow from, as a hash."""
    graphs = HERE / "model" / "graph"
    paths = (path for root in (*SOURCES, graphs) for path in sorted(root.rglob("*.py")))
    return sha256(b"\0".join(path.read_bytes() for path in paths)).digest()


class Links(Protocol):
    """What links programs: a linker, or the process that has one."""

    def take(self, data: bytes) -> None:
        """Know what another has packed; raises ProgramError where damaged."""

    def pack(self) -> bytes:
        """Return all that it has linked."""


@dataclass(frozen=True)
class ProgramStore:
    """A folder of files, each by the SHA-256 of what it was made of, source included.

    Without a folder nothing is kept. A file that cannot be read counts as none; beyond
    `most_bytes` those go that were not used for longest.
    """

    folder: Path | None = None
    most_bytes: int = MOST_BYTES

    @uncollected()
    def launches(self, key: object, make: Callable[[], Launches]) -> Launches:
        """What `make` lowers, or what it lowered for an equal key: one with an equal repr."""
        path = self._path(b"launches", repr(key).encode())
        data = self._read(path)
        try:
            if data is not None:
                return _unpacked(data)
        except (ProgramError, ValueError, TypeError, LookupError):
            pass
        made = make()
        self._write(path, _packed(made))
        return made

    @contextmanager
    def linked(self, linker: Links, programs: Iterable[bytes]) -> Iterator[None]:
        """A new linker links these programs inside, and no others.

        If they are known it takes them from here, else what it has linked is kept at the end.
        """
        path = self._path(b"linked", *_bodies(programs)) if self.folder else None
        data = self._read(path)
        try:
            linker.take(data or b"")
        except ProgramError:
            yield
            if path is not None:
                self._write(path, linker.pack())
        else:
            yield

    def _path(self, *key: bytes) -> Path | None:
        if self.folder is None:
            return None
        digest = sha256(_source())
        for part in key:
            digest.update(sha256(part).digest())
        return self.folder / digest.hexdigest()[:32]

    def _read(self, path: Path | None) -> bytes | None:
        if path is None:
            return None
        try:
            data = zlib.decompress(path.read_bytes())
            os.utime(path)
        except (OSError, zlib.error):
            return None
        return data

    def _write(self, path: Path | None, data: bytes) -> None:
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, zlib.compress(data, QUICK))
            self._drop_oldest(path.parent)
        except OSError:
            pass  # a read-only home, or another process that drops files: nothing is kept

    def _drop_oldest(self, folder: Path) -> None:
        found = [(path.stat(), path) for path in folder.iterdir()]
        room = self.most_bytes
        for state, path in sorted(found, key=lambda one: one[0].st_mtime, reverse=True):
            room -= state.st_size
            if room < 0:
                path.unlink(missing_ok=True)


NOTHING_KEPT = ProgramStore()


def own_store() -> ProgramStore:
    """The store of this user."""
    return ProgramStore(cache_folder() / FOLDER)


def _bodies(programs: Iterable[bytes]) -> list[bytes]:
    """What is linked of programs, each body once."""
    return sorted({sha256(body_of(data)).digest() for data in programs})


def _packed(launches: Mapping[str, Launch]) -> bytes:
    """Launches as bytes; bodies that programs share stand there once."""
    numbers: dict[bytes, int] = {}
    rows = []
    for one in launches.values():
        chips = []
        for number, data in one.programs.items():
            body = body_of(data)  # the last thing in a program
            place = numbers.setdefault(body, len(numbers))
            chips.append([number, data[: -len(body)], place])
        ends, counts = ([*of.items()] for of in (one.end_cycles, one.instructions))
        rows.append([one.name, one.startup_cycles, one.deskew_cycles, chips, ends, counts])
    return pack_value([[*numbers], rows])


def _unpacked(data: bytes) -> Launches:
    bodies, rows = unpack_value(data)
    return {
        name: Launch(
            name,
            startup,
            deskew,
            {number: head + bodies[place] for number, head, place in chips},
            dict(ends),
            dict(counts),
        )
        for name, startup, deskew, chips, ends, counts in rows
    }
