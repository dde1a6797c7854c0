"""Energy of a program: what its instructions do, counted, times a table of energies.

No energy of an operation of this chip is published. The table has the relative energies of
Horowitz, "Computing's energy problem", ISSCC 2014 (45 nm), and two numbers fitted once, `scale` and
`idle_w`, so that a chip draws the published average on one program and the published TDP on
another; `lpu energy` shows the fit. All of it is an assumption, good for comparing programs.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields

from chip.isa import FORMATS, NO_STREAM, WIDTHS, Op, lookup
from chip.program import Instruction
from chip.spec import GROQCHIP1, ChipSpec

PICO = 1e-12
EVENT_OF_ROLE = {
    "read": "sram_read_bytes",
    "gather": "sram_read_bytes",
    "write": "sram_write_bytes",
    "scatter": "sram_write_bytes",
    "pointwise": "alu_lanes",
    "sums": "accumulated_lanes",
    "send": "link_bytes",
}


@dataclass(frozen=True)
class Activity:
    """What programs do: bytes moved, lanes computed, products made, instructions issued."""

    sram_read_bytes: int = 0
    sram_write_bytes: int = 0
    stream_bytes: int = 0
    alu_lanes: int = 0
    function_lanes: int = 0
    sxm_bytes: int = 0
    weight_bytes: int = 0
    fp16_products: int = 0
    byte_products: int = 0
    accumulated_lanes: int = 0
    link_bytes: int = 0
    issues: int = 0

    def __add__(self, other: "Activity") -> "Activity":
        return Activity(*(getattr(self, f) + getattr(other, f) for f in EVENTS))

    def times(self, count: int) -> "Activity":
        """The same, `count` times over."""
        return Activity(*(getattr(self, f) * count for f in EVENTS))


EVENTS = tuple(field.name for field in fields(Activity))


@dataclass(frozen=True)
class EnergyTable:
    """Picojoules per event at 45 nm, the factor from there to the chip, and constant power.

    `system_w` is what a chip's share of hosts, fans and power supplies draws besides it.
    """

    # Horowitz 2014, figure 1.1.9: SRAM of 32 KB and of 1 MB take 20 and 100 pJ per 8 bytes; a bank
    # of a MEM tile has 64 KB, between them.
    sram_read_bytes: float = 3.5
    sram_write_bytes: float = 3.5
    stream_bytes: float = 3.0  # assumption: 45 register hops and wire to the middle of the chip
    alu_lanes: float = 1.5  # fp32: 0.9 pJ add, 3.7 pJ multiply; half of the ALU work is less wide
    function_lanes: float = 20.0  # assumption: about ten fp32 operations
    sxm_bytes: float = 1.0  # assumption: a multiplexer and wire
    weight_bytes: float = 0.5  # assumption: two register writes in the array
    fp16_products: float = 1.5  # 1.1 pJ multiply and 0.4 pJ add
    byte_products: float = 0.23  # int8: 0.2 pJ multiply and 0.03 pJ add
    accumulated_lanes: float = 2.0  # 0.9 pJ fp32 add, and the accumulator's SRAM
    link_bytes: float = 150.0  # assumption: 5 pJ/bit at 14 nm, before `scale`
    issues: float = 60.0  # assumption: 16 B of instruction SRAM, and the way past 20 tiles
    scale: float = 1.0
    idle_w: float = 0.0
    system_w: float = 0.0

    def dynamic_j(self, activity: Activity) -> float:
        """Joules of what was done, without the constant power."""
        total = sum(getattr(activity, e) * getattr(self, e) for e in EVENTS)
        return float(total * self.scale * PICO)

    def parts_j(self, activity: Activity) -> dict[str, float]:
        """Joules by event."""
        factor = self.scale * PICO
        return {e: getattr(activity, e) * getattr(self, e) * factor for e in EVENTS}


AVERAGE_W, TDP_W, MAX_W = 185.0, 215.0, 300.0  # GroqChip product brief v1.7
SYSTEM_W = 388.0  # SHIP, MLSys 2026: provisioned per LPU with its share of the system
# Two unknowns from two published numbers, by `cluster/energy_fit.py` when a layer of BERT-base took
# 32,455 cycles. They stay: a quicker layer draws more (`lpu energy` says how far it is off by now),
# and energies of 14 nm that were fitted anew to each schedule would say nothing.
GROQCHIP1_ENERGY = EnergyTable(scale=0.384, idle_w=158.0, system_w=SYSTEM_W - TDP_W)


def energy_table(spec: ChipSpec) -> EnergyTable | None:
    """The table of a chip; None for one whose power nobody has published."""
    known = spec.hemisphere_slices == GROQCHIP1.hemisphere_slices
    return GROQCHIP1_ENERGY if known else None


def count(items: Iterable[tuple[str, int, Instruction]], spec: ChipSpec) -> Activity:
    """Add up (queue, issue cycle, instruction) of one chip's program."""
    return count_alike(((*item, 1) for item in items), spec)


def count_alike(items: Iterable[tuple[str, int, Instruction, int]], spec: ChipSpec) -> Activity:
    """The same, each followed by how many instructions there are that do the same as it.

    Those of the MXM stand each for itself, as what they do depends on what is installed.
    """
    found = dict.fromkeys(EVENTS, 0)
    installs: dict[str, list[tuple[int, Instruction]]] = {}
    streams: list[tuple[str, int, Instruction]] = []
    for queue, cycle, instruction, alike in items:
        op = lookup(instruction.op)
        if op.role == "installs":
            installs.setdefault(_side(queue), []).append((cycle, instruction))
        elif op.role == "products":
            streams.append((queue, cycle, instruction))
        _add(found, op, instruction, alike, spec.lanes)
    for queue, cycle, instruction in streams:
        columns = _columns(installs.get(_side(queue), []), cycle)
        wide = FORMATS[instruction.args[lookup(instruction.op).index("format")]] == "f16"
        kind = "fp16_products" if wide else "byte_products"
        found[kind] += instruction.count * columns * spec.lanes
    return Activity(**found)


def _side(queue: str) -> str:
    """Hemisphere of an MXM queue: even ones are east."""
    return str(int(queue.partition(":")[2]) % 2)


def _columns(installs: list[tuple[int, Instruction]], cycle: int) -> int:
    """Columns of the tile installed last before a cycle; a pass repeats one width."""
    before = [(at, one) for at, one in installs if at < cycle]
    if not before:
        return 0
    _, last = max(before, key=lambda item: item[0])
    return last.args[lookup(last.op).index("columns")]


def _add(found: dict[str, int], op: Op, instruction: Instruction, alike: int, lanes: int) -> None:
    """Count instructions: their unit's work, and the streams that they drive."""
    n = instruction.count * alike
    if op.role in ("control", "fetch"):
        return
    found["issues"] += n
    if op.role == "loads":
        found["weight_bytes"] += n * lanes * WIDTHS["w16"]
    elif op.is_function:
        found["function_lanes"] += n * lanes
    elif op.role in EVENT_OF_ROLE:
        found[EVENT_OF_ROLE[op.role]] += n * lanes
    if op.driven is not None and instruction.args[op.driven] != NO_STREAM:
        width = WIDTHS[op.element(op.driven, instruction.args)]
        found["stream_bytes"] += n * lanes * width
        if op.role == "lanes":
            found["sxm_bytes"] += n * lanes * width
