"""GPUs and TPUs beside the rows of a sweep: the same model and weights on each device and size.

Speeds and joules are those of `lpu compare`: rooflines of published rates, and what such devices
achieve. The LPUs' joules are those with all pipeline stages busy, each with its own user.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.compare.devices import BY_NAME
from cluster.compare.roofline import decode_step
from cluster.compiler.choose import PlanRequest
from cluster.hybrid.answer import MIXED, with_gpus
from cluster.hybrid.between import between
from cluster.hybrid.gpus import gpus_of
from cluster.hybrid.systems import LPU_ALONE
from cluster.model.graph.counts import MATRIX_BYTES
from cluster.model.graph.graph import Model
from cluster.model.load import find_decoder
from cluster.planning.cost_store import CostStore
from cluster.sweeps.evaluation import Row
from cluster.sweeps.figures import SPEED, number, value_of
from cluster.sweeps.grid import Point as Asked
from cluster.sweeps.question import Gpus, Question

CONTEXT_TOKENS = 320  # where the file says nothing, as in `lpu plan`
ENERGY = "joules_per_token_busy"


@dataclass(frozen=True)
class Companion:
    """One device at one size, for so many users."""

    device: str
    count: int
    users: int
    kind: str  # roofline or achieved
    tokens_per_s_per_user: float
    tokens_per_s: float
    joules_per_token: float | None

    @property
    def name(self) -> str:
        """In a sentence."""
        users = "one user" if self.users == 1 else f"{self.users} users"
        return f"{self.count} x {self.device} with {users} ({self.kind})"


@dataclass(frozen=True)
class Share:
    """An LPU plan over a companion: times the speed for a user, times the energy for a token."""

    model: str
    companion: Companion
    speed: float
    energy: float | None

    @property
    def text(self) -> str:
        """In a sentence."""
        energy = "" if self.energy is None else f" at {number(self.energy)} x the energy"
        return (
            f"{self.model}, {number(self.speed)} x the speed{energy} against {self.companion.name}"
        )


def companions(question: Question, row: Row) -> list[Companion]:
    """Those that hold the model of a row with its weights and context."""
    if question.gpus is None:
        return []
    model = find_decoder(str(question.file.absolute().parent / row["model"])
                         if "/" in row["model"] else row["model"])  # fmt: skip
    weights = MATRIX_BYTES[row["weights_used"]]
    return list(_on(model, question.gpus, int(row.get("context", CONTEXT_TOKENS)), weights))


def _on(model: Model, gpus: Gpus, context: int, weight_bytes: float) -> Iterator[Companion]:
    for name in gpus.devices:
        device = BY_NAME[name]
        for count in gpus.counts or device.sizes:
            for users in gpus.batches:
                for kind in ("roofline", "achieved"):
                    size = (int(count), int(users), context, weight_bytes, kind == "achieved")
                    step = decode_step(model, device, *size)
                    if step is not None:
                        yield Companion(
                            name, int(count), int(users), kind, step.tokens_per_s_per_user,
                            step.tokens_per_s, step.joules_per_token,
                        )  # fmt: skip


def helped(point: Asked, request: PlanRequest, store: CostStore) -> dict[str, Any]:
    """LPUs with the GPUs of a point: the fastest system for a user, and that of most for a MW.

    `gpus_help` is whether a system of both is on the front of these two figures.
    """
    both = {"--prefill-on": point.get("prefill_on"), "--afd": point.get("afd")}
    prompts, attention = (gpus_of(n, text) if text else None for n, text in both.items())
    joined = between(point.get("between", "").split(",") if point.get("between") else ())
    found = with_gpus(point.model, request, joined, prompts, attention, store)
    mixed = [one for one in found.points if one.kind in MIXED]
    ours = [one.tokens_per_s_per_mw for one in found.points if one.kind == LPU_ALONE]
    row: dict[str, Any] = {"gpus_help": any(one.kind in MIXED for one in found.front)}
    if mixed:
        fast = max(mixed, key=lambda one: one.tokens_per_s_per_user)
        most = max(mixed, key=lambda one: one.tokens_per_s_per_mw)
        row |= {
            "with_gpus_tokens_per_s_per_user": fast.tokens_per_s_per_user,
            "with_gpus_time_to_first_token_s": fast.time_to_first_token_s,
            "with_gpus_tokens_per_s_per_mw": most.tokens_per_s_per_mw,
            "with_gpus_joules_per_token": most.joules_per_token,
            "with_gpus_users": most.users,
        }
    return row | {"lpus_tokens_per_s_per_mw": max(ours)}


def shares(row: Row, others: Sequence[Companion]) -> list[Share]:
    """A plan over each of its companions."""
    speed, joules = value_of(row, SPEED), value_of(row, ENERGY)
    assert speed is not None
    return [
        Share(
            row["model"], other, speed / other.tokens_per_s_per_user,
            joules / other.joules_per_token if joules and other.joules_per_token else None,
        )
        for other in others
    ]  # fmt: skip
