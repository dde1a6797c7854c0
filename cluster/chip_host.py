"""The work of one actor: some chips, their programs and their batches of segments.

Plain and synchronous; `cluster.ray_machine` makes it remote. A worker imports this and `chip` only.
"""

import os
from collections.abc import Mapping, Sequence

from chip.board import Facts
from chip.core import Array
from chip.group import Batch, Bundle, ChipGroup, Finished
from chip.numerics import set_backend
from chip.own_spec import chip_of
from chip.program import Region
from cluster.process import peak_rss_bytes

Reply = Bundle | Finished | None


class ChipHost:
    """Chips of one process. A launch that failed fails again in all its later batches."""

    def __init__(self, numbers: Sequence[int], spec: str) -> None:
        # Compiled kernels would cost each worker 120 MB and seconds; NumPy's give equal bits.
        set_backend("numpy")
        self._group = ChipGroup(numbers, chip_of(spec))
        self._failed: Exception | None = None

    def ready(self) -> int:
        """The process id: the actor is up."""
        return os.getpid()

    def memory(self) -> int:
        """Peak resident bytes of the process."""
        return peak_rss_bytes()

    def load(self, programs: Sequence[tuple[str, int, bytes]]) -> list[Facts]:
        """Link (launch name, chip, msgpack) programs; their facts in the same order."""
        return [self._group.load(*program) for program in programs]

    def write(self, constants: Sequence[tuple[int, Region, Array]]) -> None:
        """Store (chip, region, values)."""
        self._group.write(constants)

    def prepare(self, batches: Mapping[str, Sequence[Batch]]) -> None:
        """Take this host's batches of every launch."""
        for name, mine in batches.items():
            self._group.prepare(name, mine)

    def run(
        self,
        name: str,
        index: int,
        inputs: Mapping[int, Mapping[str, Array]] | None,
        *bundles: Bundle,
    ) -> Reply | list[Reply]:
        """Run a batch; `inputs` come with the first of a launch.

        Returns the bundles of the outbox, then Finished after the last batch; bare if only one.
        """
        if inputs is not None:
            self._failed = None
        if self._failed is not None:
            raise self._failed
        try:
            replies = self._run(name, index, inputs, bundles)
        except Exception as error:
            self._failed = error
            raise
        return replies if len(replies) > 1 else replies[0]

    def _run(
        self,
        name: str,
        index: int,
        inputs: Mapping[int, Mapping[str, Array]] | None,
        bundles: Sequence[Bundle],
    ) -> list[Reply]:
        if inputs is not None:
            self._group.begin(name, inputs)
        replies: list[Reply] = [*self._group.run(name, index, bundles)]
        if self._group.is_last(name, index):
            replies.append(self._group.finish(name))
        return replies or [None]


def replies(batch: Batch) -> int:
    """How many things `run` returns for a batch."""
    return max(len(batch.outbox) + batch.last, 1)
