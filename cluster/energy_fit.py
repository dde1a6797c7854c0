"""How the two free numbers of the energy table follow from the published power.

Dense fp16 products on both sides of the chip are taken to draw the TDP, and a layer of BERT-base on
128 tokens, which ISCA'22 and "Answer Fast" run, the average; both are schedules of this emulator.
"""

from dataclasses import dataclass, replace

from chip.energy import AVERAGE_W, EVENTS, GROQCHIP1_ENERGY, TDP_W, EnergyTable, count
from chip.kernels.gemm import Gemm
from chip.kernels.lanes import MAPS
from chip.program import Program
from chip.schedule import Schedule
from chip.spec import GROQCHIP1
from cluster.compiler.limits import CONTEXT_BLOCK
from cluster.compiler.stage import Stage
from cluster.compiler.stage_shape import stage_shape
from cluster.model.encoders import encoder


@dataclass(frozen=True)
class Point:
    """A program, the power it is said to draw, and its unscaled dynamic power by event."""

    what: str
    published_w: float
    cycles: int
    parts_w: dict[str, float]

    @property
    def unscaled_w(self) -> float:
        """Dynamic power at 45 nm."""
        return sum(self.parts_w.values())

    def power_w(self, table: EnergyTable) -> float:
        """Power by a fitted table."""
        return table.idle_w + table.scale * self.unscaled_w


@dataclass(frozen=True)
class Fit:
    """The points, and the table that goes through them."""

    points: tuple[Point, Point]
    table: EnergyTable


def fit() -> Fit:
    """Two equations, idle + scale x dynamic = published, for two unknowns."""
    dense = Gemm(GROQCHIP1, 1024, 1600, 1600).plan
    tokens, one = 128, (1, 1)  # any layer but the first, which comes with its opening
    shape = stage_shape(
        encoder("bert-base"), GROQCHIP1, 1, CONTEXT_BLOCK, tokens, "fp16", (1, 1), one, head=False
    )
    layer = Stage(GROQCHIP1, shape).schedule(tokens, 1, {})
    high = _point("dense fp16 products, 1024 x 1600 x 1600", TDP_W, dense)
    low = _point("a layer of BERT-base, 128 tokens, fp16", AVERAGE_W, layer)
    scale = (high.published_w - low.published_w) / (high.unscaled_w - low.unscaled_w)
    idle = high.published_w - scale * high.unscaled_w
    return Fit((high, low), replace(GROQCHIP1_ENERGY, scale=scale, idle_w=idle))


def _point(what: str, published_w: float, plan: Schedule) -> Point:
    program = plan.program(0, Program(0, GROQCHIP1.name, 0, {}, MAPS))
    activity = count(program.instructions(), GROQCHIP1)
    seconds = plan.end_cycle / GROQCHIP1.clock_hz
    parts = EnergyTable().parts_j(activity)
    return Point(what, published_w, plan.end_cycle, {e: parts[e] / seconds for e in EVENTS})
