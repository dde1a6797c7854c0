"""Activations as int8: each token's rows are scaled by their largest magnitude and rounded.

step = max|u| / 127 and q = round(u * (127 / max|u|)), to nearest even, so that u is about q * step.
The products of q with int8 weights are exact int32 sums. Rows of 16 bits have a lower half besides.
"""

from dataclasses import dataclass, replace

from chip.isa import WIDTHS
from chip.kernels.integers16 import LOW_LEVELS, write_halves
from chip.kernels.lanes import FEW_BESIDE, reduce_lanes, runs
from chip.kernels.linear import deliver
from chip.kernels.work import Laid, Part, Steps, Work, common_runs, targets
from chip.schedule import ONCE, Buffer, Chain, Flow, Loops, Rows, run
from chip.spec import EAST, WEST

LEVELS = 127
FEW_BLOCKS = 13  # of rows that the chain rounds that finds their peak: each waits longer for it
SMALLEST_PEAK = 2.0**-100  # keeps 127 / peak finite where all is zero


@dataclass(frozen=True)
class Peaks:
    """[token] lane by lane the largest |x| of its blocks so far, noted as they are made.

    Blocks are noted in as many turns as `counts` has numbers of them.
    """

    work: Work
    name: str
    counts: tuple[int, ...]

    def note(self, chain: Chain, value: Flow, number: int, turn: int = 0) -> None:
        """Note block `number` of a turn, a VXM result."""
        chain.write(self.so_far(chain, value, number, turn), Rows(self._noted(turn, number)))

    def so_far(self, chain: Chain, value: Flow, number: int, turn: int = 0) -> Flow:
        """The largest |x| of such a block and those before it in its turn."""
        size = chain.vxm("abs", value)
        return chain.vxm("max", size, Rows(self._noted(turn, number - 1))) if number else size

    @property
    def last(self) -> tuple[Buffer, ...]:
        """What each turn has left."""
        turns = enumerate(self.counts)
        return tuple(self._noted(turn, count - 1) for turn, count in turns if count)

    def _noted(self, turn: int, number: int) -> Buffer:
        side = (EAST, WEST)[number % 2]
        return self.work.scratch(f"{self.name}.largest{turn}.{side}", 1, "f32", side)


@dataclass(frozen=True)
class Rounding:
    """Few rows x of one token that become integers `out` as soon as the last of them is made."""

    work: Work
    name: str
    x: Laid
    out: Laid
    steps: Steps

    def note(self, chain: Chain, value: Flow, block: int) -> None:
        """Note a block of x, a VXM result; the chain that makes the last one rounds them all."""
        work, blocks = self.work, self.x.layout.blocks
        peaks = Peaks(work, self.name, (blocks,))
        if block < blocks - 1:
            peaks.note(chain, value, block)
            return
        work.scratch(f"{self.name}.by0", 1, "f32", EAST)  # is for launches of more rows
        size = chain.vxm("max", peaks.so_far(chain, value, block), SMALLEST_PEAK)
        top = reduce_lanes(chain, "max", size, "f32")
        factor = _inverted(chain, top, self.steps, 0, self.out)
        _round_few(work, chain, self.x.copies[0], factor, self.out)

    def apart(self) -> None:
        """Round x, all of which is made."""
        quantise(self.work, self.name, self.x, self.out, self.steps)


def quantise(
    work: Work, name: str, x: Laid, out: Laid, steps: Steps, noted: Peaks | None = None
) -> None:
    """out = x as integers in all copies, and the step of each token; its peaks may be `noted`."""
    source, blocks = x.copies[0], x.layout.blocks
    if noted is None and work.whole is not None:
        noted = Peaks(work, name, (blocks,))
        note_all(work, x, noted)
    if noted is None:
        peak_and_rows(work, name, source, None, steps, out)
        return
    inverse = work.scratch(f"{name}.by0", 1, "f32", EAST)
    for start, count in runs(work.rows, "f32", FEW_BESIDE):
        chain = work.chain("int8: peak")
        sizes = [Rows(buffer, start) for buffer in noted.last]
        value = chain.vxm("max" if sizes[1:] else "copy", *sizes, loops=run(count))
        value = chain.vxm("max", value, SMALLEST_PEAK)
        top = reduce_lanes(chain, "max", value, "f32", work.part % 2, hurry=True)
        chain.write(_inverted(chain, top, steps, start, out), Rows(inverse, start))
        work.plan.place(chain)
    rounded(work, source, None, inverse, out)


def note_all(work: Work, x: Laid, noted: Peaks) -> None:
    """Note the peaks of x, block by block."""
    for block in range(x.layout.blocks):
        chain = work.chain("int8: peak")
        value = chain.vxm("copy", work.rows_of(x.copies[0], block), loops=run(work.rows))
        noted.note(chain, value, block)
        work.plan.place(chain)


def peak_and_rows(
    work: Work,
    name: str,
    x: tuple[Part, ...],
    gamma: Buffer | None,
    steps: Steps,
    out: Laid,
) -> None:
    """steps[m] = peak / 127 of token m in every lane, fp32; int8 rows of x * gamma in all copies.

    With lower halves there are 254 steps in each of these.

    The peak is the largest |x * gamma| of the token's rows (block, token); like the mean square of
    a norm, it is reduced over blocks as they come. Few rows are rounded as soon as it is there;
    others by a chain of their own, to which SRAM brings 127 / peak. Many rows of one token come at
    one a cycle.
    """
    pace, blocks = work.spec.d_func("vxm.alu"), out.layout.blocks
    few = blocks <= FEW_BLOCKS and work.rows <= pace
    if work.rows == 1 and not few and len(x) == 1:
        tops = _peaks_in_turn(work, name, Rows(x[0].buffer, x[0].row), gamma, blocks)
        _rounded_by(work, tops, x, gamma, steps, out)
        return
    inverse = work.scratch(f"{name}.by0", 1, "f32", EAST)
    for start in range(0, work.rows, pace):
        loops = run(min(pace, work.rows - start))
        chain = work.chain("int8: peak")
        total: Flow | None = None
        for block in range(blocks):
            rows = work.rows_of(x, block)
            rows = replace(rows, first=rows.first + start)
            value = chain.arrive(rows, work.spec.vxm_position, block * pace, loops)
            if gamma is not None:
                value = chain.vxm("mul", value, Rows(gamma, block, (0, 0)))
            size = chain.vxm("abs", value)
            total = chain.vxm("max", size, SMALLEST_PEAK if total is None else total)
        assert total is not None
        factor = _inverted(chain, reduce_lanes(chain, "max", total, "f32"), steps, start, out)
        if few:
            _round_few(work, chain, x, factor, out, gamma)
        else:
            chain.write(factor, Rows(inverse, start))
        work.plan.place(chain)
    if not few:
        rounded(work, x, gamma, inverse, out)


def _round_few(
    work: Work, chain: Chain, x: tuple[Part, ...], factor: Flow, out: Laid,
    gamma: Buffer | None = None,
) -> None:  # fmt: skip
    """int8(x * gamma * factor), block by block, for which copies of the factor wait."""
    early, blocks = work.spec.d_func("vxm.alu"), out.layout.blocks
    for block in range(blocks):
        scaled: Flow | Rows = work.rows_of(x, block)
        if gamma is not None:
            gain, at = Rows(gamma, block, (0, 0)), factor.cycle - early
            scaled = chain.vxm("mul", scaled, gain, loops=factor.loops, at=at)
        _write(work, chain, chain.vxm("mul", scaled, factor), out, block)
        factor = chain.vxm("copy", factor) if block < blocks - 1 else factor


def _peaks_in_turn(
    work: Work, name: str, rows: Rows, gamma: Buffer | None, blocks: int
) -> list[Rows]:
    """The largest |x * gamma| of a token's blocks, of every fourth in turn: so long an ALU takes.

    The last four are looked at together, though some of them have been before.
    """
    chain, turns = work.chain("int8: peak"), work.spec.d_func("vxm.alu")

    def sizes(first: int, count: int, at: int) -> Flow:
        value: Rows | Flow = rows.behind(first)
        if gamma is None:
            return chain.vxm("abs", value, loops=run(count), at=at)
        value = chain.vxm("mul", value, Rows(gamma, first), loops=run(count), at=at)
        return chain.vxm("abs", value)

    whole = blocks // turns * turns
    every = sizes(0, whole, 0)
    total = chain.vxm("max", chain.part(every, run(turns), 0), SMALLEST_PEAK)
    for start in range(turns, whole, turns):
        total = chain.vxm("max", chain.part(every, run(turns), start), total)
    if whole < blocks:
        total = chain.vxm("max", sizes(blocks - turns, turns, whole), total)
    top = reduce_lanes(chain, "max", total, "f32", spared=WIDTHS["f32"])  # squares pass beside it
    found = in_turn(work, name, chain, top)
    work.plan.place(chain)
    return found


def in_turn(work: Work, name: str, chain: Chain, found: Flow) -> list[Rows]:
    """Write what there is of each turn, a VXM result, to where all can be read at a time."""
    rows = []
    for side, flow in ((EAST, found), (WEST, chain.twin(found))):
        chain.emit(flow, side)
        for turn in range(side, work.spec.d_func("vxm.alu"), 2):
            rows.append(Rows(work.scratch(f"{name}.by{turn}", 1, "f32", side), 0, (0, 0)))
            chain.write(chain.part(flow, ONCE, turn), rows[-1])
    return rows


def _rounded_by(
    work: Work, peaks: list[Rows], x: tuple[Part, ...], gamma: Buffer | None, steps: Steps,
    out: Laid,
) -> None:  # fmt: skip
    """As `rounded`, of one token, by the largest of some peaks, which is brought to its steps."""
    for first, count in common_runs(x, *out.copies):
        chain, loops = work.chain("int8: round"), run(count)
        tops = [chain.vxm("max", *pair, loops=loops) for pair in (peaks[:2], peaks[2:])]
        top = chain.vxm("max", *tops)
        if not first:
            _bring(chain, chain.part(top, ONCE, 0), [Rows(step) for step in steps], out)
        factor = chain.vxm("mul", chain.vxm("recip", top), LEVELS)
        value: Flow | Rows = work.rows_of(x, first)
        if gamma is not None:
            early = factor.cycle - work.spec.d_func("vxm.alu")
            value = chain.vxm("mul", value, Rows(gamma, first), loops=loops, at=early)
        _write(work, chain, chain.vxm("mul", value, factor), out, first)
        work.plan.place(chain)


def _inverted(chain: Chain, largest: Flow, steps: Steps, start: int, out: Laid) -> Flow:
    """127 / peak of tokens, whose step is brought to its units."""
    _bring(chain, largest, [Rows(step, start) for step in steps], out)
    return chain.vxm("mul", chain.vxm("recip", largest), LEVELS)


def _bring(chain: Chain, top: Flow, steps: list[Rows], out: Laid) -> None:
    """The step of what has such a peak."""
    levels = LEVELS * LOW_LEVELS if out.low else LEVELS
    deliver(chain, chain.vxm("mul", top, 1.0 / levels), steps)


def rounded(
    work: Work,
    x: tuple[Part, ...],
    gamma: Buffer | None,
    inverse: Buffer,
    out: Laid,
) -> None:
    """int8(x * gamma * inverse[token]) for rows (block, token), to each copy."""
    tokens = work.rows
    for first, count in common_runs(x, *out.copies):
        loops: Loops = ((count, tokens), (tokens, 1))
        chain = work.chain("int8: round")
        value: Flow | Rows = replace(work.rows_of(x, first), steps=(tokens, 1))
        if gamma is not None:
            value = chain.vxm("mul", value, Rows(gamma, first, (1, 0)), loops=loops)
        value = chain.vxm("mul", value, Rows(inverse, 0, (0, 1)), loops=loops)
        _write(work, chain, value, out, first)
        work.plan.place(chain)


def _write(work: Work, chain: Chain, value: Flow, out: Laid, block: int) -> None:
    """Write steps, a VXM result, from a block on, as integers to each copy."""
    if out.low:
        halves = (targets(work, copies, block) for copies in (out.copies, out.low))
        write_halves(chain, value, *halves)
        return
    for rows in targets(work, out.copies, block):
        chain.write(chain.vxm("to_i8", value), rows)
