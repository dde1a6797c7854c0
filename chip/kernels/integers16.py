"""Activations of 16 bits as two rows of int8: whole steps, and the rest of each in 254ths of one.

With step = peak / 127, as of int8 rows, u is about step * (high + low / 254): high is u / step to
the nearest, low 254 times what that leaves. It is 127 at most, so that nothing saturates (of 256ths
there may be 128), and u is met to step / 508, which is peak / 64,516; by int8 to peak / 254.

Both halves meet the same weights while these are in the array. Their sums are exact in int32 up to
133,144 terms, of 127 * 127 each. 254 * high + low would not be from 525 terms on: it is made in
fp32, exactly below 2^24; beyond, each of three roundings is at most 2^-24 of what is rounded.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from chip.schedule import Chain, Flow, Loops, Rows, run
from chip.spec import ChipSpec

LOW_LEVELS = 254  # of a step, from one to the next
MOST_WAITS = 2  # instructions of the VXM in which a sum of upper halves waits for the lower one


@dataclass(frozen=True)
class LowHalves:
    """The lower halves of rows that meet a tile; sums leave by groups of so many tokens.

    In each, those of the lower halves come `gap_cycles` after those of the upper ones.
    """

    rows: Rows
    gap_cycles: int

    def groups(self, count: int) -> range:
        """The first token of each group."""
        return range(0, count, self.gap_cycles)

    def streaming_cycles(self, count: int, leave: bool) -> int:
        """Cycles of all halves of so many tokens, whose sums may `leave`."""
        return count + (len(self.groups(count)) * self.gap_cycles if leave else count)


def gap_cycles(spec: ChipSpec, tokens: int) -> int:
    """Cycles from an upper half to its lower one, in which the VXM can keep a sum."""
    step = spec.d_func("vxm.alu")
    return step * min(MOST_WAITS, -(-tokens // step))


def joined(chain: Chain, sums: Flow, gap: int, by_group: bool) -> Flow:
    """254 * high + low of int32 sums, in fp32.

    Loops are (half, token) of a group, or (tile, half) of one token.
    """
    both = chain.vxm("to_f32", sums)
    tiles, tokens = sums.loops
    loops: Loops = run(tokens[0]) if by_group else (tiles, (1, 1))
    high = chain.vxm("mul", chain.part(both, loops, 0), float(LOW_LEVELS))
    low = chain.part(both, loops, gap)
    return chain.vxm("add", chain.wait(high, low.cycle), low)


def write_halves(chain: Chain, scaled: Flow, high: Iterable[Rows], low: Iterable[Rows]) -> None:
    """Write steps, a VXM result, as upper and lower halves to each of these rows."""
    whole = None
    for rows in high:
        whole = chain.vxm("to_i8", scaled)
        chain.write(whole, rows)
    assert whole is not None
    taken = chain.vxm("to_f32", whole)
    rest = chain.vxm("sub", chain.wait(scaled, taken.cycle), taken)
    rest = chain.vxm("mul", rest, float(LOW_LEVELS))
    for rows in low:
        chain.write(chain.vxm("to_i8", rest), rows)
