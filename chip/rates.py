"""What follows from a chip's fields: memory, bandwidths and peak rates."""

from dataclasses import dataclass

from chip.spec import ChipSpec

# Products of a plane in one cycle, by type of the weights: all of it for bytes, a quarter in fp16,
# where a pair of planes takes half a vector per cycle (ISCA20).
_TYPE_NAMES = {"f8": "fp8", "i8": "int8", "f16": "fp16"}


@dataclass(frozen=True)
class Rate:
    """An amount per cycle of `unit` ("B" or "op"), and what it is made of."""

    name: str
    per_cycle: int
    unit: str
    made_of: str

    def per_s(self, clock_hz: int) -> float:
        """The same, per second."""
        return float(self.per_cycle * clock_hz)


def rates(spec: ChipSpec) -> list[Rate]:
    """Peak rates of a chip, each with its arithmetic."""
    lanes, slices = spec.lanes, spec.slices
    found = [
        Rate("sram", 2 * slices * lanes, "B", f"{slices} slices x (read + write) x {lanes} B"),
        Rate("streams", 2 * spec.streams * lanes, "B", f"{2 * spec.streams} streams x {lanes} B"),
        Rate("weights", 2 * spec.lw_streams * lanes, "B", f"2 x {spec.lw_streams} streams"),
        Rate("fetch", spec.fetch_bytes_per_cycle, "B", "instructions of all queues"),
    ]
    for dtype in spec.mxm_types:
        products = spec.mxm_planes * lanes * lanes
        text = f"2 x {spec.mxm_planes} planes x {lanes} x {lanes}"
        if dtype == "f16":
            products //= 2 * spec.abc_interval_fp16
            text += f" / {2 * spec.abc_interval_fp16}"
        found.append(Rate(_TYPE_NAMES[dtype], 2 * products, "op", text))
    return found


def c2c_bytes_per_s(spec: ChipSpec) -> float:
    """Raw bytes of all ports, both ways; what a cable carries is said by its link profile."""
    return 2 * spec.c2c_ports * spec.c2c_port_bits_per_s / 8


def host_transfer_s(spec: ChipSpec, num_bytes: float) -> float:
    """Seconds of one transfer between a host's memory and a chip."""
    return spec.host_latency_s + num_bytes / spec.host_bytes_per_s
