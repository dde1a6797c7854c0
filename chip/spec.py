"""The published chip, as data: geometry, timing and host link of one LPU.

Sources: [ISCA20] Abts et al., "Think Fast: A Tensor Streaming Processor", ISCA 2020;
[ISCA22] Abts et al., "A Software-defined Tensor Streaming Multiprocessor", ISCA 2022;
[BRIEF] GroqChip processor product brief v1.7; [FLOW] the vendor's GroqFlow performance model.
What no source gives is an *assumption*, marked so at the field and listed in
`ChipSpec.assumptions`.
"""

from dataclasses import dataclass, field, replace
from types import MappingProxyType

from chip.errors import ProgramError

EAST, WEST = 0, 1
HEMISPHERES = "EW"

# Functional delay d_func of each op, in cycles from issue to its result on the stream register.
# ISCA'20 makes d_func part of the ISA contract but publishes no table: every number is an
# assumption. Ops that move data across superlanes include the 20-cycle tile skew [ISCA20].
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
        "c2c.receive": 4,
    }
)


@dataclass(frozen=True)
class ChipSpec:
    """One chip generation. All lengths are counts, all times are cycles of `clock_hz`."""

    name: str = "groqchip1"
    clock_hz: int = 900_000_000  # [BRIEF] nominal; 1.0 GHz in ISCA'20's analysis
    lanes: int = 320  # [ISCA20] 20 superlanes x 16 lanes
    superlane_lanes: int = 16  # [ISCA20]
    hemisphere_slices: int = 44  # [ISCA20] MEM slices per hemisphere
    slice_words: int = 8192  # [ISCA20] 13-bit word address, 16 B per tile
    slice_banks: int = 2  # [ISCA20] pseudo-dual-port: 1R + 1W per cycle in opposite banks
    streams: int = 32  # [ISCA20] logical streams per direction
    vxm_alus: int = 16  # [ISCA20] 4 x 4 ALUs per lane
    sxm_queues: int = 14  # queue split 44 + 14 + 6 per hemisphere, 16 VXM: sums to 144 [ISCA20]
    lw_streams: int = 16  # [ISCA20] 10,240 B/cycle ingest = 32 streams for the two hemispheres
    abc_interval_fp16: int = 2  # [ISCA20] a plane pair takes K = 160 fp16 products per cycle
    accumulator_depth: int = 256  # assumption: vectors per plane pair
    c2c_ports: int = 16  # [ISCA20] 16 x4 links; 11 of them cabled in a node [ISCA22]
    vector_bytes_on_wire: int = 328  # [ISCA22] 320 B payload and 8 B of control
    fetch_bytes_per_cycle: int = 2304  # [ISCA20] 144 queues x 16 B
    instruction_bytes: int = 16  # [ISCA20]
    host_bytes_per_s: float = 24e9  # [FLOW] effective PCIe Gen4 x16
    host_latency_s: float = 10e-6  # [FLOW] per transfer
    d_func_cycles: MappingProxyType[str, int] = field(default_factory=lambda: ASSUMED_D_FUNC_CYCLES)
    assumptions: tuple[str, ...] = (
        "accumulator_depth",
        "d_func_cycles",
        "one stream-register position per functional slice",
        "a MEM queue issues one read and one write instruction per cycle",
        "any VXM ALU can forward its result to any other",
        "C2C ports have queues of their own, beyond the published 144",
    )

    @property
    def slices(self) -> int:
        return 2 * self.hemisphere_slices

    @property
    def superlanes(self) -> int:
        """Tiles of a slice; an instruction reaches the last one this many cycles after issue."""
        return self.lanes // self.superlane_lanes

    @property
    def bank_words(self) -> int:
        return self.slice_words // self.slice_banks

    @property
    def sram_bytes(self) -> int:
        """220 MiB on GroqChip 1 [ISCA20]."""
        return self.slices * self.slice_words * self.lanes

    # --- positions along the east-west axis -------------------------------------------------
    @property
    def positions(self) -> int:
        """Stream-register positions: C2C, MXM, SXM and the MEM slices on both sides of the VXM."""
        return 2 * (self.hemisphere_slices + 3) + 1

    @property
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

    def bank(self, address: int) -> int:
        return address // self.bank_words


GROQCHIP1 = ChipSpec()
# Same geometry with less memory, so that tests of capacity are quick.
TINY = replace(GROQCHIP1, name="tiny", slice_words=1024)
SPECS = MappingProxyType({spec.name: spec for spec in (GROQCHIP1, TINY)})
