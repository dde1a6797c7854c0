"""Speculative decoding of one user: guessed tokens follow the last one through the pipeline.

A guess is a row like any other, one stage behind the row before it, so that its logits are those of
plain decoding to the bit. A token is chosen from the logits of each row as ever; as long as it is
the one that was guessed, the row behind it is right. Behind the first that is not, rows are taken
out of the pipeline. So tokens are those of plain decoding, greedy or sampled, whatever was guessed:
a draft that samples by the same seed is accepted where both choose alike.

What is gained is the wait: alone, a token goes through all stages before the next one enters.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Protocol

from cluster.compiler.host_regions import host_bytes
from cluster.compiler.launch import (
    LaunchKind,
    StageProgram,
    context_bucket,
    decode_kind,
    prefill_kind,
)
from cluster.compiler.lower import Lowered
from cluster.compiler.pipeline import joined
from cluster.machines.machine import Machine
from cluster.serving.host_inputs import host_inputs, logits_of
from cluster.serving.host_link import HostLink
from cluster.serving.requests import Request, Row, Step, Work, Works
from cluster.serving.scheduler import StepRecord, Transfer, advance

Guess = tuple[int, float]  # a token, and the seconds after the last until it is known
Pick = Callable[..., int]  # logits, step -> token


class Draft(Protocol):
    """What guesses the tokens behind the last one of a request."""

    def guesses(self, request: Request) -> Sequence[Guess]:
        """Guess some tokens, or none."""


class NGrams:
    """Guesses what followed the last tokens where they stood before; it takes the host no time.

    >>> request = Request((1, 2, 3, 4, 1, 2), 9)
    >>> NGrams(2, 3).guesses(request)
    [(3, 0.0), (4, 0.0), (1, 0.0)]
    """

    def __init__(self, longest: int, count: int) -> None:
        self._longest, self._count = longest, count

    def guesses(self, request: Request) -> list[Guess]:
        """Guess by the latest place with most tokens in common, at most `longest`."""
        known = (*request.prompt, *request.tokens)
        for length in range(min(self._longest, len(known) - 1), 0, -1):
            for at in range(len(known) - length - 1, -1, -1):
                if known[at : at + length] == known[-length:]:
                    follow = known[at + length : at + length + self._count]
                    return [(token, 0.0) for token in follow]
        return []


class DraftModel:
    """Another model on chips of its own, which says what it would say; at its times."""

    def __init__(self, lowered: Lowered, machine: Machine, pick: Pick, count: int) -> None:
        self._lowered, self._machine, self._pick, self._count = lowered, machine, pick, count
        size = partial(host_bytes, lowered.stages)
        self._link = HostLink(lowered.plan.spec, size, beside=False)
        self._fed: tuple[int, ...] = ()  # tokens in its caches

    def guesses(self, request: Request) -> list[Guess]:
        """Take in what is new, then go on alone; raises ClusterError as sampling does."""
        known, found = (*request.prompt, *request.tokens), list[Guess]()
        seconds, at = 0.0, min(_common(self._fed, known), len(known) - 1)
        room = min(self._count, self._lowered.plan.context - len(known))
        while len(found) < room:
            work = self._work(known, at)
            result = self._machine.launch(str(work.kind), host_inputs(self._lowered, (work,)))
            clock_hz = self._lowered.plan.spec.clock_hz
            seconds += result.end_cycle / clock_hz
            seconds += self._link.in_s(work.kind) + self._link.out_s(work.kind)
            at += len(work.rows)
            if at == len(known):
                (logits,) = logits_of(self._lowered, result.outputs)
                token = self._pick(logits, len(request.tokens) + len(found))
                found.append((token, seconds))
                known = (*known, token)
        self._fed = known[:at]
        return found

    def _work(self, known: Sequence[int], at: int) -> Work:
        """A chunk, or a token whose logits are wanted."""
        kind, count = taken_in(self._lowered.plan.chunk, self._cycles, len(known), at)
        gives = kind.logits_rows > 0
        return Work(kind, tuple(Row(0, n, known[n], gives) for n in range(at, at + count)))

    def _cycles(self, kind: LaunchKind) -> int:
        return max(self._lowered.launches[str(kind)].end_cycles.values())


def taken_in(
    chunk: int, cycles: Callable[[LaunchKind], int], known: int, at: int
) -> tuple[LaunchKind, int]:
    """The next launch of a draft that has taken in `at` of the `known` tokens, and its tokens.

    It is a chunk where that is quicker than token by token, else a token.
    """
    kind, left = decode_kind(context_bucket(at + 1)), min(chunk, known - 1 - at)
    if left > 0:
        whole = prefill_kind(chunk, context_bucket(at + left))
        if cycles(whole) < left * cycles(kind):
            return whole, left
    return kind, 1


class SpeculativeScheduler:
    """Takes requests one by one through a pipeline of `stages`, with what `draft` guesses."""

    slots = 1

    def __init__(
        self, stages: int, chunk: int, link: HostLink, draft: Draft | None, chunk_stages: int = 1
    ) -> None:
        self.link, self._chunk, self._draft = link, chunk, draft
        self.requests: list[Request] = []
        self.records: list[StepRecord] = []
        self.now_s = 0.0
        self.guessed = self.accepted = 0
        self._lines: dict[LaunchKind, Works] = {}
        if chunk:
            self._lines[prefill_kind(chunk, 0)] = (None,) * max(stages, chunk_stages)
        self._lines[decode_kind(0)] = (None,) * stages
        self._queue: deque[Request] = deque()
        self._one: Request | None = None
        self._guesses: deque[Guess] = deque()  # behind its last token; seconds are of the run
        self._ready_s = 0.0

    def submit(self, request: Request) -> None:
        """Take in a request, which waits for those before it."""
        request.number = len(self.requests)
        self.requests.append(request)
        self._queue.append(request)

    def cancel(self, request: Request) -> None:
        """End a request, between two steps."""
        request.cancelled = True
        if request is self._one:
            self._leave()
        elif request in self._queue:
            self._queue.remove(request)

    def transfers(self) -> list[Transfer]:
        """Its caches stay where they are."""
        return []

    def seated(self, slot: int) -> Request:
        """The request that is answered."""
        assert self._one is not None and slot == 0
        return self._one

    def next_step(self) -> Step | None:
        """What the stages do next; None if there is nothing left to do."""
        if self._one is None and not self._sit():
            return None
        kind = self._kind()
        if kind is None:
            assert math.isfinite(self._ready_s), "the request waits for the token that it was due"
            self.now_s = self._ready_s
            kind = self._kind()
        assert kind is not None
        works = self._lines[kind] = (self._enter(kind), *self._lines[kind][:-1])
        return Step(kind, works)

    def complete(self, step: Step, cycles: int) -> list[Request]:
        """Let the time of a step pass; return whose token is due."""
        seconds = self._step_s(step, cycles)
        self.records.append(StepRecord(step.kind, step.works, cycles, self.now_s, seconds))
        self.now_s += seconds
        done = step.works[-1]
        one = self._one
        return [one] if one and done and any(map(one.due, done.rows)) else []

    def token(self, request: Request, token: int, last: bool = False) -> None:
        """A token is at the host: what was guessed is right, or leaves the pipeline."""
        done = self.records[-1].works[-1]
        assert done is not None and request is self._one
        at_s = self.now_s + (self.link.out_s(done.kind) if self.link.beside else 0.0)
        request.tokens.append(token)
        request.token_s.append(at_s)
        right = bool(self._guesses) and self._guesses.popleft()[0] == token
        self.accepted += right
        if last or len(request.tokens) == request.max_new_tokens:
            self._leave()
        elif not right:
            self._drop()
            self._call(at_s)
        elif self._alone(request):  # what was guessed is known before its row has entered
            self._ready_s = min(self._ready_s, at_s + self._in_s())
        if self._one and not self._guesses and self._alone(request):
            self._guess(request, at_s)

    # --- rows ---------------------------------------------------------------------------------
    def _known(self) -> int:
        """Tokens of the sequence, without those that are guessed."""
        assert self._one is not None
        return len(self._one.prompt) + len(self._one.tokens)

    def _alone(self, request: Request) -> bool:
        """Whether no row is under way."""
        return request.position < self._known()

    def _work(self) -> Work:
        """A chunk of the prompt, or the row of the next token, known or guessed."""
        one, known = self._one, self._known()
        assert one is not None
        at, last = one.position, len(one.prompt) - 1
        if at < last and self._chunk and not one.prompt_logits:
            end = min(at + self._chunk, last)
            rows = tuple(Row(0, n, one.prompt[n]) for n in range(at, end))
            return Work(prefill_kind(self._chunk, context_bucket(end)), rows)
        token = one.token_at(at) if at < known else self._guesses[at - known][0]
        row = Row(0, at, token, at >= last or one.prompt_logits)
        return Work(decode_kind(context_bucket(at + 1)), (row,))

    def _kind(self) -> LaunchKind | None:
        """What the next step does: the prompt first; None if there is nothing to do yet."""
        for kind, line in self._lines.items():
            if any(line[:-1]) or self._enters(kind):
                return kind
        return None

    def _enters(self, kind: LaunchKind) -> bool:
        return self._ready_s <= self.now_s and self._work().kind.idle == kind

    def _enter(self, kind: LaunchKind) -> Work | None:
        if not self._enters(kind):
            return None
        work, one = self._work(), self._one
        assert one is not None
        one.position += len(work.rows)
        guess = one.position - self._known()
        if guess < 0:
            self._ready_s = self.now_s
        elif guess < len(self._guesses):
            self._ready_s = self._guesses[guess][1] + self._in_s()
        else:
            self._ready_s = math.inf
        return work

    def _step_s(self, step: Step, cycles: int) -> float:
        """Seconds of a step: of the chips, or of their links if these take longer."""
        link, chips_s = self.link, cycles / self.link.spec.clock_hz
        moves = [
            (work.gives, *link.moving_s(work.kind, with_x=stage == 0))
            for stage, work in enumerate(step.works)
            if work
        ]
        if not link.beside:
            waits_s = (2 * link.spec.host_latency_s + into + out for _, into, out in moves)
            return chips_s + max(waits_s, default=0.0)
        return max([chips_s, *(max(into, out * gives) for gives, into, out in moves)])

    # --- coming and going -----------------------------------------------------------------------
    def _sit(self) -> bool:
        if not self._queue:
            return False
        one = self._one = self._queue.popleft()
        one.slot, one.entered_s = 0, max(one.arrives_s, self.now_s)
        self._call(one.entered_s)
        return True

    def _call(self, at_s: float) -> None:
        self._ready_s = at_s + self._in_s()

    def _in_s(self) -> float:
        return self.link.in_s(self._work().kind) if self.link.beside else 0.0

    def _guess(self, request: Request, at_s: float) -> None:
        most = request.max_new_tokens - len(request.tokens) - 1
        found = self._draft.guesses(request)[:most] if self._draft and most > 0 else ()
        self._guesses.extend((token, at_s + seconds) for token, seconds in found)
        self.guessed += len(found)

    def _drop(self) -> None:
        """Take all rows out of the pipeline, and the guesses that they were of."""
        assert self._one is not None
        self._lines = {kind: (None,) * len(line) for kind, line in self._lines.items()}
        self._guesses.clear()
        self._one.position = min(self._one.position, self._known() - 1)

    def _leave(self) -> None:
        self._drop()
        self._one = None


@dataclass(frozen=True)
class Speculation:
    """What guesses were worth: of `guessed` tokens `accepted` were right, and the rates."""

    guessed: int
    accepted: int
    tokens_per_s: float | None
    plain_tokens_per_s: float | None


def measured(lowered: Lowered, scheduler: SpeculativeScheduler) -> Speculation:
    """The gain of a run that is over: the same tokens without guesses, in the same programs."""
    plain = SpeculativeScheduler(lowered.plan.pp, lowered.plan.chunk, scheduler.link, None)
    again = [Request(one.prompt, one.max_new_tokens) for one in scheduler.requests]
    said: dict[Request, Iterator[int]] = {}
    for mine, one in zip(again, scheduler.requests, strict=True):
        said[mine] = iter(one.tokens)
        plain.submit(mine)

    def choose(request: Request, _: None) -> tuple[int, bool]:
        whole = scheduler.requests[request.number]
        return next(said[request]), len(request.tokens) + 1 == len(whole.tokens)

    def planned(step: Step) -> tuple[int, Iterator[None]]:
        return step_cycles(lowered, step), repeat(None)

    while advance(plain, planned, choose) is not None:
        pass
    rates = [
        sum(one.tokens_per_s or 0.0 for one in of) / len(of) or None
        for of in (scheduler.requests, again)
    ]
    return Speculation(scheduler.guessed, scheduler.accepted, *rates)


def step_cycles(lowered: Lowered, step: Step) -> int:
    """Cycles of a step as it was scheduled."""
    programs = [StageProgram(w.kind, w.slot) if w else StageProgram(step.kind) for w in step.works]
    parts = joined(lowered.pipeline.groups, programs, lowered.launches)
    return max(lowered.launches[part].end_cycles.get(chip, 0) for chip, part in parts.items())


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with in common."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
