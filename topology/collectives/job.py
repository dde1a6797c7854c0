"""What a collective algorithm is asked for."""

from dataclasses import dataclass

import networkx as nx

from topology.collectives.sums import FP32, SUM_FORMATS, SumFormat
from topology.fabric import Fabric, Ints, compiled
from topology.families.graphs import NODE_CHIPS

RESIDUAL = -1  # the slot of what each rank has besides its part of the sum


@dataclass(frozen=True)
class Job:
    """What an algorithm is asked for; `chunks` None leaves the choice to the algorithm."""

    operation: str
    graph: nx.Graph
    chips: tuple[int, ...]
    bytes: int
    root: int = 0  # rank
    chunks: int | None = None
    release_cycles: tuple[int, ...] | None = None  # per rank; default 0
    busy_until: Ints | None = None  # per channel of the fabric; default 0
    add_cycles: int = 0
    unit_vectors: int = 1  # what belongs together: blocks and the buffer are whole units
    residual: bool = False  # each rank adds its own slot RESIDUAL to the sum
    team_ranks: int = NODE_CHIPS  # neighbours that `teams` lets add up among themselves
    sums_between: str = FP32  # what their sums are rounded to on the way to others

    @property
    def fabric(self) -> Fabric:
        """Array form of the graph."""
        return compiled(self.graph)

    @property
    def ranks(self) -> int:
        """Number of chips in the group."""
        return len(self.chips)

    @property
    def vectors(self) -> int:
        """Vectors in one buffer, whole units of them; the last one may be partly filled."""
        return -(-self.bytes // (self.fabric.payload_bytes * self.unit_vectors)) * self.unit_vectors

    @property
    def sums(self) -> SumFormat:
        """How sums travel between nodes."""
        return SUM_FORMATS[self.sums_between]

    @property
    def onto(self) -> int | None:
        """The slot that sums begin with."""
        return RESIDUAL if self.residual else None

    @property
    def stripes(self) -> int:
        """Blocks to cut a share into so that all parallel cables are used."""
        return self.chunks or int(self.fabric.cables.max(initial=1))
