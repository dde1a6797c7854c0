"""Costs on disk: what was lowered once need not be lowered again while its source is the same."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import chip
import topology
from chip.collection import uncollected
from cluster.files import write_whole

T = TypeVar("T")


@dataclass(frozen=True)
class CostStore:
    """A folder of small JSON files, by the SHA-256 of a key and of the source they follow from.

    Without a folder nothing is kept. A file that cannot be read counts as none. `made` is called
    after whatever had to be made.
    """

    folder: Path | None = None
    made: Callable[[], None] | None = field(default=None, compare=False)

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
        name = sha256(repr((kind, key)).encode()).hexdigest()
        path = self.folder / self.source / f"{name[:32]}.json"
        try:
            return read(json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError, KeyError):
            found = make()
            if self.made is not None:
                self.made()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(plain(found)).encode())
        except OSError:
            pass  # a read-only home: the next call lowers again
        return found
