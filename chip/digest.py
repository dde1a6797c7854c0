"""The digest of a run: SHA-256 over the programs and, after every launch, what it left behind."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from chip.core import Array


class RunDigest:
    """Equal for equal programs and inputs, whatever machine ran them."""

    def __init__(self, launches: Iterable[Mapping[int, bytes]]) -> None:
        """Take in the program bytes of every launch, by chip; launches come in order of name."""
        self._hash = hashlib.sha256()
        for programs in launches:
            for _, program in sorted(programs.items()):
                self._hash.update(program)

    def fold(
        self,
        outputs: Mapping[int, Mapping[str, Array]],
        digests: Mapping[int, bytes],
        end_cycle: int,
    ) -> None:
        """Add one launch: each chip's digest and outputs (logits), by chip, and the cycles."""
        for chip in sorted(digests):
            self._hash.update(digests[chip])
            for _, values in sorted(outputs.get(chip, {}).items()):
                self._hash.update(np.ascontiguousarray(values).data)
        self._hash.update(str(end_cycle).encode())

    def hexdigest(self) -> str:
        """Return the digest so far."""
        return self._hash.hexdigest()
