"""Rows of the comparison: LPU plans, and each device at each size and batch it can hold."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cluster.compare.devices import DEVICES
from cluster.compare.lpu import LpuPoint
from cluster.compare.measured import MEASURED
from cluster.compare.roofline import decode_step
from cluster.model.graph.graph import Model

BATCHES = (1, 8, 32, 128, 512)
EMULATED = "emulated: schedules of this emulator; power by a table fitted to the product brief"


@dataclass(frozen=True)
class Row:
    """One configuration. `kind` is emulated, roofline, achieved or published.

    Joules are those of the devices alone, at their TDP (LPUs: modelled); None where unknown.
    """

    device: str
    count: int
    batch: int
    context: int
    tokens_per_s_per_user: float
    tokens_per_s: float
    joules_per_token: float | None
    bound: str
    kind: str
    source: str


def device_rows(
    model: Model, contexts: Sequence[int], batches: Sequence[int], weight_bytes: float
) -> Iterator[Row]:
    """Rooflines, and what such devices achieve, of every device, size, batch and context."""
    for device in DEVICES:
        for count in device.sizes:
            for context in contexts:
                for batch in batches:
                    for achieved in (False, True):
                        step = decode_step(
                            model, device, count, batch, context, weight_bytes, achieved
                        )
                        if step is None:
                            continue
                        note = f"; assumed: {device.assumed}" if device.assumed else ""
                        yield Row(
                            device.name,
                            count,
                            batch,
                            context,
                            step.tokens_per_s_per_user,
                            step.tokens_per_s,
                            step.joules_per_token,
                            step.bound,
                            "achieved" if achieved else "roofline",
                            f"{device.source}{note}",
                        )


def published_rows(model: Model) -> Iterator[Row]:
    """Measured speeds of this model, one user."""
    for one in MEASURED:
        if one.model == model.name:
            source = f"{one.source}, {8 * one.weight_bytes}-bit weights"
            yield Row(one.device, one.count, 1, 128, one.tokens_per_s, one.tokens_per_s, None, "",
                      "published", source)  # fmt: skip


def lpu_rows(points: Sequence[LpuPoint]) -> Iterator[Row]:
    """The plan of the emulator, one user and as many as there is room for."""
    for point in points:
        yield Row("GroqChip 1", point.chips, point.users, point.context,
                  point.tokens_per_s_per_user, point.tokens_per_s, point.joules_per_token,
                  point.bound, "emulated", f"{EMULATED}; {point.plan}")  # fmt: skip
