"""What enters the pipeline in which step, and when that is: a state machine in virtual time.

Time is the chips' and the host's together. Steps follow each other without a pause; meanwhile the
host link brings the inputs of the next step and takes the logits of the last. A sequence enters the
first stage again when its logits have reached the host and its next token has come back.

New prompts go first: while one is taken in, steps are prefill steps, chunks of one or of several
prompts close behind each other; decode goes on where it stands when the last has passed all stages.
A sequence that has ended leaves its slot, with its caches, to the next request.

One user is the case with one slot, where a step is a launch through all stages: a pipeline of one.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from chip.spec import ChipSpec
from cluster.compiler.launch import LaunchKind, context_bucket, decode_kind, prefill_kind
from cluster.errors import PromptTooLong


@dataclass(frozen=True)
class Row:
    """A token of a sequence in a launch; with `gives` the logits after it are wanted."""

    slot: int
    position: int
    token: int
    gives: bool = False


@dataclass(frozen=True)
class Work:
    """Rows that go through the stages together, and the kind of launch that takes them."""

    kind: LaunchKind
    rows: tuple[Row, ...]

    @property
    def slot(self) -> int:
        """The slot of all its rows."""
        return self.rows[0].slot

    @property
    def gives(self) -> bool:
        """Whether logits are wanted."""
        return any(row.gives for row in self.rows)


Works = tuple[Work | None, ...]  # by stage


@dataclass(eq=False)
class Request:
    """A prompt, and what becomes of it; seconds are those of the run, from its first step on."""

    prompt: tuple[int, ...]
    max_new_tokens: int
    arrives_s: float = 0.0
    position: int = 0  # tokens that are in the caches already
    number: int = -1  # in order of submission
    slot: int = -1
    tokens: list[int] = field(default_factory=list)
    token_s: list[float] = field(default_factory=list)
    entered_s: float = 0.0
    ready_s: float = math.inf  # when its next work can enter
    cancelled: bool = False

    def check(self, context: int) -> "Request":
        """Return self; raises PromptTooLong if caches of `context` tokens do not hold it."""
        if not self.prompt or len(self.prompt) + self.max_new_tokens > context + 1:
            raise PromptTooLong(len(self.prompt), self.max_new_tokens, context)
        return self

    def work(self, chunk: int) -> Work:
        """What is next: a chunk of the prompt (a token, if `chunk` is 0), or a decode."""
        last, at = len(self.prompt) - 1, self.position
        if at < last and chunk:
            ids = self.prompt[at : min(at + chunk, last)]
            rows = tuple(Row(self.slot, at + n, token) for n, token in enumerate(ids))
            return Work(prefill_kind(chunk, context_bucket(at + len(ids))), rows)
        token = self.prompt[at] if at <= last else self.tokens[-1]
        return Work(decode_kind(context_bucket(at + 1)), (Row(self.slot, at, token, at >= last),))

    @property
    def first_token_s(self) -> float:
        """Seconds from its entry to its first token."""
        return self.token_s[0] - self.entered_s

    @property
    def tokens_per_s(self) -> float | None:
        """What its user sees after the first token; None if that was all."""
        steps = len(self.tokens) - 1
        return steps / (self.token_s[-1] - self.token_s[0]) if steps else None


@cache
def prompt_kinds(prompt: int, chunk: int) -> tuple[LaunchKind, ...]:
    """The kinds of the launches that take in a prompt of so many tokens; the last has logits."""
    request, found = Request((0,) * prompt, 1), list[LaunchKind]()
    while request.position < prompt:
        work = request.work(chunk)
        request.position += len(work.rows)
        found.append(work.kind)
    return tuple(found)


@dataclass(frozen=True)
class HostLink:
    """The link between a chip and its host; unless `beside`, it and the chips wait in turns."""

    spec: ChipSpec
    bytes: Callable[[LaunchKind], tuple[int, int]]  # in, out
    beside: bool

    def in_s(self, work: Work) -> float:
        """Seconds until the inputs of a work are there."""
        return self.spec.host_latency_s + self._moving_s(work)[0]

    def out_s(self, work: Work) -> float:
        """Seconds until what a work gives is at the host."""
        return self.spec.host_latency_s + self._moving_s(work)[1]

    def step_s(self, cycles: int, works: Works) -> float:
        """Seconds of a step: of the chips, or of their links if these take longer."""
        chips_s = cycles / self.spec.clock_hz
        busy = [work for work in works if work]
        if not self.beside:
            return chips_s + sum(self.in_s(work) + self.out_s(work) for work in busy)
        return max(chips_s, *(seconds for work in busy for seconds in self._moving_s(work)))

    def _moving_s(self, work: Work) -> tuple[float, float]:
        into, out = self.bytes(work.kind)
        rate = self.spec.host_bytes_per_s
        return into / rate, (out / rate if work.gives or not self.beside else 0.0)


@dataclass(frozen=True)
class Step:
    """What the stages do next; `kind` is that of their works but for the context."""

    kind: LaunchKind
    works: Works


@dataclass(frozen=True)
class StepRecord:
    """A step that has been."""

    kind: LaunchKind
    works: Works
    cycles: int
    start_s: float
    seconds: float


class PipelineScheduler:
    """Takes requests through a pipeline of `stages`, at most `slots` sequences at a time.

    The caller runs each `next_step`, says in `complete` how long it took, and gives each request
    that comes out of it its `token`. A request that arrives later than now waits until then; with
    nothing else to do, time goes on to the next arrival. Without `history` neither steps nor
    requests that have ended are kept.
    """

    def __init__(
        self, stages: int, slots: int, chunk: int, link: HostLink, history: bool = True
    ) -> None:
        self.slots, self.link, self.history = slots, link, history
        self.requests: list[Request] = []
        self.records: list[StepRecord] = []
        self.now_s = 0.0
        self._chunk = chunk
        kinds = [prefill_kind(chunk, 0)] if chunk else []
        self._lines: dict[LaunchKind, Works] = dict.fromkeys(
            (*kinds, decode_kind(0)), (None,) * stages
        )
        self._seated: dict[int, Request] = {}
        self._free_s = dict.fromkeys(range(slots), 0.0)  # since when a slot is free
        self._later: list[tuple[float, int, Request]] = []  # a heap, by when they arrive
        self._queue: deque[Request] = deque()
        self._count = 0
        self._running: Step | None = None
        self._last: Work | None = None  # what has come to the end in the last step

    def submit(self, request: Request) -> None:
        """Take in a request, which waits for its arrival, and for a slot if none is free."""
        request.number = self._count
        self._count += 1
        if self.history:
            self.requests.append(request)
        heapq.heappush(self._later, (request.arrives_s, request.number, request))
        self._seat()

    def cancel(self, request: Request) -> None:
        """End a request, wherever it is; its slot is free, if a step is under way after that.

        Stages that have a work of it in front of them have none. Of one that has ended nothing
        is changed.
        """
        if self._seated.get(request.slot) is request:
            request.cancelled = True
            if self._running is None:
                self._clear()
        elif self._waits(request):
            request.cancelled = True
            self._later = [one for one in self._later if one[2] is not request]
            heapq.heapify(self._later)
            if request in self._queue:
                self._queue.remove(request)

    def next_step(self) -> Step | None:
        """What the stages do next; None if there is nothing left to do."""
        self._seat()
        if not self._seated and not self._later:
            return None
        kind = self._kind()
        while kind is None:  # everyone waits for the host, or there is nobody
            ready = [one.ready_s for one in self._seated.values()]
            self.now_s = min([*ready, *(at for at, _, _ in self._later[:1])])
            assert math.isfinite(self.now_s), "a request waits for the token that it was due"
            self._seat()
            kind = self._kind()
        works = self._lines[kind] = (self._enter(kind), *self._lines[kind][:-1])
        self._running = Step(kind, works)
        return self._running

    def complete(self, step: Step, cycles: int) -> list[Request]:
        """Let the time of a step pass; return whose tokens are due, in order of their rows.

        Those that were cancelled while it ran are among them; they are done, and get no token.
        """
        seconds = self.link.step_s(cycles, step.works)
        if self.history:
            self.records.append(StepRecord(step.kind, step.works, cycles, self.now_s, seconds))
        self.now_s += seconds
        self._last, self._running = step.works[-1], None
        due = [row.slot for row in self._last.rows if row.gives] if self._last else []
        found = [self._seated[slot] for slot in due]
        self._clear()
        return found

    def token(self, request: Request, token: int, last: bool = False) -> None:
        """A token of a request is at the host, which goes on with it or with the next request."""
        done = self._last
        assert done is not None and self._seated[request.slot] is request
        at_s = self.now_s + (self.link.out_s(done) if self.link.beside else 0.0)
        request.tokens.append(token)
        request.token_s.append(at_s)
        if last or len(request.tokens) == request.max_new_tokens:
            self._leave(request, at_s)
        else:
            self._call(request, at_s)

    def check(self) -> None:
        """Raise AssertionError where the state contradicts itself; for tests, after any call."""
        assert set(self._seated) ^ set(self._free_s) == set(range(self.slots)), "a slot is lost"
        assert not set(self._seated) & set(self._free_s), "a slot is free and taken"
        waiting = [*self._queue, *(one for _, _, one in self._later)]
        for slot, one in self._seated.items():
            assert one.slot == slot and one not in waiting
        assert all(one.slot < 0 and not one.cancelled for one in waiting)
        assert not (self._queue and self._free_s), "a slot is free while a request waits"
        lines = [
            line if self._running and self._running.kind == kind else line[:-1]
            for kind, line in self._lines.items()
        ]  # what was last in others has left
        works = [work for line in lines for work in line if work]
        giving = [row.slot for work in works for row in work.rows if row.gives]
        assert len(giving) == len(set(giving)), "two works of one sequence want logits"
        assert all(work.slot in self._seated for work in works), "a work of nobody"

    # --- what goes in next ------------------------------------------------------------------
    def _kind(self) -> LaunchKind | None:
        """What the next step does: prompts first; None if there is nothing to do yet."""
        for kind, line in self._lines.items():
            if any(line[:-1]) or self._ready(kind):
                return kind
        return None

    def _ready(self, kind: LaunchKind) -> list[Request]:
        """Whose work of that kind can enter now, those who have waited longest first."""
        found = [
            one
            for one in self._seated.values()
            if one.ready_s <= self.now_s and one.work(self._chunk).kind.idle == kind
        ]
        return sorted(found, key=lambda one: (one.ready_s, one.number))

    def _enter(self, kind: LaunchKind) -> Work | None:
        ready = self._ready(kind)
        if not ready:
            return None
        work = ready[0].work(self._chunk)
        ready[0].position += len(work.rows)
        if work.gives:
            ready[0].ready_s = math.inf
        return work

    # --- coming and going -------------------------------------------------------------------
    def _seat(self) -> None:
        """Give free slots to those who have arrived and wait."""
        while self._later and self._later[0][0] <= self.now_s:
            self._queue.append(heapq.heappop(self._later)[2])
        while self._queue and self._free_s:
            slot = min(self._free_s, key=lambda one: (self._free_s[one], one))
            request = self._seated[slot] = self._queue.popleft()
            request.slot = slot
            request.entered_s = max(request.arrives_s, self._free_s.pop(slot))
            self._call(request, request.entered_s)

    def _waits(self, request: Request) -> bool:
        return request in self._queue or any(one is request for _, _, one in self._later)

    def _leave(self, request: Request, at_s: float) -> None:
        del self._seated[request.slot]
        self._free_s[request.slot] = at_s
        self._seat()

    def _clear(self) -> None:
        """Take those that were cancelled off their slots and out of the lines."""
        for one in [one for one in self._seated.values() if one.cancelled]:
            for kind, line in self._lines.items():
                self._lines[kind] = tuple(w if w and w.slot != one.slot else None for w in line)
            self._leave(one, self.now_s)

    def _call(self, request: Request, at_s: float) -> None:
        first_s = self.link.in_s(request.work(self._chunk)) if self.link.beside else 0.0
        request.ready_s = at_s + first_s


def drive(
    scheduler: PipelineScheduler,
    run: Callable[[Step], tuple[int, Iterable[Any]]],
    pick: Callable[[Request, Any], int],
    stop: frozenset[int],
) -> Iterator[tuple[Request, int]]:
    """Run all that was submitted; yield every token as it comes, the stop token included.

    `run` returns the cycles of a step and the logits of each row that comes out of it and gives
    some; `pick` chooses from these.
    """
    while (step := scheduler.next_step()) is not None:
        cycles, logits = run(step)
        for request, mine in zip(scheduler.complete(step, cycles), logits, strict=False):
            if request.cancelled:
                continue
            token = pick(request, mine)
            scheduler.token(request, token, token in stop)
            yield request, token


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
