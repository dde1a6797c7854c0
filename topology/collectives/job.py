"""What a collective algorithm is asked for."""

from dataclasses import dataclass

import networkx as nx

from topology.fabric import Fabric, Ints, compiled


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
        """Vectors in one buffer; the last one may be partly filled."""
        return -(-self.bytes // self.fabric.payload_bytes)

    @property
    def stripes(self) -> int:
        """Blocks to cut a share into so that all parallel cables are used."""
        return self.chunks or int(self.fabric.cables.max(initial=1))
