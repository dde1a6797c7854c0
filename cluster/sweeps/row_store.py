"""Rows on disk by what they follow from: the settings of a point, its files, and our own source.

One SQLite file holds them all, so that a sweep that was killed goes on, and one that has changed
computes what is new.
"""

import errno
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import cluster
from cluster.sweeps.evaluation import Row, digest
from cluster.sweeps.grid import Point

WAIT_S = 60.0  # for another sweep that writes
AT_ONCE = 500  # keys in one question to SQLite
WHOLE_BYTES = 16 << 20  # of a model's file: larger ones are known by size and time
# Folders and files that no row follows from.
SHOWN_ONLY = {
    "commands", "report", "tracing", "validate", "answers.py", "cli.py", "display.py", "facade.py",
    "figures.py", "host_checks.py", "pages.py", "pictures.py",
}  # fmt: skip


@cache
def source_digest() -> str:
    """A hash of the source that rows follow from, data of known models included."""
    root, digest = Path(cluster.__file__).parent.parent, sha256()
    for package in ("chip", "topology", "cluster"):
        for path in sorted((root / package).rglob("*.*")):
            inside = path.relative_to(root)
            if path.suffix in (".py", ".json") and not SHOWN_ONLY & set(inside.parts):
                digest.update(str(inside).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def key(point: Point) -> str:
    """What the row of a point is kept under: its number is no part of that."""
    files = [digest(one) if one else None for one in (point.graph_file, point.trace_file)]
    what = {
        "source": source_digest(), "do": point.do, "settings": dict(point.settings),
        "model": model_digest(point.model), "spec": point.spec, "profile": point.profile,
        "links": point.links, "files": files,
    }  # fmt: skip
    return sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()


@cache
def model_digest(name: str) -> str:
    """A known name, or a hash of what a file or folder holds."""
    path = Path(name)
    if not path.is_absolute():
        return name
    digest = sha256()
    for one in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if one.is_file():
            facts = one.stat()
            small = facts.st_size <= WHOLE_BYTES
            text = one.read_bytes() if small else f"{facts.st_size} {facts.st_mtime_ns}".encode()
            digest.update(one.name.encode() + b"\0" + text)
    return digest.hexdigest()


class RowStore:
    """Rows by key. Every `keep` is on disk when it returns; errors of the disk are OSErrors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._base = self._open()

    def _open(self) -> sqlite3.Connection:
        try:
            base = sqlite3.connect(self.path, timeout=WAIT_S)
            base.execute("CREATE TABLE IF NOT EXISTS rows (key TEXT PRIMARY KEY, row TEXT)")
            return base
        except sqlite3.OperationalError as error:
            raise self._problem(error) from None
        except sqlite3.DatabaseError:  # damaged: it is a cache, and begins anew
            self.path.unlink()
            return self._open()

    def known(self, keys: Sequence[str]) -> dict[str, Row]:
        """The rows that there are of some keys."""
        found: dict[str, Row] = {}
        for first in range(0, len(keys), AT_ONCE):
            some = keys[first : first + AT_ONCE]
            marks = ",".join("?" * len(some))
            try:
                with closing(
                    self._base.execute(f"SELECT key, row FROM rows WHERE key IN ({marks})", some)
                ) as rows:
                    found |= {name: json.loads(text) for name, text in rows}
            except sqlite3.OperationalError as error:
                raise self._problem(error) from None
        return found

    def keep(self, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Write rows, all or none of them."""
        lines = [(name, json.dumps(row)) for name, row in rows]
        try:
            with self._base:
                self._base.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?)", lines)
        except sqlite3.OperationalError as error:
            raise self._problem(error) from None

    def _problem(self, error: sqlite3.Error) -> OSError:
        full = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
        return OSError(errno.ENOSPC if full else errno.EIO, str(error), str(self.path))

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def __enter__(self) -> "RowStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
