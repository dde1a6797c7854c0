"""A group of GPUs: what it takes for a prompt, for decoding, and for attention alone."""

import re
from dataclasses import dataclass

from cluster.compare.devices import ACHIEVED, BY_NAME, Device, all_reduce_s
from cluster.compare.roofline import (
    ACTIVATION_BYTES,
    kv_bytes_per_token,
    weights_read,
)
from cluster.errors import BadValue
from cluster.hybrid.ffn import attention_parameters
from cluster.model.graph.graph import Model
from cluster.model.graph.latent_attention import ATTENTIONS
from cluster.model.graph.op import Op

GROUP = re.compile(r"(.+):(\d{1,5})", re.ASCII)
# Of the peak rate of operations that long prompts get. Assumption: half, as dense models are
# commonly trained at; bandwidth and collectives are measured, see `devices`.
PROMPT_RATE = 0.5
PER_RACK = {"GB200": 72, "Rubin": 72}  # NVL72
HGX_PER_RACK = 32  # four air-cooled machines of eight: assumption


@dataclass(frozen=True)
class Gpus:
    """`count` GPUs of a kind, tensor parallel, at the rates that they are measured to achieve."""

    device: Device
    count: int

    @property
    def name(self) -> str:
        """As people write it."""
        return f"{self.count} {self.device.name}"

    @property
    def racks(self) -> float:
        """The part of racks that they fill."""
        return self.count / PER_RACK.get(self.device.name, HGX_PER_RACK)

    @property
    def watts(self) -> float:
        """At their TDP, the devices alone."""
        assert self.device.tdp_w is not None, "gpus_of takes none without"
        return self.count * self.device.tdp_w

    def holds(self, num_bytes: float) -> bool:
        """Whether their memory has room."""
        return num_bytes <= self.count * self.device.memory_bytes

    def prompt_s(self, model: Model, prompt: int, weight_bytes: float) -> float:
        """Seconds of a prompt of one user: operations or weights, and two all-reduces a layer."""
        device, layers = self.device, len(model.layers)
        rate = device.ops8_per_s if weight_bytes <= 1 else device.ops16_per_s
        attention = sum(op.products_per_row(prompt) / 2 for op in _attentions(model))
        products = prompt * (weights_read(model, 1) + attention)
        compute_s = 2 * products / (self.count * rate * PROMPT_RATE)
        read = weights_read(model, prompt) * weight_bytes
        memory_s = read / (self.count * device.bytes_per_s * ACHIEVED)
        size = prompt * model.hidden.size * ACTIVATION_BYTES
        together_s = 2 * layers * all_reduce_s(device, self.count, size, eager=True)
        return max(compute_s, memory_s) + together_s

    def attention_s(
        self, model: Model, rows: int, context: int, weight_bytes: float, sequences: int
    ) -> float:
        """Seconds of the attention of one layer, with its all-reduce, for rows of sequences."""
        device = self.device
        kept = sequences * context * kv_bytes_per_token(model) / len(model.layers)
        mine = attention_parameters(model)
        moved = mine * weight_bytes + kept
        memory_s = moved / (self.count * device.bytes_per_s * ACHIEVED)
        rate = device.ops8_per_s if weight_bytes <= 1 else device.ops16_per_s
        scores = sum(op.products_per_row(context) for op in _attentions(model))
        products = rows * (mine + scores / len(model.layers))
        compute_s = 2 * products / (self.count * rate)
        size = rows * model.hidden.size * ACTIVATION_BYTES
        return max(memory_s, compute_s) + all_reduce_s(device, self.count, size, eager=True)

    def attention_bytes(self, model: Model, users: int, context: int, weight_bytes: float) -> float:
        """Memory of the attention's weights and of all caches."""
        weights = attention_parameters(model) * len(model.layers) * weight_bytes
        return weights + users * context * kv_bytes_per_token(model)


def _attentions(model: Model) -> list[Op]:
    return [op for layer in model.layers for op in layer.ops if isinstance(op, ATTENTIONS)]


def gpus_of(option: str, text: str) -> Gpus:
    """The group of B200:8; raises BadValue."""
    match = GROUP.fullmatch(text.strip())
    known = [name for name, device in BY_NAME.items() if device.tdp_w is not None]
    if not match:
        raise BadValue(option, text, "must be a GPU and how many, such as B200:8")
    if match[1] not in known:
        raise BadValue(option, text, f"names no GPU of known power; there are {', '.join(known)}")
    if int(match[2]) < 1:
        raise BadValue(option, text, "must be at least one GPU")
    return Gpus(BY_NAME[match[1]], int(match[2]))
