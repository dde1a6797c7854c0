"""GPUs and TPUs as their makers publish them, and the latencies of collectives measured on them.

Dense rates, without sparsity. Sources are said per device; `assumed` names what none gives.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

GIGA, TERA = 1e9, 1e12


@dataclass(frozen=True)
class Device:
    """One accelerator. `scale_up` is how many share the fast network, `sizes` which are compared.

    `link_bytes_per_s` is of both directions of a device's scale-up links, or None where a torus has
    links of `torus_bytes_per_s` each way instead.
    """

    name: str
    memory_bytes: float
    bytes_per_s: float
    ops16_per_s: float
    ops8_per_s: float
    tdp_w: float | None
    link_bytes_per_s: float | None
    sizes: tuple[int, ...]
    source: str
    torus_bytes_per_s: float | None = None
    torus_dimensions: int = 0
    assumed: str = ""


def _gpu(
    name: str, gb: float, tb_s: float, bf16: float, fp8: float, tdp_w: float, gb_s: float,
    source: str, sizes: tuple[int, ...] = (1, 2, 4, 8), assumed: str = "",
) -> Device:  # fmt: skip
    return Device(
        name, gb * GIGA, tb_s * TERA, bf16 * TERA, fp8 * TERA, tdp_w, gb_s * GIGA, sizes, source,
        assumed=assumed,
    )  # fmt: skip


def _tpu(
    name: str, gb: float, tb_s: float, bf16: float, fp8: float, link: float | None, dims: int,
    source: str, sizes: tuple[int, ...], assumed: str = "",
) -> Device:  # fmt: skip
    return Device(
        name, gb * GIGA, tb_s * TERA, bf16 * TERA, fp8 * TERA, None, None, sizes, source,
        (link or 90) * GIGA, dims, assumed,
    )  # fmt: skip


_NVIDIA = "NVIDIA data sheet"
_RECALLED = "AMD data sheet, from memory: unverified"
_SCALING = "Google Cloud TPU documentation; How to Scale Your Model (JAX team), TPUs"
DEVICES = (
    _gpu("A100", 80, 2.04, 312, 624, 400, 600, f"{_NVIDIA}, SXM 80 GB; int8 for fp8"),
    _gpu("H100", 80, 3.35, 989, 1979, 700, 900, f"{_NVIDIA}, SXM"),
    _gpu("H200", 141, 4.8, 989, 1979, 700, 900, _NVIDIA),
    _gpu("B200", 180, 8.0, 2250, 4500, 1000, 1800, f"{_NVIDIA}, HGX"),
    _gpu("GB200", 186, 8.0, 2500, 5000, 1200, 1800, f"{_NVIDIA}, NVL72", (1, 8, 72)),
    _gpu("Rubin", 288, 22.0, 8000, 16000, 1800, 3600, "NVIDIA blog, March 2026; press for the TDP",
         (1, 8, 72), "dense bf16 and fp8 rates: only fp4 is published"),
    _gpu("MI300X", 192, 5.3, 1307, 2615, 750, 896, _RECALLED),
    _gpu("MI355X", 288, 8.0, 2500, 5000, 1400, 1075, _RECALLED),
    _tpu("TPU v4", 32, 1.2, 275, 275, 45, 3, _SCALING, (1, 8, 64)),
    _tpu("TPU v5e", 16, 0.81, 197, 394, 45, 2, _SCALING, (1, 8, 64)),
    _tpu("TPU v5p", 95, 2.8, 459, 918, 90, 3, _SCALING, (1, 8, 64)),
    _tpu("TPU v6e", 32, 1.6, 918, 1836, 90, 2, _SCALING, (1, 8, 64)),
    _tpu("TPU 7x", 206, 7.37, 2307, 4614, None, 3, _SCALING, (1, 8, 64), "link rate, as v5p"),
)  # fmt: skip
BY_NAME = MappingProxyType({device.name: device for device in DEVICES})

# Seconds of an all-reduce of up to 64 KiB by devices, NCCL on H100: inside a CUDA graph, and called
# eagerly. nccl-collectives-bench (raw nccl-tests logs, 4 x H100 NVSwitch, NCCL 2.18.3); 2 devices
# from NVIDIA/nccl issue 1259, whose ratio also scales the eager figure. Beyond 4 devices and on
# other makes, the figure of 4 x H100 is an assumption.
GRAPH_S: Mapping[int, float] = MappingProxyType({1: 0.0, 2: 6.0e-6, 4: 13.4e-6})
EAGER_S: Mapping[int, float] = MappingProxyType({1: 0.0, 2: 12.0e-6, 4: 25.1e-6})
ICI_HOP_S = 1e-6  # "about 1 us", an exercise of How to Scale Your Model; not a measurement
# Of the memory bandwidth that a decoder gets on one A100: 104.9 tokens/s x 13.3 GB / 2.04 TB/s.
ACHIEVED = 0.685  # gpt-fast, README, Llama-2-7B bf16


def all_reduce_s(device: Device, count: int, num_bytes: float, eager: bool) -> float:
    """Seconds of one all-reduce of `num_bytes` over `count` devices."""
    if count == 1:
        return 0.0
    if device.torus_bytes_per_s:
        side: float = max(2.0, count ** (1 / device.torus_dimensions))
        hops = device.torus_dimensions * side / 2
        rate = 2 * device.torus_dimensions * device.torus_bytes_per_s
        return 2 * hops * ICI_HOP_S + 2 * num_bytes / rate
    assert device.link_bytes_per_s is not None
    table = EAGER_S if eager else GRAPH_S
    beyond = max(0.0, num_bytes - 65536)
    return table[min(4, count)] + 2 * beyond * (count - 1) / count / (device.link_bytes_per_s / 2)
