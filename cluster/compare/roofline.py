"""Decode on GPUs and TPUs as a roofline: bytes over bandwidth, or operations over rate, and
the all-reduces that tensor parallelism needs, two a layer."""

from dataclasses import dataclass
from math import prod

from cluster.compare.devices import ACHIEVED, Device, all_reduce_s
from cluster.model.graph.experts import ExpertLinear
from cluster.model.graph.graph import Model
from cluster.model.graph.latent_attention import ATTENTIONS

KV_BYTES = 2  # fp16 keys and values
ACTIVATION_BYTES = 2


@dataclass(frozen=True)
class Step:
    """One decode step of `batch` users: its seconds by part, on `count` devices."""

    device: Device
    count: int
    batch: int
    memory_s: float
    compute_s: float
    collective_s: float

    @property
    def seconds(self) -> float:
        """Seconds of the step."""
        return max(self.memory_s, self.compute_s) + self.collective_s

    @property
    def tokens_per_s_per_user(self) -> float:
        """Tokens per second of each user."""
        return 1 / self.seconds

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second of all users."""
        return self.batch / self.seconds

    @property
    def joules_per_token(self) -> float | None:
        """Joules at the TDP of the devices alone; None where no TDP is published."""
        if self.device.tdp_w is None:
            return None
        return self.device.tdp_w * self.count * self.seconds / self.batch

    @property
    def bound(self) -> str:
        """What takes most of the step."""
        parts = {"memory": self.memory_s, "compute": self.compute_s}
        found = max(parts, key=lambda name: parts[name])
        return "collectives" if self.collective_s > parts[found] else found


def weights_read(model: Model, batch: int) -> float:
    """Weights that a step of `batch` users reads: of experts, those that any of them chose."""
    total, experts = float(model.chip_parameters), model.stand_in and model.stand_in.experts
    for section, count in model.distinct:
        for op in section.ops:
            if isinstance(op, ExpertLinear):
                missed = (1 - op.chosen / op.experts) ** batch
                total -= count * prod(op.weight.shape) * missed
    if not experts:
        return total
    mixed = len(model.layers) - experts.dense_layers
    each = 3 * model.hidden.size * experts.ffn * mixed
    missed = (1 - experts.chosen / experts.count) ** batch
    return total - each * experts.count * missed


def kv_bytes_per_token(model: Model) -> int:
    """Bytes of keys and values that a token of context keeps."""
    return model.cached_elements * KV_BYTES


def needed_bytes(model: Model, weight_bytes: float, batch: int, context: int) -> float:
    """Memory that weights and caches take."""
    return model.parameters * weight_bytes + batch * context * kv_bytes_per_token(model)


def decode_step(
    model: Model,
    device: Device,
    count: int,
    batch: int,
    context: int,
    weight_bytes: float = 1,
    achieved: bool = False,
) -> Step | None:
    """A step on `count` devices, tensor parallel; None where the model does not fit.

    `achieved` takes the share of bandwidth that decoders reach and collectives called eagerly.
    """
    if needed_bytes(model, weight_bytes, batch, context) > count * device.memory_bytes:
        return None
    share = ACHIEVED if achieved else 1.0
    moved = weights_read(model, batch) * weight_bytes
    moved += batch * context * kv_bytes_per_token(model)
    attention = (op for layer in model.layers for op in layer.ops if isinstance(op, ATTENTIONS))
    products = weights_read(model, 1) + sum(op.products_per_row(context) for op in attention)
    rate = device.ops8_per_s if weight_bytes <= 1 else device.ops16_per_s
    size = batch * model.hidden.size * ACTIVATION_BYTES
    return Step(
        device,
        count,
        batch,
        moved / (count * device.bytes_per_s * share),
        2 * products * batch / (count * rate),
        2 * len(model.layers) * all_reduce_s(device, count, size, achieved),
    )
