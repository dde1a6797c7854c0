"""Where checkpoints rest: a folder of msgpack files, each written whole or not at all.

`run` says which programs the folder belongs to. `000016` and the like hold what has changed in the
launches up to that number: their results, and blocks of SRAM, of which later ones replace earlier.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chip.checkpoint import Block
from chip.errors import ProgramError
from chip.wire import pack_value, unpack_value
from cluster.errors import BadValue, CheckpointError
from cluster.files import temporary_folder, write_whole
from cluster.machines.machine import Result

VERSION = 1
MAX_FILES = 8  # then they are merged to one
Blocks = dict[int, list[Block]]


@dataclass(frozen=True)
class Past:
    """A launch that was run: the fingerprint of its inputs, and its result."""

    key: bytes
    result: Result


class CheckpointStore:
    """Checkpoints in `folder`, or in a temporary one, which keeps no results, if that is None."""

    def __init__(self, folder: Path | None, resume: bool = False) -> None:
        if folder and folder.exists() and any(folder.iterdir()) and not resume:
            raise BadValue("--checkpoint", folder, "is not empty; --resume goes on with it")
        if resume and not (folder and (folder / "run").is_file()):
            raise BadValue("--resume", folder or "", "there is no checkpoint to go on with")
        self._ours = folder is None
        self.folder = folder or temporary_folder("lpu-checkpoint-")
        self._launches = 0

    def open(self, programs: str) -> list[Past]:
        """The launches that it holds, which is for runs of `programs`; raises CheckpointError."""
        self.folder.mkdir(exist_ok=True)
        head = {"version": VERSION, "programs": programs}
        if not (self.folder / "run").exists():
            write_whole(self.folder / "run", pack_value(head))
            return []
        found = self._read(self.folder / "run")
        if found != head:
            problem = "belongs to another model, plan or version: its programs differ"
            raise CheckpointError(str(self.folder), problem)
        past = [one for path in self._files() for one in self._load(path)[0]]
        self._launches = len(past)
        return past

    def add(self, blocks: Blocks, past: list[Past]) -> None:
        """Put down what `past` launches have changed since the last time."""
        self._launches += len(past)
        self._write([] if self._ours else past, blocks)
        files = self._files()
        if len(files) > MAX_FILES:
            everything = [one for path in files for one in self._load(path)[0]]
            self._write(everything, self.blocks())
            for path in files[:-1]:
                path.unlink()

    def blocks(self) -> Blocks:
        """All that has changed up to the last checkpoint."""
        merged: dict[int, dict[tuple[int, int], bytes]] = {}
        for path in self._files():
            for chip, found in self._load(path)[1].items():
                places = merged.setdefault(chip, {})
                places.update({(index, word): data for index, word, data in found})
        return {
            chip: [(index, word, data) for (index, word), data in places.items()]
            for chip, places in merged.items()
        }

    def close(self) -> None:
        """Remove a temporary folder."""
        if self._ours:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.name.isdecimal())

    def _write(self, past: list[Past], blocks: Blocks) -> None:
        launches = [
            [p.key, p.result.outputs, p.result.end_cycle, dict(p.result.digests)] for p in past
        ]
        data = pack_value({"launches": launches, "blocks": blocks})
        write_whole(self.folder / f"{self._launches:06}", data)

    def _load(self, path: Path) -> tuple[list[Past], Blocks]:
        """Launches and blocks of one file, checked; raises CheckpointError."""
        found = self._read(path)
        try:
            past = [_past(*fields) for fields in found["launches"]]
            return past, checked_blocks(found["blocks"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(str(path), f"is damaged: {error}") from None

    def _read(self, path: Path) -> Any:
        try:
            return unpack_value(path.read_bytes())
        except ProgramError as error:
            raise CheckpointError(str(path), f"is damaged: {error}") from None


def _past(key: Any, outputs: Any, end_cycle: Any, digests: Any) -> Past:
    for named in outputs.values():
        if not all(isinstance(values, np.ndarray) for values in named.values()):
            raise TypeError("outputs that are no arrays")
    if not all(isinstance(data, bytes) for data in (key, *digests.values())):
        raise TypeError("digests that are no bytes")
    return Past(key, Result(outputs, int(end_cycle), digests))


def checked_blocks(found: Mapping[Any, Any]) -> Blocks:
    """Blocks by chip as they were packed; raises TypeError or ValueError if they are none."""
    blocks: Blocks = {}
    for chip, items in found.items():
        for index, word, data in items:
            if not all(type(n) is int and n >= 0 for n in (chip, index, word)):
                raise TypeError("blocks without a place")
            if not isinstance(data, bytes):
                raise TypeError("blocks without contents")
            blocks.setdefault(chip, []).append((index, word, data))
    return blocks
