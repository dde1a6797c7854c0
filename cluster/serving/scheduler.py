"""What enters the pipeline in which step, and when that is: a state machine in virtual time.

Time is the chips' and the host's together. Steps follow each other without a pause, unless
a token that is almost back is worth one; meanwhile the host link brings the inputs of the next step
and takes the logits of the last. A sequence enters the first stage again when its logits have
reached the host and its next token has come back.

New prompts go first unless a policy says otherwise: while one is taken in, steps are prefill steps;
decode goes on where it stands when the last has passed all stages. One user is the case with one
slot, where a step is a launch through all stages: a pipeline of one. The rules are those of
`cluster.serving.core`, here over lists, with tokens beside the numbers.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cluster.compiler.launch import LaunchKind, decode_kind, prefill_kind
from cluster.compiler.limits import CONTEXT_BLOCK
from cluster.serving.build import Lazy, Policy, Shape, add_row, chained, of_lists
from cluster.serving.core import columns as c
from cluster.serving.core import steps
from cluster.serving.core.check import check_state, queued
from cluster.serving.core.columns import DECODE, NOBODY, NOW, PREFILL
from cluster.serving.host_link import HostLink
from cluster.serving.requests import Request, Row, Step, Work, Works
from cluster.serving.stepping import Stepping

TRANSFERS_A_SLOT = 16  # of caches, between two looks at them: far more than there are


@dataclass(frozen=True)
class StepRecord:
    """A step that has been."""

    kind: LaunchKind
    works: Works
    cycles: int
    start_s: float
    seconds: float


@dataclass(frozen=True)
class Transfer:
    """Caches of a request that leave a slot for the memory of the host, or come `back` into one."""

    request: Request
    slot: int
    tokens: int
    back: bool
    begin_s: float
    end_s: float


class PipelineScheduler:
    """Takes requests through a pipeline of `stages`, at most `slots` sequences at a time.

    The caller runs each `next_step`, says in `complete` how long it took, and gives each request
    that comes out of it its `token`. A request that arrives later than now waits until then; with
    nothing else to do, time goes on to the next arrival. Without `history` neither steps nor
    requests that have ended are kept. A decode may be a launch through all stages as a `whole`,
    where only chunks of prompts follow each other.
    """

    def __init__(
        self,
        stages: int,
        slots: int,
        chunk: int,
        link: HostLink,
        rows: int = 1,
        *,
        history: bool = True,
        policy: Policy | None = None,
        whole: bool = False,
    ) -> None:
        self.slots, self.link, self.history = slots, link, history
        self.requests: list[Request] = []
        self.records: list[StepRecord] = []
        self.policy = policy or Policy()
        self._kinds = prefill_kind(chunk, 0), decode_kind(0, rows)
        spec, self._hashes = link.spec, dict[int, int]()
        shape = Shape(
            stages, slots, chunk, rows, link.beside, spec.host_latency_s, spec.clock_hz, whole
        )
        moves = [[self._moves(n, way) for way in range(c.WAYS)] for n in (PREFILL, DECODE)]
        room = TRANSFERS_A_SLOT * slots
        self._state = of_lists(shape, self.policy, moves, self._hashes, room)
        self._transfers: list[Transfer] = []
        self._works: tuple[list[Work | None], ...] = ([None] * stages, [None] * stages)
        self._objects: list[Request | None] = []  # by row of the columns
        self._spare: list[int] = []  # rows of requests that have ended
        self._seen = list(self._state.slots[c.TAKEN])
        self._count = 0
        self._running = NOBODY
        self._cancelled: list[Request] = []

    @property
    def now_s(self) -> float:
        """The second that it is."""
        return self._state.clock[NOW]

    @property
    def preempted(self) -> int:
        """How often a request gave its pages up."""
        return self._state.counts[c.RECOMPUTED] + self._state.counts[c.SPILLS]

    def transfers(self) -> list[Transfer]:
        """Caches that go to the host or come back before the next step, in order; taken once."""
        found, self._transfers = self._transfers, []
        return found

    def seated(self, slot: int) -> Request:
        """Whose sequence a slot holds."""
        return self._of(self._state.slots[c.TAKEN][slot])

    def submit(self, request: Request) -> None:
        """Take in a request, which waits for its arrival, and for a slot if none is free."""
        request.number, self._count = self._count, self._count + 1
        if self.history:
            self.requests.append(request)
        steps.submit(self._state, self._row(request))
        self._look()

    def cancel(self, request: Request) -> None:
        """End a request, wherever it is; its slot is free, if a step is under way after that.

        Stages that have a work of it in front of them have none. Of one that has ended nothing
        is changed.
        """
        if request.index == NOBODY or request.cancelled:
            return
        request.cancelled = True
        self._cancelled.append(request)
        waits = self._state.requests[c.STATE][request.index] == c.QUEUED
        if waits or self._running == NOBODY:
            self._clear()

    def next_step(self) -> Step | None:
        """What the stages do next; None if there is nothing left to do."""
        state = self._state
        drops = state.counts[c.DROPS]
        number = self._running = steps.next_step(state)
        self._look()
        if number == NOBODY:
            return None
        if state.counts[c.DROPS] != drops:
            self._rebuild()
        works, head = self._works[number], state.heads[number]
        if number == DECODE and state.rules.whole:
            last = (head - 1) % state.rules.stages
            works[last] = self._work(number, last)
            return Step(self._kinds[number], (works[last],))
        works[head] = self._work(number, head)
        return Step(self._kinds[number], tuple(works[head:] + works[:head]))

    def complete(self, step: Step, cycles: int) -> list[Request]:
        """Let the time of a step pass; return whose tokens are due, in order of their rows.

        Those that were cancelled while it ran are among them; they are done, and get no token.
        """
        state, number = self._state, self._running
        start_s, seconds = self.now_s, steps.step_s(state, number, cycles)
        if self.history:
            self.records.append(StepRecord(step.kind, step.works, cycles, start_s, seconds))
        steps.complete(state, number, seconds)
        self._running = NOBODY
        due = [self._of(r) for r in state.due[: state.counts[c.DUE]]]
        self._clear()
        return due

    def token(self, request: Request, token: int, last: bool = False) -> None:
        """A token of a request is at the host, which goes on with it or with the next request."""
        state, r = self._state, request.index
        assert state.slots[c.TAKEN][request.slot] == r
        request.tokens.append(token)
        self._hash(request)
        steps.token(state, r, last)
        request.token_s.append(state.times[c.LAST][r])
        self._look()
        if state.requests[c.STATE][r] == c.ENDED:
            self._end(request)

    def check(self) -> None:
        """Raise AssertionError where the state contradicts itself; for tests, after any call."""
        check_state(self._state)
        waiting = [self._of(r) for r in queued(self._state)]
        assert not any(one.cancelled for one in waiting), "who waits was cancelled"
        for number in (PREFILL, DECODE):
            line, works = self._state.lines[number], self._works[number]
            for place in range(len(works)):
                if line[c.TOKENS][place]:
                    assert works[place] == self._work(number, place), "a work is not its line's"

    # --- rows of the columns, and requests ---------------------------------------------------
    def _of(self, r: int) -> Request:
        found = self._objects[r]
        assert found is not None
        return found

    def _row(self, request: Request) -> int:
        """A row of the columns for a request."""
        ints = {
            c.PROMPT: len(request.prompt), c.MOST: request.max_new_tokens,
            c.PRIORITY: request.priority, c.NUMBER: request.number,
            c.HEARD: int(request.prompt_logits), c.POSITION: request.position,
        }  # fmt: skip
        r = request.index = add_row(self._state, self._spare, ints, request.arrives_s)
        self._state.requests[c.FIRST_BLOCK][r] = r * self.policy.most_blocks
        if r == len(self._objects):
            self._objects.append(None)
        self._objects[r] = request
        self._hash(request)
        return r

    def _hash(self, request: Request) -> None:
        """Hash whole blocks of its tokens that are known by now."""
        size, r, q = self.policy.block_tokens, request.index, self._state.requests
        if not size:
            return
        for block in range(q[c.BLOCKS][r], (len(request.prompt) + len(request.tokens)) // size):
            at = q[c.FIRST_BLOCK][r] + block
            tokens = [request.token_at(n) for n in range(block * size, (block + 1) * size)]
            self._hashes[at] = chained(self._hashes[at - 1] if block else 0, tokens)
            q[c.BLOCKS][r] = block + 1

    def _moves(self, number: int, way: int) -> Lazy:
        """Seconds over the host link, by context blocks, when they are asked for."""
        return Lazy(lambda blocks: self.link.ways_s(self._kind(number, blocks))[way])

    def _kind(self, number: int, blocks: int) -> LaunchKind:
        return replace(self._kinds[number], context=blocks * CONTEXT_BLOCK)

    def _look(self) -> None:
        """Tell requests that have come to a slot, and note whose caches have moved."""
        self._note_transfers()
        taken = self._state.slots[c.TAKEN]
        if taken == self._seen:
            return
        for slot, r in enumerate(taken):
            if r != NOBODY and r != self._seen[slot]:
                request = self._of(r)
                request.slot, request.entered_s = slot, self._state.times[c.ENTERED][r]
                request.cached_tokens = self._state.requests[c.HIT][r]
        self._seen = list(taken)

    def _note_transfers(self) -> None:
        state = self._state
        count, state.counts[c.TRANSFERS] = state.counts[c.TRANSFERS], 0
        assert count < max(1, len(state.transfer_s[c.BEGIN])), "transfers may have been lost"
        for n in range(count):
            owner, slot, tokens, back = (column[n] for column in state.transfers)
            begin_s, end_s = (column[n] for column in state.transfer_s)
            request = self._of(owner)
            self._transfers.append(Transfer(request, slot, tokens, bool(back), begin_s, end_s))

    def _end(self, request: Request) -> None:
        self._objects[request.index] = None
        self._spare.append(request.index)
        request.index = NOBODY

    def _clear(self) -> None:
        """Take those that were cancelled off their slots, out of the lines and the queue."""
        stays, running = list[Request](), self._running != NOBODY
        for one in self._cancelled:
            if running and self._state.requests[c.STATE][one.index] == c.SEATED:
                stays.append(one)
            elif one.index != NOBODY:
                steps.cancel(self._state, one.index)
                self._end(one)
        if len(stays) < len(self._cancelled) and not running:
            self._rebuild()
            self._look()
        self._cancelled = stays

    # --- works of the lines -------------------------------------------------------------------
    def _rebuild(self) -> None:
        """Some rows were taken out of the lines."""
        for number in (PREFILL, DECODE):
            for place in range(len(self._works[number])):
                self._works[number][place] = self._work(number, place)

    def _work(self, number: int, place: int) -> Work | None:
        """The work at a place of a line, with its tokens."""
        line, width = self._state.lines[number], self._state.rules.rows
        if line[c.TOKENS][place] == 0:
            return None
        rows = list[Row]()
        count = line[c.TOKENS][place] if number == PREFILL else 1
        for at in range(place * width, (place + 1) * width):
            if line[c.WHO][at] != NOBODY:
                request, first = self._of(line[c.WHO][at]), line[c.AT][at]
                last = len(request.prompt) + len(request.tokens) - 1
                for position in range(first, first + count):
                    gives = number == DECODE and (position >= last or request.prompt_logits)
                    token = request.token_at(position)
                    rows.append(Row(request.slot, position, token, gives))
        return Work(self._kind(number, line[c.BUCKET][place]), tuple(rows))


def advance(
    scheduler: Stepping,
    run: Callable[[Step], tuple[int, Iterable[Any]]],
    choose: Callable[[Request, Any], tuple[int, bool]],
) -> list[tuple[Request, int]] | None:
    """Run one step; return the tokens that came of it, or None if there is nothing left to do.

    `run` returns the cycles of a step and the logits of each row that a token is chosen from;
    `choose` says which it is, and whether it is the request's last.
    """
    step = scheduler.next_step()
    if step is None:
        return None
    cycles, logits = run(step)
    found = []
    for request, mine in zip(scheduler.complete(step, cycles), logits, strict=False):
        if not request.cancelled:
            token, last = choose(request, mine)
            scheduler.token(request, token, last)
            found.append((request, token))
    return found


def drive(
    scheduler: PipelineScheduler,
    run: Callable[[Step], tuple[int, Iterable[Any]]],
    pick: Callable[[Request, Any], int],
    stop: frozenset[int],
) -> Iterator[tuple[Request, int]]:
    """Run all that was submitted; yield every token as it comes, the stop token included."""

    def choose(request: Request, logits: Any) -> tuple[int, bool]:
        token = pick(request, logits)
        return token, token in stop

    while (found := advance(scheduler, run, choose)) is not None:
        yield from found


def steady_tokens_per_s(requests: Sequence[Request], slots: int) -> float | None:
    """Tokens/s while every slot decodes, over whole rounds; None if that was too short to say.

    From when all of the first sequences have had their first token until one of them ends, counted
    between two tokens of that one.
    """
    first = requests[:slots]
    start = max(one.token_s[0] for one in first)
    ender = min(first, key=lambda one: one.token_s[-1])
    inside = [at for at in ender.token_s if at >= start]
    if len(first) < slots or len(inside) < 2:
        return None
    low, high = inside[0], inside[-1]
    count = sum(low < at <= high for one in requests for at in one.token_s)
    return count / (high - low)
