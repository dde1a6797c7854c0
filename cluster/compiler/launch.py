"""The kinds of launches of a plan, and what one of them is once it has programs."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from cluster.compiler.limits import CONTEXT_BLOCK
from cluster.compiler.stages import Plan


@dataclass(frozen=True, order=True)
class LaunchKind:
    """Launches that share programs: of `rows` rows, `logits_rows` of which give logits.

    A row is a token of a sequence; each may look back at most `context` tokens, itself among them.
    Rows follow each other in one slot, or belong to as many neighbouring `slots`, one to each.
    """

    rows: int
    context: int
    logits_rows: int
    slots: int = 1

    def __str__(self) -> str:
        of = f".slots{self.slots}" if self.slots > 1 else ""
        return f"rows{self.rows}.logits{self.logits_rows}{of}@{self.context}"

    @property
    def blocks(self) -> int:
        """Blocks of the KV cache that it reads."""
        return self.context // CONTEXT_BLOCK

    @property
    def idle(self) -> "LaunchKind":
        """Launches of so many rows in which a stage has none: it takes part in hand-overs only."""
        return replace(self, context=0)

    def row_of(self, slot: int) -> int:
        """Which row is that of a slot, where every row has one of its own."""
        return slot % self.slots


@dataclass(frozen=True)
class StageProgram:
    """What the chips of one stage do in a pipeline step: for slots from `slot` on, or for none."""

    kind: LaunchKind
    slot: int | None = None

    def __str__(self) -> str:
        return f"{self.kind}.idle" if self.slot is None else f"{self.kind}.slot{self.slot}"


def decode_kind(context: int, rows: int = 1) -> LaunchKind:
    """One token of each of so many sequences, and the logits after them."""
    return LaunchKind(rows, context, rows, rows)


def prefill_kind(rows: int, context: int) -> LaunchKind:
    """A chunk of a prompt, behind which more of it follows."""
    return LaunchKind(rows, context, 0)


def context_bucket(tokens: int) -> int:
    """The smallest context of a launch that holds so many tokens."""
    return -(-tokens // CONTEXT_BLOCK) * CONTEXT_BLOCK


def launch_kinds(plan: Plan) -> Iterator[LaunchKind]:
    """Every kind of launch for which the chips of a plan have programs."""
    for context in range(CONTEXT_BLOCK, plan.context + 1, CONTEXT_BLOCK):
        yield decode_kind(context, plan.rows)
        yield prefill_kind(plan.chunk, context)


def in_steps(plan: Plan, kind: LaunchKind, apart: bool) -> bool:
    """Whether launches of a kind are pipeline steps, in which each stage has rows of its own.

    With several slots all are. With one, chunks of a prompt follow each other through the stages
    where these can work side by side, which is where their chips are `apart`.
    """
    return plan.slots > 1 or (apart and plan.pp > 1 and not kind.logits_rows)


def stage_programs(plan: Plan, apart: bool) -> Iterator[StageProgram]:
    """Every stage program that a chip of a plan must hold for its pipeline steps."""
    for kind in launch_kinds(plan):
        if not in_steps(plan, kind, apart):
            continue
        if plan.pp > 1 and kind.context == CONTEXT_BLOCK:
            yield StageProgram(kind.idle)
        yield from (StageProgram(kind, slot) for slot in range(0, plan.caches, kind.slots))


@dataclass(frozen=True)
class Launch:
    """A launch with its programs: msgpack per chip.

    `end_cycles` are the scheduler's figures, against which the executed cycles are checked;
    `instructions` counts those of each chip, which it keeps in SRAM. Of its cycles, the first
    `startup_cycles` start the chips, and `deskew_cycles` are stalls of Runtime deskews.
    """

    name: str
    startup_cycles: int
    deskew_cycles: int
    programs: dict[int, bytes]
    end_cycles: dict[int, int]
    instructions: dict[int, int]


Launches = dict[str, Launch]  # by name
