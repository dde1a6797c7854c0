"""LLVM vectors, for the inner loops over SRAM words that numba would not make as good.

Written out because LLVM's vectoriser takes the vector length from the widest type, the float64 sum,
and converts four numbers at a time. LLVM splits these vectors to what the host has.
"""

import functools
from collections.abc import Callable, Iterable

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils as _cgutils
from numba.core.registry import cpu_target

from chip.jit.layout import GRAIN, QUARTERS, TURN, Untyped
from chip.jit.memory import INT, VOID, emitted
from chip.numerics.exact import MAX_LANES

cgutils: Untyped = _cgutils  # untyped
FEATURES = cpu_target.target_context.codegen().magic_tuple()[-1]
HALF_IN_HARDWARE = "+f16c" in FEATURES or "+fullfp16" in FEATURES
FLOAT64_LANES = 8 if "+avx512f" in FEATURES else 4  # float64 numbers in a vector
DOT_OF_BYTES = "+avx512vnni" in FEATURES  # whether products of four bytes are one instruction
PREFETCH_BYTES = 2560  # two words ahead
I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
FLOAT, DOUBLE = ir.FloatType(), ir.DoubleType()
CONTRACT = ("contract",)  # a fused multiply-add is welcome: the product is exact anyway
Step = Callable[[Untyped, list[Untyped]], None]  # given the lane and the places of totals


def over_lanes(
    builder: Untyped,
    lanes: Untyped,
    step: Step,
    totals: tuple[Untyped, int] = (None, 0),
    grain: int = GRAIN,
) -> list[Untyped]:
    """Run a step on every grain of the lanes; return the totals, (type, number).

    They start from +0, so that no sum is -0: the definition adds +0 for that.
    """
    kind, count = totals
    places = [
        cgutils.alloca_once_value(builder, ir.Constant(kind, [0] * kind.count))
        for _ in range(count)
    ]
    with cgutils.for_range_slice(builder, I64(0), lanes, I64(grain), inc=True) as (lane, _):
        step(lane, places)
    return [builder.load(place) for place in places]


def halved(
    builder: Untyped, vector: Untyped, least: int, add: Callable[[Untyped, Untyped], Untyped]
) -> Untyped:
    """Add the halves of a vector until it has `least` elements."""
    count = vector.type.count
    while count > least:
        count //= 2
        low, high = (
            builder.shuffle_vector(vector, vector, numbers(range(first, first + count)))
            for first in (0, count)
        )
        vector = add(low, high)
    return vector


def any_set(bits: int, kept: int, count: int) -> Callable[..., int]:
    """A function of `count` addresses: whether GRAIN integers there have a bit of `kept` set."""

    @emitted(INT, *(INT,) * count)
    def found(_context: Untyped, builder: Untyped, args: Untyped) -> Untyped:
        kind, flags = ir.VectorType(ir.IntType(bits), GRAIN), ir.IntType(GRAIN)
        whole = functools.reduce(builder.or_, (load(builder, at, kind) for at in args))
        mask, zero = (ir.Constant(kind, [n] * GRAIN) for n in (kept, 0))
        seen = builder.icmp_unsigned("!=", builder.and_(whole, mask), zero)
        some = builder.icmp_unsigned("!=", builder.bitcast(seen, flags), ir.Constant(flags, 0))
        return builder.zext(some, I64)

    return found


def half_to_float(builder: Untyped, bits: Untyped) -> Untyped:
    """Convert fp16 bits to fp32; without hardware for it, by exact integer tricks.

    The tricks make finite numbers of inf and NaN. The callers find those by their bits.
    """
    count = bits.type.count
    floats, wide = ir.VectorType(FLOAT, count), ir.VectorType(I32, count)
    if HALF_IN_HARDWARE:
        return builder.fpext(builder.bitcast(bits, ir.VectorType(ir.HalfType(), count)), floats)
    shifted = builder.shl(builder.sext(bits, wide), ir.Constant(wide, [13] * count))
    kept = builder.and_(shifted, ir.Constant(wide, [0x8FFFE000] * count))
    return builder.fmul(builder.bitcast(kept, floats), ir.Constant(floats, [2.0**112] * count))


def prefetch(builder: Untyped, address: Untyped, lines: int) -> None:
    """Fetch cache lines some words ahead of an address."""
    for line in range(lines):
        ahead = builder.add(address, I64(PREFETCH_BYTES + 64 * line))
        place = builder.inttoptr(ahead, I8.as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [place.type, I32, I32, I32])
        function = builder.module.declare_intrinsic("llvm.prefetch", (place.type,), kind)
        builder.call(function, [place, I32(0), I32(3), I32(1)])  # to read, keep, data


def plus(builder: Untyped, address: Untyped, offset: Untyped, times: int = 1) -> Untyped:
    """address + times * offset."""
    return builder.add(address, builder.mul(offset, I64(times)))


def load(builder: Untyped, address: Untyped, kind: Untyped) -> Untyped:
    """The vector or number at an address."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)


def store(builder: Untyped, address: Untyped, value: Untyped) -> None:
    """Write a vector or number to an address."""
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=1)


def numbers(these: Iterable[int]) -> Untyped:
    """A constant vector of integers, as for shuffles."""
    listed = list(these)
    return ir.Constant(ir.VectorType(I32, len(listed)), listed)


def places(builder: Untyped, place: Untyped, offset: Untyped = None) -> list[Untyped]:
    """The addresses of the four quarters of a word, moved by an offset."""
    quarters = [builder.extract_value(place, quarter) for quarter in range(QUARTERS)]
    return quarters if offset is None else [builder.add(quarter, offset) for quarter in quarters]


def turned(bits: int) -> Callable[[int, int, int, int], None]:
    """A function that turns each TURN lanes round: f(target, source, by, lanes) of addresses.

    Lane i of them is lane (i + by) % TURN of the source. They are written down twice in a row, and
    read from `by` on: in a fifth of the time of lanes that are looked up one by one.
    """
    kind = ir.VectorType(ir.IntType(bits), TURN)
    size = bits // 8

    @emitted(VOID, INT, INT, INT, INT)
    def turn(_context: Untyped, builder: Untyped, args: Untyped) -> None:
        target, source, by, lanes = args
        buffer = cgutils.alloca_once(builder, I64, 2 * MAX_LANES * size // 8)
        twice = builder.ptrtoint(buffer, I64)

        def write(lane: Untyped, _totals: list[Untyped]) -> None:
            some = load(builder, plus(builder, source, lane, size), kind)
            for copy in range(2):
                at = plus(builder, twice, lane, 2 * size)
                store(builder, builder.add(at, I64(copy * TURN * size)), some)

        def read(lane: Untyped, _totals: list[Untyped]) -> None:
            at = plus(builder, plus(builder, twice, lane, 2 * size), by, size)
            store(builder, plus(builder, target, lane, size), load(builder, at, kind))

        over_lanes(builder, lanes, write, grain=TURN)
        over_lanes(builder, lanes, read, grain=TURN)

    return turn
