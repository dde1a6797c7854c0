"""The context of a hazard: the last instructions that had to do with what it is about."""

from collections.abc import Sequence

from chip.errors import HazardError
from chip.isa import ALU_BASE, STREAM_CODES, WIDTHS
from chip.linker.timeline import STORY_LINES, Issue

Places = set[tuple[str, int]]


def with_context(error: HazardError, issues: Sequence[Issue]) -> HazardError:
    """The same error, its context led by who drove, read or used the same before it, oldest first.

    What counts is a stream or ALU that both name, the same slice, the same side of the MXM, or the
    same queue. The linker's own lines, about the other party, stay the last.
    """
    culprit = next((i for i in issues if _is(i, error)), None)
    if culprit is None:
        return error
    touched = _places(culprit)
    near = [
        i for i in issues if i is not culprit and i.cycle <= error.cycle and _places(i) & touched
    ]
    near.sort(key=lambda i: (min(i.last_cycle, error.cycle), i.cycle))
    lines = [issue.line() for issue in near if issue.line() not in error.story]
    story = (*lines[-STORY_LINES:], *error.story)[-STORY_LINES:]
    where = (error.chip, error.queue, error.cycle, error.instruction, error.detail)
    return type(error)(*where, story)


def _is(issue: Issue, error: HazardError) -> bool:
    """Whether an error is about this instruction."""
    inside = issue.cycle <= error.cycle <= issue.last_cycle
    return inside and issue.queue == error.queue and str(issue.instruction) == error.instruction


def _places(issue: Issue) -> Places:
    """What an instruction uses: streams and ALUs, and its slice, MXM side or queue."""
    kind = issue.family.partition(".")[0]
    unit = issue.unit % 2 if kind == "mxm" else issue.unit
    found: Places = {(kind, unit) if kind in ("mem", "mxm") else (issue.queue, 0)}
    args = issue.instruction.args
    for index, operand in enumerate(issue.op.operands):
        if (operand.reads or operand.drives) and args[index] < STREAM_CODES:
            width = WIDTHS[issue.op.element(index, args)]
            found |= {("stream", args[index] + byte) for byte in range(width)}
        elif operand.reads and args[index] >= ALU_BASE:
            found.add((f"vxm:{args[index] - ALU_BASE}", 0))
    return found
