"""Which buffers are used at the same time, and for how many cycles."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

Pairs = Mapping[tuple[str, str], int]  # cycles, by names in order
Partners = Mapping[str, Mapping[str, int]]  # the same, for each buffer by the others
MUST = 1 << 40  # more than any number of cycles: buffers that must lie apart
SHOULD = 1 << 24  # who reads both cycle by cycle waits until one of the gathers is over
RATHER = 1 << 19  # who reads one of them so waits for the other's chain, or that one for it


@dataclass(frozen=True)
class Conflicts:
    """For pairs of buffers: cycles in which they meet at a slice, and at a bank."""

    slices: Pairs
    banks: Pairs

    @cached_property
    def by_name(self) -> tuple[Partners, Partners]:
        """The same for each buffer: whom it meets at a slice, and whom at a bank."""
        return _partners(self.slices), _partners(self.banks)


def _partners(met: Pairs) -> Partners:
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for (one, other), cycles in met.items():
        found[one][other] = found[other][one] = cycles
    return dict(found)
