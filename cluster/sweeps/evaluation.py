"""What a point gives: the figures of its plan as `lpu plan` prints them, or the reason for none.

A row is a flat mapping that follows from its point alone, whichever process computes it. `DO` says
how each kind of point is computed; another kind is a function more.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from chip.collection import uncollected
from chip.errors import ChipError
from cluster.compiler.choose import PlanRequest
from cluster.errors import ClusterError
from cluster.files import write_whole
from cluster.planning.cost_store import CostStore
from cluster.planning.kept import Kept
from cluster.planning.planner import Planned, make, report
from cluster.sweeps.grid import Point
from cluster.sweeps.settings import PLAN, REPLAY, RUN
from topology.errors import TopologyError

Figures = dict[str, Any]
Row = Mapping[str, Any]
OK, FAILED = "ok", "failed"
# Of the object of `lpu plan --json`: what a row has, at the top and under `plan`, `placement`.
OF_REPORT = (
    "cycles_per_token", "interval_cycles", "tokens_per_s_per_user", "tokens_per_s_total",
    "prefill_cycles", "time_to_first_token_s", "joules_per_token", "lower_bound_cycles",
    "bound_cycles", "bottleneck",
)  # fmt: skip
OF_PLAN = {
    "chips": "chips_used", "tp": "tp_used", "pp": "pp_used", "topology": "topology_used",
    "weights": "weights_used", "spare_chips": "spare_chips", "sram_bytes_max": "sram_bytes_max",
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """The row of a point, by the number that it has in its sweep.

    What came of the host, and not of the point, is not kept for later sweeps.
    """

    number: int
    row: Row
    kept: bool = True


@dataclass
class Evaluator:
    """Computes points one after another; what they have in common is kept between them."""

    cache: Path
    address: str | None = None  # of the Ray that runs are for
    clusters: dict[Any, Any] = field(default_factory=dict, repr=False)  # of replays
    _kept: Kept | None = field(default=None, repr=False)

    @property
    def kept(self) -> Kept:
        """What the plans so far have in common."""
        if self._kept is None:
            self._kept = Kept(CostStore(self.cache / "costs"))
        return self._kept

    @uncollected(stays=True)
    def some(self, points: Sequence[Point], budget_s: float) -> list[Finding]:
        """The first of the points, one at least, until the time is over."""
        found: list[Finding] = []
        end = time.monotonic() + budget_s
        for point in points:
            if found and time.monotonic() > end:
                break
            found.append(Finding(point.number, self.row(point)))
        return found

    def row(self, point: Point) -> Row:
        """Figures, or why there are none; raises what is an error of ours."""
        try:
            return {"status": OK, "reason": "", **DO[point.do](self, point)}
        except (ClusterError, ChipError, TopologyError) as error:
            return {"status": FAILED, "reason": " ".join(str(error).split())}

    def request(self, point: Point) -> PlanRequest:
        """The point as `lpu plan` and `lpu run` ask."""
        given = {
            n: point.get(n)
            for n in ("chips", "tp", "ep", "pp", "faults", "weights", "prompt_tokens")
        }
        chosen = ("context", "batch", "objective", "sums_between_nodes")
        others = {n: point.get(n) for n in chosen}
        return PlanRequest(
            **given, **{name: value for name, value in others.items() if value is not None},
            topology=self.topology(point), profile=point.profile, links=point.links,
            spec=point.spec, rows=point.get("rows_per_launch"),
        )  # fmt: skip

    def topology(self, point: Point) -> str | None:
        """The SPEC of its graph; that of a file names a copy here."""
        text: str | None = point.get("topology")
        if text is None or point.graph_file is None:
            return text
        return f"file:{self.copy(point.graph_file, text.partition(':')[2])}"

    def copy(self, data: bytes, name: str) -> Path:
        """A file of a question as a file here, in a folder named by what it holds."""
        folder = self.cache / "files" / digest(data)[:16]
        copy = folder / Path(name).name
        if not copy.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(copy, data)
        return copy


@cache
def digest(data: bytes) -> str:
    """SHA-256 of a file of a question; points of a sweep share a few of them."""
    return sha256(data).hexdigest()


def planned(evaluator: Evaluator, point: Point) -> Figures:
    """The figures of the best plan of a point."""
    request = evaluator.request(point)
    found = of_plan(make(point.model, request, kept=evaluator.kept), point)
    if point.get("prefill_on") or point.get("afd"):
        from cluster.sweeps.companions import helped  # few sweeps need GPUs

        found |= helped(point, request, evaluator.kept.store)
    return found


def of_plan(made: Planned, point: Point) -> Figures:
    """A plan's figures, of its report."""
    stated = report(made)
    found = {name: stated[name] for name in OF_REPORT}
    found |= {ours: stated["plan"][name] for name, ours in OF_PLAN.items()}
    if point.graph_file is not None:
        found["topology_used"] = point.get("topology")
    energy = stated["energy"]
    busy = energy["full_pipeline"]["joules_per_token"] if energy else None
    parts = {f"{name}_cycles": cycles for name, cycles in stated["breakdown"].items()}
    return (
        found
        | {
            "joules_per_token_busy": busy,
            "hops": stated["placement"]["hops"],
            "mxm_busy": stated["utilisation"]["mxm"],
        }
        | parts
    )


def executed(evaluator: Evaluator, point: Point) -> Figures:
    """What a run of a point measured, on the emulated chips and on this host."""
    from cluster.sweeps.execution import run_point  # only runs need machines

    return run_point(point, evaluator.request(point), evaluator.address)


def replayed(evaluator: Evaluator, point: Point) -> Figures:
    """What users of a point wait for, under its load."""
    from cluster.sweeps.replaying import replay_point  # only replays need their tables

    return replay_point(point, evaluator)


DO: Mapping[str, Callable[[Evaluator, Point], Figures]] = {
    PLAN: planned, RUN: executed, REPLAY: replayed,
}  # fmt: skip
