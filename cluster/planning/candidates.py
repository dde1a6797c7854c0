"""Plans by their sizes, what they cost, and prices of which a first guess of that is made."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Price:
    """Cycles of one width at one context: of a layer, the LM head, a boundary between stages.

    `tail` is what a stage takes beyond its layers, until its last result is in memory.
    """

    layer: int
    head: int
    boundary: int
    tail: int

    def latency(self, layers: int, pp: int) -> int:
        """Cycles of a decode launch through all stages."""
        return layers * self.layer + self.head + pp * self.tail + (pp - 1) * self.boundary

    def interval(self, most_layers: int, last_layers: int) -> int:
        """Cycles between two launches: of the busiest stage, with what it sends or receives."""
        last = last_layers * self.layer + self.head
        return max(most_layers * self.layer, last) + self.tail + self.boundary


@dataclass(frozen=True)
class Candidate:
    """A plan by its sizes, and its cycles; `joules` per token where energy is what matters."""

    tp: int
    pp: int
    chunk: int
    cycles: int
    interval_cycles: int
    joules: float = 0.0
    rows: int = 1  # sequences of a launch

    @property
    def chips(self) -> int:
        return self.tp * self.pp

    def round_cycles(self, batch: int) -> int:
        """Cycles in which each of `batch` sequences in flight gets a token.

        Of several, one goes on by a stage in each interval.
        """
        if batch == 1:
            return max(self.cycles, self.interval_cycles)
        return max(-(-batch // self.rows), self.pp) * self.interval_cycles

    def cost(self, objective: str, batch: int) -> float:
        """What the objective wants small."""
        if objective == "energy":
            return self.joules
        alone = objective == "latency" and batch == 1
        return self.cycles if alone else self.round_cycles(batch)

    def rank(self, objective: str, batch: int) -> tuple[float, int, int]:
        """Smaller is better; ties go to fewer chips, then to narrower groups."""
        return self.cost(objective, batch), self.chips, self.tp
