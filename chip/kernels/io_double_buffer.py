"""Where a chip meets the host and the stages beside it while it is at work on a sequence.

With several sequences in flight a chip goes from one pipeline step right into the next. So the host
writes the inputs of the next step beside those in use, and reads the logits of the last step beside
those that are being made: instructions take them in and put them out. x is `held` from step to
step, as a prefill between two steps of decode overwrites all else. Each rests on the other side of
the VXM than what it is copied to or from.
"""

from collections.abc import Iterable
from dataclasses import replace

from chip.kernels.work import INPUT, KEPT, OUTPUT, Request
from chip.schedule import Buffer, Chain, Rows, Schedule, run
from chip.spec import EAST, WEST

NEXT, OUT, HELD = "next.", "out.", "held"


def double_buffers(requests: Iterable[Request], x: Request) -> list[Request]:
    """What is needed beside these inputs and outputs, and beside one token of x."""
    found = [replace(x, name=HELD, side=WEST, role=KEPT)]
    for request in requests:
        prefix = {INPUT: NEXT, OUTPUT: OUT}.get(request.role)
        if prefix:
            other = WEST if request.side == EAST else EAST
            found.append(replace(request, name=prefix + request.name, side=other, role=KEPT))
    return found


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
