"""How the speed of three models depends on what no source gives: each number halved and doubled.

The plan of a model, its stages and groups, stays what it is; only the number changes, and the
programs are scheduled anew. The MXM's ingest width is published, and built into the instructions:
for it the change is bounded, by the cycles in which weights enter the arrays.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chip.spec import GROQCHIP1
from cluster.compiler.choose import PlanRequest
from cluster.files import scratch_folder
from cluster.planning.planner import Planned, make
from topology import parse

MODELS = ("smollm2", "llama-2-7b", "llama-3-8b")
FACTORS = (0.5, 2.0)


@dataclass(frozen=True)
class Sensitivity:
    """Tokens/s per user of a model when `what` is `factor` times what is assumed."""

    model: str
    what: str
    factor: float
    base: float
    tokens_per_s: float
    bound: bool = False

    @property
    def change(self) -> float:
        """Relative change of the speed."""
        return self.tokens_per_s / self.base - 1


def sensitivities(model: str) -> Iterator[Sensitivity]:
    """All changes of one model, on its fastest plan at a context of 320."""
    planned = make(model)
    plan = planned.timed.plan
    fixed = {"tp": plan.tp, "pp": plan.pp, "topology": planned.topology, "chips": plan.chips}
    base = _speed(planned)
    hop = _hop_cycles(planned.topology)
    delays = dict(GROQCHIP1.d_func_cycles)
    for factor in FACTORS:
        speed = _with_delays(
            model, fixed, {name: max(1, round(c * factor)) for name, c in delays.items()}
        )
        yield Sensitivity(model, "all d_func", factor, base, speed)
        links = (f"latency_cycles={round(hop * factor)}",)
        speed = _speed(make(model, PlanRequest(links=links, **fixed)))  # type: ignore[arg-type]
        yield Sensitivity(model, "hop latency", factor, base, speed)
        cycles = planned.timed.decode(plan.context).cycles
        loads = _load_cycles(planned)
        moved = cycles - loads + round(loads / factor)
        yield Sensitivity(model, "ingest width", factor, base, base * cycles / moved, bound=True)


def _with_delays(model: str, fixed: dict[str, object], delays: dict[str, int]) -> float:
    lines = ['name = "sensitivity"', 'base = "groqchip1"', "[d_func_cycles]"]
    lines += [f'"{name}" = {cycles}' for name, cycles in delays.items()]
    with scratch_folder("lpu-sensitivity-") as folder:
        path = Path(folder) / "chip.toml"
        path.write_text("\n".join(lines), encoding="utf-8")
        return _speed(make(model, PlanRequest(spec=str(path), **fixed)))  # type: ignore[arg-type]


def _speed(planned: Planned) -> float:
    timed = planned.timed
    return timed.plan.spec.clock_hz / timed.decode(timed.plan.context).cycles


def _load_cycles(planned: Planned) -> int:
    """Cycles of a token in which weight columns enter the two arrays of a chip, at best."""
    plan = planned.timed.plan
    return len(plan.model.layers) * planned.timed.stages[0].column_cycles


def _hop_cycles(topology: str) -> int:
    graph = parse(topology)
    return max(int(data["link"].latency_cycles) for _, _, data in graph.edges(data=True))
