"""Chains that add up rows of fp32, some of which may have travelled as fp16."""

from collections.abc import Sequence
from functools import lru_cache

from chip.schedule import Chain, Flow, Rows, run
from chip.spec import ChipSpec

# Operands of a chain of additions; each takes an ALU, and one is left to whoever else needs it.
MOST_OPERANDS = 15


def at_once(types: Sequence[str], to: str) -> int:
    """Operands of these types that a chain adds up: all, or the first for which there are ALUs.

    Narrow ones take another ALU each to be widened, and two to wait; a narrow sum one for that.
    """
    left = MOST_OPERANDS - 2 * any(dtype != "f32" for dtype in types) - (to != "f32")
    for number, dtype in enumerate(types):
        left -= 1 + (dtype != "f32")
        if left < 0:
            return number
    return len(types)


@lru_cache(maxsize=1 << 14)
def added(spec: ChipSpec, label: str, every: tuple[Rows, ...], count: int) -> Chain:
    """So many rows of all terms added up by member 0, into those that come last."""
    chain = Chain(spec, f"{label}: add")
    loops, (first, *rest), out = run(count), every[:-1], every[-1]
    types = [rows.buffer.region.dtype for rows in every]
    slices = [rows.buffer.region.index for rows in every]
    wide = types[0] == "f32"
    if not rest and types[0] == types[-1]:
        total: Flow = chain.vxm("copy", first, loops=loops)
    elif not wide or not rest or slices[0] == slices[1] or types[1] != "f32":
        total = chain.vxm("copy" if wide else "to_f32", first, loops=loops)
    else:
        total = chain.vxm("add", first, rest[0], loops=loops)
        rest = rest[1:]
    done = len(every) - 1 - len(rest)
    read = {(0, index) for index in slices[:done]}
    for term, dtype, index in zip(rest, types[done:], slices[done:], strict=False):
        if dtype == "f32":
            read.add((total.cycle, index))
            total = chain.vxm("add", total, term)
            continue
        at = total.cycle - spec.d_func("vxm.convert")  # widened while the sum so far is made
        if (at, index) in read:  # unless others are read there then
            total = chain.vxm("copy", total)
            at = total.cycle - spec.d_func("vxm.convert")
        read.add((at, index))
        total = chain.vxm("add", total, chain.vxm("to_f32", term, loops=loops, at=at))
    if types[-1] != total.dtype:
        total = chain.vxm("to_f16", total)
    chain.write(total, out)
    return chain
