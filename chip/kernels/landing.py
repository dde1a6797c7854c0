"""Where a chip meets the host and the stages beside it while it is at work on a sequence.

With several sequences in flight a chip goes from one beat right into the next. So the host writes
the inputs of the next beat beside those in use, and reads the logits of the last beat beside those
that are being made: instructions take them in and put them out. x rests in `flight` from beat to
beat, as a prefill between two beats of decode overwrites all else.
"""

from chip.kernels.memory import Memory
from chip.kernels.shape import DecoderShape, halves
from chip.program import COLUMN_PAIRS
from chip.schedule import Buffer, Chain, Rows, Schedule, run
from chip.spec import EAST, WEST

NEXT, OUT, FLIGHT = "next.", "out.", "flight"


def place_landing(memory: Memory, shape: DecoderShape) -> None:
    """Make room, away from what is copied there or from there; raises SramFull."""
    chunk, blocks = shape.chunk, shape.context // memory.spec.lanes
    rows = memory.rows
    rows(FLIGHT, (WEST, 1, 1), shape.hidden.count, "f32")
    rows(f"{NEXT}x0", (WEST, 1, 0), shape.hidden.count * chunk, "f32")
    rows(f"{NEXT}cos", (EAST, 1, 0), chunk, "f32")
    rows(f"{NEXT}sin", (WEST, 1, 0), chunk, "f32")
    rows(f"{NEXT}mask", (EAST, 1, 0), blocks * chunk, "f32")
    rows(f"{NEXT}maps", (WEST, 1, 0), max(chunk, COLUMN_PAIRS), "u16")
    if shape.vocab is not None:
        for side, part in zip((WEST, EAST), halves(shape.vocab.count), strict=True):
            rows(f"{OUT}logits{1 - side}", (side, 0, 1), len(part), "f32")


def copy_rows(plan: Schedule, member: int, source: Buffer, target: Buffer, label: str) -> None:
    """target = source, row by row through the VXM."""
    if not target.region.vectors:
        return
    chain = Chain(plan.spec, label, member)
    dtype = source.region.dtype
    loops = run(target.region.vectors)
    value = chain.vxm("copy", Rows(source), loops=loops, dtype=dtype)
    chain.write(value, Rows(target))
    plan.place(chain)
