"""What the papers say of one chip, beside what programs measure on the emulated one.

`ROWS` are functions of a ChipSpec; each builds a program that saturates a resource, links and runs
it, checks what it computed, and returns a `Row`. Sources: ISCA20 is Abts et al., "Think Fast: A
Tensor Streaming Processor", ISCA 2020; BRIEF is the GroqChip product brief v1.7.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chip import saturate
from chip.core import Chip
from chip.errors import ChipError, EmptyStream, RateExceeded
from chip.isa import NUMPY_TYPES, WIDTHS
from chip.linker import link
from chip.linker.timeline import Issue, timeline
from chip.linker.windows import completion
from chip.program import Program, Region
from chip.spec import EAST, GROQCHIP1, WEST, ChipSpec
from chip.sram import GROUP, Sram
from chip.wire import pack, unpack

Array = npt.NDArray[np.integer]
COUNT = 128  # cycles that a saturating program runs for, more than it takes to cross the chip
VECTORS = 256  # activations per plane, as many as accumulators


@dataclass(frozen=True)
class Row:
    """One published number and ours; `tolerance` is relative, 0 for exactly equal."""

    id: str
    what: str
    published: float
    ours: float
    unit: str
    source: str
    tolerance: float = 0.0
    note: str = ""

    @property
    def error(self) -> float:
        return abs(self.ours - self.published) / self.published

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance


def sram_size(spec: ChipSpec = GROQCHIP1) -> Row:
    """V01: bytes of all slices that the chip allocates."""
    memory = Sram(spec)
    size = sum(memory.group(index).nbytes for index in range(0, spec.slices, GROUP))
    what = "SRAM of a chip: 88 slices x 20 tiles x 8,192 words x 16 B"
    return Row("V01", what, 220, size / 2**20, "MiB", "ISCA20")


def stream_bandwidth(spec: ChipSpec = GROQCHIP1) -> Row:
    """V02: bytes that cross the VXM per cycle, and arrive."""
    chip, image = _filled(spec)
    _run(chip, saturate.streams(spec, COUNT))
    half = spec.hemisphere_slices
    moved = 0
    for n in range(spec.streams):
        for source, target in ((half + n, n), (n, half + n)):
            moved += _copied(chip, image, source, target)
    return Row("V02", "stream bandwidth", 20_480, moved / COUNT, "B/cycle", "ISCA20")


def sram_bandwidth(spec: ChipSpec = GROQCHIP1) -> Row:
    """V03: bytes read and written in the cycles in which all slices do both."""
    chip, image = _filled(spec)
    what = saturate.sram(spec, COUNT)
    _run(chip, what)
    row = sorted(range(spec.slices), key=spec.slice_position)
    for source, target in zip([row[-1], *row], row, strict=False):
        _copied(chip, image, source, target)
    issues = timeline(what, spec)
    per_cycle = np.bincount(np.concatenate([issue.cycles for issue in issues]))
    rate = int(per_cycle.max()) * spec.lanes
    return Row("V03", "SRAM bandwidth, 1R + 1W per slice", 56_320, rate, "B/cycle", "ISCA20")


def fetch_rate(spec: ChipSpec = GROQCHIP1) -> Row:
    """V04: bytes of the most instructions that may start in one cycle, on the published queues."""
    queues = saturate.published_queues(spec)
    allowed = 0
    for count in (len(queues), len(queues) + 1):
        try:
            link(saturate.fetch([*queues, "c2c.s:0"][:count], spec))
            allowed = count
        except RateExceeded:
            break
    what = f"instruction fetch, {len(queues)} queues x {spec.instruction_bytes} B"
    return Row("V04", what, 2_304, allowed * spec.instruction_bytes, "B/cycle", "ISCA20")


def peak_int8(spec: ChipSpec = GROQCHIP1) -> Row:
    """V05: int8 operations per second with four planes busy, at 1 GHz as published."""
    rate = _macs_per_cycle(spec, "i8")
    note = f"{rate:,.0f} MAC per cycle; at 0.9 GHz {2 * rate * 0.9e9 / 1e12:.0f} TOPS"
    return Row(
        "V05", "peak int8 at 1 GHz", 820, 2 * rate * 1e9 / 1e12, "TOPS", "ISCA20", 0.02, note
    )


def peak_fp16(spec: ChipSpec = GROQCHIP1) -> Row:
    """V06: fp16 operations per second with both pairs of planes busy, at 0.9 GHz."""
    rate = _macs_per_cycle(spec, "f16")
    note = f"{rate:,.0f} MAC per cycle"
    ours = 2 * rate * 0.9e9 / 1e12
    return Row("V06", "peak fp16 at 0.9 GHz", 188, ours, "TFLOPS", "BRIEF", 0.025, note)


def weight_install(spec: ChipSpec = GROQCHIP1) -> Row:
    """V07: cycles from the first LW to the last of those that fill four planes."""
    issues = timeline(saturate.products(spec, "i8", 1), spec)
    by_role = {role: [i for i in issues if i.op.role == role] for role in ("loads", "installs")}
    first = min(issue.cycle for issue in by_role["loads"])
    last = max(issue.last_cycle for issue in by_role["loads"])
    columns = sum(len(issue.cycles) for issue in by_role["loads"]) * spec.lw_streams
    if columns * spec.lanes != 409_600:
        raise ChipError(f"V07 loads {columns * spec.lanes} weights")
    readers = [
        i
        for i in issues
        if i.op.role == "read" and i.unit % spec.hemisphere_slices >= saturate.WEIGHTS
    ]
    transit = first - min(issue.cycle for issue in readers)
    installed = max(issue.last_cycle for issue in by_role["installs"]) - first
    note = (
        f"from SRAM to the plane: {transit} cycles for the first (a read, then one per "
        f"position); skew to the last tile {spec.superlanes}; last IW "
        f"{installed} after the first LW"
    )
    what = "409,600 weights: last LW after the first (published: < 40 cycles)"
    return Row("V07", what, 39, last - first, "cycles", "ISCA20", 0, note)


def latency_law(spec: ChipSpec = GROQCHIP1) -> Row:
    """V08: pairs of units that keep T = N + d_func + distance, of all there are.

    A value is seen by its consumer in exactly the cycle of the law, and neither before nor after;
    a write of it is over N cycles, one per tile, later.
    """
    pairs = kept = 0
    for kind, unit in _units(spec):
        for direction in (EAST, WEST):
            found = _consumers(spec, kind, unit, direction)
            pairs += len(found)
            kept += len(found) if _keeps(spec, kind, unit, direction, found) else 0
    what = "pairs of units that keep T = N + d_func + distance, N = 20 tiles"
    return Row("V08", what, pairs, kept, "pairs", "ISCA20")


def barrier(spec: ChipSpec = GROQCHIP1) -> Row:
    """V09: cycles from a Notify to the first instruction of a queue that it releases."""
    notify = 7
    what = saturate.barrier(notify, spec)
    released = min(i.cycle for i in timeline(what, spec) if i.op.role == "read")
    note = "recalled from ISCA20, not verified; an assumption of the spec"
    what_is = "chip-wide barrier, Notify to release"
    return Row("V09", what_is, 35, released - notify, "cycles", "ISCA20", 5 / 35, note)


ROWS: tuple[Callable[[ChipSpec], Row], ...] = (
    sram_size,
    stream_bandwidth,
    sram_bandwidth,
    fetch_rate,
    peak_int8,
    peak_fp16,
    weight_install,
    latency_law,
    barrier,
)


# --- how ------------------------------------------------------------------------------------
def _filled(spec: ChipSpec) -> tuple[Chip, Array]:
    """A chip with random bytes in the first words of every slice [slices, words, lanes]."""
    chip = Chip(0, spec)
    rng = np.random.default_rng(11)
    image = rng.integers(0, 256, (spec.slices, COUNT, spec.lanes), np.uint8)
    for index, words in enumerate(image):
        chip.sram.write(index, np.arange(COUNT), words)
    return chip, image


def _run(chip: Chip, what: Program) -> None:
    ready = chip.load("it", pack(what), link(unpack(pack(what))))
    chip.begin("it")
    for segment in range(len(ready.segments)):
        chip.run(segment, {})
    chip.finish()


def _copied(chip: Chip, image: Array, source: int, target: int) -> int:
    """Bytes of a slice that arrived in the upper bank of another; raises unless all did."""
    words = chip.sram.read(target, chip.spec.bank_words + np.arange(COUNT))
    if not np.array_equal(words, image[source]):
        raise ChipError(f"slice {target} does not hold what slice {source} sent")
    return int(words.nbytes)


def _macs_per_cycle(spec: ChipSpec, format: str) -> float:
    """Products per cycle while all planes take activations; the sums are checked exactly."""
    chip, rng = Chip(0, spec), np.random.default_rng(12)
    dtype, tiles = NUMPY_TYPES[format], saturate.planes(spec, format)
    tall = Region(0, 0, tiles * spec.lanes, format, "columns")
    wide = Region(0, 0, VECTORS, format)
    wanted = {}
    for side in (EAST, WEST):
        base = spec.hemisphere_slices * side
        w = rng.integers(-9, 9, (tall.vectors, spec.lanes)).astype(dtype)
        chip.write(_moved(tall, base + saturate.WEIGHTS), w)
        for plane in range(tiles):
            x = rng.integers(-9, 9, (VECTORS, spec.lanes)).astype(dtype)
            index = base + saturate.ACTIVATIONS + WIDTHS[format] * plane
            for byte, planes in enumerate(
                np.moveaxis(x.view(np.uint8).reshape(*x.shape, -1), 2, 0)
            ):
                chip.sram.write(index + byte, np.arange(VECTORS), planes)
            tile = w[plane * spec.lanes : (plane + 1) * spec.lanes]
            wanted[base + saturate.SUMS + 4 * plane] = x.astype(np.int64) @ tile.astype(np.int64).T
    what = saturate.products(spec, format, VECTORS)
    _run(chip, what)
    for index, sums in wanted.items():
        out = Region(index, spec.bank_words, VECTORS, "i32" if format == "i8" else "f32")
        if not np.array_equal(chip.read(out), sums):
            raise ChipError(f"sums at slice {index} are not the products")
    return _rate(timeline(what, spec), spec, wide)


def _rate(issues: Sequence[Issue], spec: ChipSpec, wide: Region) -> float:
    streams = [issue for issue in issues if issue.op.role == "products"]
    cycles = np.concatenate([issue.cycles for issue in streams])
    interval = int(streams[0].instruction.loops[1][1])
    span = int(cycles.max() - cycles.min()) + interval
    return len(cycles) * spec.lanes * spec.lanes / span


def _moved(region: Region, index: int) -> Region:
    return Region(index, region.address, region.vectors, region.dtype, region.layout)


def _units(spec: ChipSpec) -> Iterator[tuple[str, int]]:
    yield from (("mem", index) for index in range(spec.slices))
    yield "vxm", 0
    yield from ((kind, side) for kind in ("sxm", "mxm", "c2c") for side in (EAST, WEST))


def _consumers(spec: ChipSpec, kind: str, unit: int, direction: int) -> list[tuple[str, int, int]]:
    """(kind, unit, distance) of the units downstream of a producer, slices last.

    The MXM's operand is two streams wide: the SXM next to it and the port behind it stand for it.
    """
    start = spec.along(direction, _position(spec, kind, unit))
    found = []
    for other, number in _units(spec):
        away = spec.along(direction, _position(spec, other, number)) - start
        if away > 0 and other != "mxm":
            found.append((other, number, away))
    return sorted(found, key=lambda one: (one[0] == "mem", one[2]))


def _keeps(
    spec: ChipSpec, kind: str, unit: int, direction: int, found: list[tuple[str, int, int]]
) -> bool:
    """Whether consumers see a producer's value on time, and the last neither early nor late."""
    last = found[-1:]
    if any(_linked(spec, kind, unit, direction, last, late) for late in (-1, 1) if last):
        return False
    issues = _linked(spec, kind, unit, direction, found, 0)
    if not issues or not found or found[-1][0] != "mem":
        return bool(issues)
    producer = next(i for i in issues if spec.streams * direction in _driven(i))
    writer = next(i for i in issues if (i.family, i.unit) == ("mem.w", found[-1][1]))
    law = spec.superlanes + spec.d_func(producer.op.timing) + found[-1][2]
    return completion(writer, spec) - producer.cycle == law


def _linked(
    spec: ChipSpec,
    kind: str,
    unit: int,
    direction: int,
    consumers: list[tuple[str, int, int]],
    late: int,
) -> Sequence[Issue]:
    """The issues, if all consumers find the value `late` cycles after the law's; none if not."""
    stream = spec.streams * direction
    draft, driven = saturate.one_value(spec, kind, unit, stream)
    for other, number, away in consumers:
        saturate.look(draft, other, number, driven + away + late, stream)
    what = draft.program()
    try:
        link(what)
    except EmptyStream:
        return []
    return timeline(what, spec)


def _driven(issue: Issue) -> tuple[int, ...]:
    index = issue.op.driven
    return () if index is None else (issue.instruction.args[index],)


def _position(spec: ChipSpec, kind: str, unit: int) -> int:
    if kind == "mem":
        return spec.slice_position(unit)
    return spec.vxm_position if kind == "vxm" else spec.edge_position(kind, unit % 2)
