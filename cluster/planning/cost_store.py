"""Costs on disk: what was lowered once need not be lowered again while its source is the same."""

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import chip
import topology
from chip.collection import uncollected
from cluster.files import write_whole
from cluster.planning.beside import Beside

T = TypeVar("T")
UNREADABLE = OSError, ValueError, TypeError, KeyError


@dataclass(frozen=True)
class CostStore:
    """A folder of small JSON files, by the SHA-256 of a key and of the source they follow from.

    Without a folder nothing is kept. A file that cannot be read counts as none. `made` is called
    after whatever had to be made, here and not by those who plan the same `beside` us.
    """

    folder: Path | None = None
    made: Callable[[], None] | None = field(default=None, compare=False)
    beside: Beside | None = field(default=None, compare=False)

    @cached_property
    def source(self) -> str:
        """The source that costs follow from, as a hash: chips, messages, and what costs lower."""
        here, digest = Path(__file__).parent, sha256()
        roots = Path(chip.__file__).parent, Path(topology.__file__).parent, here.parent / "compiler"
        every = (path for root in roots for path in sorted(root.rglob("*.py")))
        for path in (*every, *sorted(here.glob("cost*.py"))):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()[:16]

    @uncollected()
    def kept(
        self,
        kind: str,
        key: object,
        make: Callable[[], T],
        plain: Callable[[T], Any],
        read: Callable[[Any], T],
    ) -> T:
        """What `make` returns, from the disk if it is there; `plain` and `read` are to JSON."""
        if self.folder is None:
            return make()
        name = sha256(repr((kind, key)).encode()).hexdigest()[:32]
        path = self.folder / self.source / f"{name}.json"
        with suppress(*UNREADABLE):
            return read(json.loads(path.read_bytes()))
        with suppress(OSError):  # a read-only home: the next call lowers again
            path.parent.mkdir(parents=True, exist_ok=True)
        with self.beside.making(path) if self.beside else nullcontext():
            with suppress(*UNREADABLE):  # somebody has made it meanwhile
                return read(json.loads(path.read_bytes()))
            found = make()
            if self.made is not None:
                self.made()
            with suppress(OSError):
                write_whole(path, json.dumps(plain(found)).encode())
        return found

    def ahead(self, calls: Sequence[Callable[[], object]]) -> None:
        """Say what will be asked for next, in order: see `Beside.ahead`."""
        if self.beside:
            self.beside.ahead(calls)
