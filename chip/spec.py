"""The chip as data: geometry, timing and host link of one LPU, each number with its source.

Sources: ISCA20 is Abts et al., "Think Fast: A Tensor Streaming Processor", ISCA 2020; ISCA22 is
Abts et al., "A Software-defined Tensor Streaming Multiprocessor", ISCA 2022; BRIEF is the GroqChip
processor product brief v1.7; FLOW is the vendor's GroqFlow performance model; LPX is the vendor's
description of the Groq 3 LPU and LPX rack, March 2026. What no source gives is an *assumption*: a
note that begins with that word, or an entry of `conventions`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property
from types import MappingProxyType
from typing import Annotated, get_type_hints

from chip.errors import ProgramError, SpecError
from chip.hashed import hashed_once
from chip.numerics.exact import MAX_LANES

EAST, WEST = 0, 1
HEMISPHERES = "EW"

# Functional delay d_func of each op, in cycles from issue to its result on the stream register.
# ISCA'20 makes d_func part of the ISA contract but publishes no table: every number is an
# assumption. Ops that move data across superlanes include the 20-cycle tile skew (ISCA20).
ASSUMED_D_FUNC_CYCLES = MappingProxyType(
    {
        "mem.read": 5,
        "mem.gather": 8,
        "vxm.alu": 4,
        "vxm.convert": 4,
        "vxm.exp": 16,
        "vxm.rsqrt": 16,
        "vxm.tanh": 16,
        "vxm.sqrt": 16,
        "vxm.recip": 16,
        "mxm.abc": 24,
        "mxm.acc": 4,
        "sxm.permute": 24,
        "sxm.distribute": 4,
        "sxm.shift": 24,
        "sxm.select": 4,
        "sxm.rotate": 4,
        "sxm.transpose": 4,
        "c2c.receive": 4,
    }
)


ASSUMED = "assumption"
MXM_TYPES = ("f8", "i8", "f16")
NO_NOTES: Mapping[str, str] = MappingProxyType({})


@hashed_once
@dataclass(frozen=True)
class ChipSpec:
    """One chip generation. All lengths are counts, all times are cycles of `clock_hz`.

    A field's note says where the number of GroqChip 1 comes from; `notes` say so for another chip.
    Raises SpecError for numbers that make no chip.
    """

    name: str = "groqchip1"
    clock_hz: Annotated[int, "BRIEF: nominal; ISCA20 analyses 1.0 GHz"] = 900_000_000
    lanes: Annotated[int, "ISCA20: 20 superlanes x 16 lanes"] = 320
    superlane_lanes: Annotated[int, "ISCA20"] = 16
    hemisphere_slices: Annotated[int, "ISCA20: MEM slices per hemisphere"] = 44
    slice_words: Annotated[int, "ISCA20: 13-bit word address, 16 B per tile"] = 8192
    slice_banks: Annotated[int, "ISCA20: one read and one write per cycle, in opposite banks"] = 2
    streams: Annotated[int, "ISCA20: logical streams per direction"] = 32
    vxm_alus: Annotated[int, "ISCA20: 4 x 4 ALUs per lane"] = 16
    sxm_queues: Annotated[int, "ISCA20: 144 queues are 2 x (44 MEM + 14 SXM + 6 MXM) + 16 VXM"] = 14
    mxm_planes: Annotated[int, "ISCA20: of lanes x lanes products, half on each side"] = 4
    mxm_types: Annotated[tuple[str, ...], "ISCA20: int8 and fp16"] = ("i8", "f16")
    lw_streams: Annotated[int, "ISCA20: weights enter on 32 streams, 16 on each side"] = 16
    abc_interval_fp16: Annotated[int, "ISCA20: a plane pair takes K = 160 fp16 per cycle"] = 2
    accumulator_depth: Annotated[int, "assumption: 32-bit vectors per plane"] = 256
    c2c_ports: Annotated[int, "ISCA20: 16 x4 links; ISCA22 cables 11 of them in a node"] = 16
    c2c_port_bits_per_s: Annotated[int, "ISCA20: 4 lanes of up to 30 Gb/s, each way"] = 120 * 10**9
    hac_period_cycles: Annotated[int, "ISCA22: an epoch, below 256; 252 in one account of it"] = 252
    barrier_cycles: Annotated[int, "assumption: Sync to release by Notify; ISCA20 recalled"] = 35
    vector_bytes_on_wire: Annotated[int, "ISCA22: 320 B payload and 8 B of control"] = 328
    fetch_bytes_per_cycle: Annotated[int, "ISCA20: 144 queues x 16 B"] = 2304
    instruction_bytes: Annotated[int, "ISCA20"] = 16
    host_bytes_per_s: Annotated[float, "FLOW: effective PCIe Gen4 x16"] = 24e9
    host_latency_s: Annotated[float, "FLOW: per transfer"] = 10e-6
    d_func_cycles: Annotated[
        Mapping[str, int], "assumption: ISCA20 makes it part of the ISA but prints no table"
    ] = field(default_factory=lambda: ASSUMED_D_FUNC_CYCLES, hash=False)
    notes: Mapping[str, str] = field(default_factory=lambda: NO_NOTES, compare=False)
    conventions: tuple[str, ...] = field(
        default=(
            "one stream-register position per functional slice",
            "a MEM queue issues one read and one write instruction per cycle",
            "any VXM ALU can forward its result to any other",
            "C2C ports have queues of their own, beyond the published 144",
            "Config powers lanes down for the instructions of its own queue",
            "Rotate works on a window in the first 9 or 16 lanes of each superlane",
            "North, in shifts, is towards higher lanes",
            "the instruction word of an Ifetch is a fingerprint, its encoding is not published",
            "the SECDED code is a Hsiao code; only its width is published",
            "the six MXM queues of a side are LW, IW, and an ABC and an ACC for each plane",
        ),
        compare=False,
    )

    def __post_init__(self) -> None:
        check_spec(self)

    @property
    def sources(self) -> dict[str, str]:
        """Field -> where its number comes from, of all fields that are a number of the chip."""
        hints = get_type_hints(ChipSpec, include_extras=True)
        noted = {n: h.__metadata__[0] for n, h in hints.items() if hasattr(h, "__metadata__")}
        return noted | dict(self.notes)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What no source gives: names of fields, then conventions that are no field."""
        assumed = (n for n, source in self.sources.items() if source.startswith(ASSUMED))
        return (*assumed, *self.conventions)

    @cached_property
    def slices(self) -> int:
        return 2 * self.hemisphere_slices

    @cached_property
    def superlanes(self) -> int:
        """Tiles of a slice; an instruction reaches the last one this many cycles after issue."""
        return self.lanes // self.superlane_lanes

    @cached_property
    def bank_words(self) -> int:
        return self.slice_words // self.slice_banks

    @property
    def sram_bytes(self) -> int:
        """220 MiB on GroqChip 1 (ISCA20)."""
        return self.slices * self.slice_words * self.lanes

    # --- positions along the east-west axis -------------------------------------------------
    @cached_property
    def positions(self) -> int:
        """Stream-register positions: C2C, MXM, SXM and the MEM slices on both sides of the VXM."""
        return 2 * (self.hemisphere_slices + 3) + 1

    @cached_property
    def vxm_position(self) -> int:
        return self.hemisphere_slices + 3

    def slice_position(self, index: int) -> int:
        """Position of MEM slice `index`: 0.. are east, counted from the VXM outward, then west."""
        half = self.hemisphere_slices
        offset = index + 1 if index < half else -(index - half + 1)
        return self.vxm_position + offset

    def edge_position(self, unit: str, hemisphere: int) -> int:
        """Position of the SXM, MXM or C2C unit of a hemisphere (0 east, 1 west)."""
        outward = self.hemisphere_slices + {"sxm": 1, "mxm": 2, "c2c": 3}[unit]
        return self.vxm_position + (outward if hemisphere == EAST else -outward)

    def along(self, direction: int, position: int) -> int:
        """Distance travelled by a stream of `direction` when it passes `position`."""
        return position if direction == EAST else self.positions - 1 - position

    def d_func(self, timing: str) -> int:
        try:
            return self.d_func_cycles[timing]
        except KeyError:
            raise ProgramError(f"chip {self.name} has no timing entry for {timing!r}") from None

    def quickest(self, unit: str) -> int:
        """The smallest functional delay of a unit, in cycles."""
        return _quickest(self, unit)

    def bank(self, address: int) -> int:
        return address // self.bank_words


@cache
def _quickest(spec: ChipSpec, unit: str) -> int:
    return min(d for timing, d in spec.d_func_cycles.items() if timing.startswith(f"{unit}."))


# --- what makes a chip ------------------------------------------------------------------------
_NAME = re.compile(r"\w[\w.-]{0,63}", re.ASCII)
_AT_LEAST = {
    "lanes": 16,
    "clock_hz": 1_000_000,
    "slice_words": 2,
    "hemisphere_slices": 4,
    "accumulator_depth": 1,
}
_AT_MOST = {
    "clock_hz": 100_000_000_000,
    "lanes": MAX_LANES,  # of exact dot products
    "slice_words": 1 << 24,
    "hemisphere_slices": 1024,
    "streams": 32,  # stream codes of an instruction are six bits
    "vxm_alus": 64,
    "accumulator_depth": 1 << 16,
    "c2c_ports": 1024,
}


def check_spec(spec: ChipSpec) -> None:
    """Raise SpecError, with the field and what it must be, for a chip that cannot be."""
    for one in fields(spec):
        value = getattr(spec, one.name)
        if one.name in ("name", "notes", "conventions", "d_func_cycles", "mxm_types"):
            continue
        if one.name in ("host_bytes_per_s", "host_latency_s"):
            if type(value) not in (int, float) or not 0 < value < float("inf"):
                raise SpecError(spec.name, one.name, value, "must be a positive number")
            continue
        low, high = _AT_LEAST.get(one.name, 1), _AT_MOST.get(one.name, 1 << 40)
        if type(value) is not int or not low <= value <= high:
            raise SpecError(spec.name, one.name, value, f"must be an integer of {low} to {high}")
    rules = (
        (
            "name",
            isinstance(spec.name, str) and bool(_NAME.fullmatch(spec.name)),
            "must be at most 64 letters, digits, dots and hyphens",
        ),
        ("lanes", spec.lanes % spec.superlane_lanes == 0, "must be whole superlanes"),
        ("hemisphere_slices", spec.hemisphere_slices % 4 == 0, "must be a multiple of 4"),
        ("slice_words", spec.slice_words % spec.slice_banks == 0, "must be whole banks"),
        ("streams", spec.streams == 32, "must be 32: an instruction names streams by six bits"),
        ("lw_streams", spec.lw_streams == 16, "must be 16: a weight load is eight fp16 columns"),
        ("mxm_planes", spec.mxm_planes == 4, "must be 4: a pair of planes on each side"),
    )
    for name, holds, rule in rules:
        if not holds:
            raise SpecError(spec.name, name, getattr(spec, name), rule)
    types = spec.mxm_types
    known_types = isinstance(types, tuple) and all(one in MXM_TYPES for one in types)
    if not types or not known_types:
        raise SpecError(spec.name, "mxm_types", types, f"must be some of {', '.join(MXM_TYPES)}")
    unknown = set(spec.d_func_cycles) ^ set(ASSUMED_D_FUNC_CYCLES)
    if unknown:
        known = ", ".join(ASSUMED_D_FUNC_CYCLES)
        raise SpecError(spec.name, "d_func_cycles", min(unknown), f"must be all of: {known}")
    for timing, cycles in spec.d_func_cycles.items():
        if type(cycles) is not int or not 1 <= cycles <= 10_000:
            raise SpecError(spec.name, f"d_func_cycles.{timing}", cycles, "must be 1 to 10000")


# --- the generations --------------------------------------------------------------------------
GROQCHIP1 = ChipSpec()
GROQCHIP1_1000 = replace(
    GROQCHIP1,
    name="groqchip1-1000mhz",
    clock_hz=1_000_000_000,
    notes={"clock_hz": "ISCA20: the clock of the paper's analysis, 820 TOPS int8"},
)
GROQCHIP1_1250 = replace(
    GROQCHIP1,
    name="groqchip1-1250mhz",
    clock_hz=1_250_000_000,
    notes={"clock_hz": "Linley newsletter, 2020-11: fastest clock quoted, 1 PetaOp at 300 W"},
)
# Groq 3 LPU. Published are the totals: 500 MB of SRAM, 150 TB/s, 1.2 PFLOPS in fp8, 96 x 112 Gb/s,
# 320-B vectors. The rest is the v1 chip, with the one number of slices and the one clock for which
# v1's own arithmetic gives these totals: 160 slices read and write 102,400 B per cycle and
# 4 x 320 x 320 products make 819,200 operations; at 1.465 GHz that is 150.0 TB/s and 1.200 PFLOPS.
_LP30_NOTES = {
    "clock_hz": "assumption: not disclosed; gives 150 TB/s and 1.2 PFLOPS with the geometry below",
    "lanes": "LPX: 320-B vectors",
    "hemisphere_slices": "assumption: 160 slices x (read + write) x 320 B x clock = 150 TB/s (LPX)",
    "slice_words": "assumption: 500 MB (LPX) over 160 slices of 320-B words",
    "mxm_planes": "assumption: the planes of v1; x 2 x 320 x 320 x clock = 1.2 PFLOPS fp8 (LPX)",
    "mxm_types": "LPX: fp8; int8 and fp16 are an assumption",
    "c2c_ports": "LPX: 96 lanes of 112 Gb/s; one lane as one port is an assumption",
    "c2c_port_bits_per_s": "LPX: 112 Gb/s, each way",
    "fetch_bytes_per_cycle": "assumption: 2 x (80 + 14 + 6) + 16 queues x 16 B",
    "host_bytes_per_s": "assumption: as GroqChip 1",
    "host_latency_s": "assumption: as GroqChip 1",
}
_AS_V1 = ("superlane_lanes", "slice_banks", "streams", "vxm_alus", "sxm_queues", "lw_streams",
          "abc_interval_fp16", "vector_bytes_on_wire", "instruction_bytes")  # fmt: skip
LP30 = replace(
    GROQCHIP1,
    name="lp30",
    clock_hz=1_465_000_000,
    hemisphere_slices=80,
    slice_words=9766,
    mxm_types=MXM_TYPES,
    c2c_ports=96,
    c2c_port_bits_per_s=112 * 10**9,
    fetch_bytes_per_cycle=3456,
    conventions=(
        *GROQCHIP1.conventions,
        "power (TDP) and process are not disclosed, and not modelled",
    ),
    notes=_LP30_NOTES | dict.fromkeys(_AS_V1, "assumption: as GroqChip 1"),
)
# Same geometry as GroqChip 1 with less memory and all MXM types, so that tests are quick.
TINY = replace(
    GROQCHIP1,
    name="tiny",
    slice_words=1024,
    mxm_types=MXM_TYPES,
    notes={"slice_words": "of tests: an eighth", "mxm_types": "of tests: all"},
)
SPECS = MappingProxyType(
    {spec.name: spec for spec in (GROQCHIP1, GROQCHIP1_1000, GROQCHIP1_1250, LP30, TINY)}
)
