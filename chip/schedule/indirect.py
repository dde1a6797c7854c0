"""Chains that read and write words that are worked out: addresses, gathers and scatters."""

from collections.abc import Sequence

from chip.schedule.chain import Chain
from chip.schedule.flows import (
    ONCE,
    Access,
    Buffer,
    Doing,
    Flow,
    Loops,
    Queue,
    Rows,
    Streams,
    span,
    stepped,
)
from chip.spec import EAST, WEST


def addresses(
    chain: Chain, number: Rows, words: int, counted: Rows, loops: Loops, ready: int
) -> Flow:
    """number * words + counted, uint16 as a gather takes them, there from cycle `ready` on."""
    first = chain.vxm(
        "mul", number, words, loops=loops, at=ready - 2 * chain.spec.d_func("vxm.alu")
    )
    return chain.vxm("add", first, counted)


def gather(
    chain: Chain, tables: Sequence[tuple[Buffer, int]], words: Flow, position: int, side: int
) -> Flow:
    """Read those words of constants that `words` names on its way to `position` at a side.

    They are counted from a row of each table; several tables have parts of each word.
    """
    direction, delay = EAST if side == EAST else WEST, chain.spec.d_func("mem.gather")
    chain.emit(words, direction)
    cycle = words.cycle + abs(position - words.position) + delay
    low, width = cycle - chain.spec.along(direction, position), 0
    every = sum(table.region.slices for table, _ in tables)
    need, name = chain.stream(direction, every, low, words.loops), chain.name()
    for table, row in tables:
        _gather(chain, table, row, words, Streams(need, name, width))
        width += table.region.slices
    dtype = tables[0][0].region.dtype
    return Flow(chain.member, dtype, words.loops, cycle, position, name, need, direction)


def _gather(chain: Chain, table: Buffer, row: int, words: Flow, streams: Streams) -> None:
    """Read them from one table; addresses may lead to both of its banks, if it lies in both."""
    region, length = table.region, span(words.loops)
    units = range(region.index, region.index + region.slices)
    issues = [words.cycle + abs(chain.spec.slice_position(n) - words.position) for n in units]
    own = chain.spec.bank(region.address)
    banks = tuple(range(chain.spec.slice_banks)) if table.any_bank else (own,)
    chain.take(chain.slices("mem.r", table, issues, banks), issues[0], length)
    assert words.need is not None
    args = [region.address + row, region.words - row, 0, 0]
    doing = Doing("mem.gather", args, {2: (words.need, 0)}, [words.name, streams.name])
    spread = (3, streams.need, streams.plane)
    chain.add(Queue("mem.r", region.index), issues, doing, stepped(words.loops), spread)
    late = max(issues) + length - 1
    chain.accesses.append(Access(chain.member, Rows(table), ONCE, min(issues), late, False))


def scatter(
    chain: Chain, target: Buffer, issues: list[int], loops: Loops, words: Flow, data: Flow
) -> None:
    """Write data to the words of a buffer of columns that `words` name, anywhere in it."""
    region, length = target.region, span(loops)
    banks = tuple(range(chain.spec.slice_banks))
    chain.take(chain.slices("mem.w", target, issues, banks), issues[0], length)
    assert words.need is not None and data.need is not None
    args, names = [region.address, region.words, 0, 0], [words.name, data.name]
    doing = Doing("mem.scatter", args, {2: (words.need, 0)}, names)
    chain.add(Queue("mem.w", region.index), issues, doing, stepped(loops), (3, data.need, 0))
    whole: Loops = ((1, 1), (region.words, 1))
    late = max(issues) + length - 1
    chain.accesses.append(
        Access(chain.member, Rows(target), whole, min(issues), late, True, at_any_time=True)
    )
