"""What a graph leaves out of the model that it stands for, while ops for it are missing."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Experts:
    """A mixture of `count` FFNs of `ffn` columns, `chosen` of them for a token.

    `shared_ffn` columns are for every token; `dense_layers` layers have a dense FFN.
    """

    count: int
    chosen: int
    ffn: int
    shared_ffn: int = 0
    dense_layers: int = 0

    @property
    def columns(self) -> int:
        """Columns of all experts side by side."""
        return self.count * self.ffn + self.shared_ffn

    def residents(self, tp: int) -> "Residents":
        """Where experts lie when FFN columns are shared out evenly, as all kernels do.

        If tp divides their number each rank has whole experts, and its part of what is shared by
        all. The all-reduce of the FFN adds what the experts of all ranks give.
        """
        whole = self.count % tp == 0 and self.shared_ffn % tp == 0
        return Residents(self.count, self.chosen, self.count / tp, whole, self.count)


@dataclass(frozen=True)
class Residents:
    """Experts of a layer that lie on each rank of a tensor-parallel group; `whole` if uncut.

    `run` of them do for a token, as many as are `chosen` where they are gathered: also where they
    are spread over `ep` parts of the group, as all of them may be in one.
    """

    count: int
    chosen: int
    per_rank: float
    whole: bool
    run: int
    ep: int = 1


@dataclass(frozen=True)
class StandIn:
    """`missing` is what no kernel executes, `notes` how a plan of the graph differs, in words.

    `more_parameters` are those of the model beyond the graph's. Where the caches differ,
    `cached_elements` are what a token adds to those of all layers.
    """

    missing: tuple[str, ...]
    notes: tuple[str, ...]
    more_parameters: int = 0
    cached_elements: int | None = None
    experts: Experts | None = None
