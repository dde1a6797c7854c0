"""Several sequences in flight: what enters the pipeline in which beat, and when that is.

Time is the chips' and the host's together. Beats follow each other without a pause; meanwhile the
host link brings the inputs of the next beat and takes the logits of the last. A sequence enters
the first stage again when its logits have reached the host and its next token has come back.

New prompts go first: while one is taken in, beats are prefill beats, chunks of one or of several
prompts close behind each other; decode goes on where it stands when the last has passed all stages.
A sequence that has ended leaves its slot, with its caches, to the next prompt.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from chip.spec import ChipSpec
from cluster.compiler.stage import CONTEXT_BLOCK

Works = tuple["Work | None", ...]  # by stage
Runner = Callable[[str, Works], tuple[int, Any]]  # kind, works -> cycles, logits of the last stage
Pick = Callable[[Any, int], int]  # logits, step -> token
HostBytes = Callable[[str, int], tuple[int, int]]  # kind, context -> in, out


@dataclass(frozen=True)
class Work:
    """One way through all stages: `ids` of a sequence, behind its first `position` tokens.

    With `gives` the logits after its last token are wanted.
    """

    slot: int
    kind: str
    ids: tuple[int, ...]
    position: int
    gives: bool

    @property
    def context(self) -> int:
        """The smallest context bucket that holds it."""
        return -(-(self.position + len(self.ids)) // CONTEXT_BLOCK) * CONTEXT_BLOCK


@dataclass
class Generation:
    """One prompt and what became of it; seconds are those of the run, from its first beat on."""

    number: int
    prompt: tuple[int, ...]
    count: int
    slot: int = -1
    position: int = 0
    tokens: list[int] = field(default_factory=list)
    token_s: list[float] = field(default_factory=list)
    entered_s: float = 0.0
    ready_s: float = math.inf  # when its next work can enter

    def work(self, chunk: int) -> Work:
        """What is next: a chunk of the prompt (a token, if `chunk` is 0), or a decode."""
        last, at = len(self.prompt) - 1, self.position
        if at < last and chunk:
            return Work(self.slot, "prefill", self.prompt[at : min(at + chunk, last)], at, False)
        token = self.prompt[at] if at <= last else self.tokens[-1]
        return Work(self.slot, "decode", (token,), at, at >= last)

    @property
    def first_token_s(self) -> float:
        """Seconds from its entry to its first token."""
        return self.token_s[0] - self.entered_s

    @property
    def tokens_per_s(self) -> float | None:
        """What its user sees after the first token; None if that was all."""
        steps = len(self.tokens) - 1
        return steps / (self.token_s[-1] - self.token_s[0]) if steps else None


@dataclass(frozen=True)
class HostLink:
    """The link between a chip and its host; unless `beside`, it and the chips wait in turns."""

    spec: ChipSpec
    bytes: HostBytes
    beside: bool

    def in_s(self, work: Work) -> float:
        """Seconds until the inputs of a work are there."""
        return self.spec.host_latency_s + self._moving_s(work)[0]

    def out_s(self, work: Work) -> float:
        """Seconds until what a work gives is at the host."""
        return self.spec.host_latency_s + self._moving_s(work)[1]

    def beat_s(self, cycles: int, works: Works) -> float:
        """Seconds of a beat: of the chips, or of their links if these take longer."""
        chips_s = cycles / self.spec.clock_hz
        busy = [work for work in works if work]
        if not self.beside:
            return chips_s + sum(self.in_s(work) + self.out_s(work) for work in busy)
        return max(chips_s, *(seconds for work in busy for seconds in self._moving_s(work)))

    def _moving_s(self, work: Work) -> tuple[float, float]:
        into, out = self.bytes(work.kind, work.context)
        rate = self.spec.host_bytes_per_s
        return into / rate, (out / rate if work.gives or not self.beside else 0.0)


@dataclass(frozen=True)
class Beat:
    """One beat that has been."""

    kind: str
    cycles: int
    start_s: float
    seconds: float
    works: Works


class Flight:
    """Takes prompts through a pipeline of `stages`, at most `slots` sequences at a time."""

    def __init__(self, stages: int, slots: int, chunk: int, link: HostLink, run: Runner) -> None:
        self.slots, self.link = slots, link
        self.beats: list[Beat] = []
        self.generations: list[Generation] = []
        self.now_s = 0.0
        self._chunk, self._run = chunk, run
        self._lines: dict[str, Works] = dict.fromkeys(("prefill", "decode"), (None,) * stages)
        self._seated: dict[int, Generation] = {}
        self._queue: deque[Generation] = deque()

    def go(
        self,
        prompts: Iterable[Sequence[int]],
        counts: Iterable[int],
        pick: Pick,
        stop: frozenset[int],
        held: int = 0,
    ) -> Iterator[tuple[Generation, int]]:
        """Yield every token as it comes, the stop token included; `counts` are the most of each.

        Caches are taken to hold the first `held` tokens of each prompt already.
        """
        pairs = enumerate(zip(prompts, counts, strict=True))
        self.generations = [
            Generation(n, tuple(prompt), most, position=held) for n, (prompt, most) in pairs
        ]
        self._queue.extend(self.generations)
        for slot in range(self.slots):
            self._seat(slot, 0.0)
        while self._seated:
            beat, logits = self._beat()
            done = beat.works[-1]
            if done and done.gives:
                generation = self._seated[done.slot]
                token = pick(logits, len(generation.tokens))
                self._landed(generation, done, token, token in stop)
                yield generation, token

    # --- one beat ---------------------------------------------------------------------------
    def _beat(self) -> tuple[Beat, Any]:
        kind = self._kind()
        while kind is None:  # everyone waits for the host
            self.now_s = min(one.ready_s for one in self._seated.values())
            kind = self._kind()
        works = self._lines[kind] = (self._enter(kind), *self._lines[kind][:-1])
        cycles, logits = self._run(kind, works)
        beat = Beat(kind, cycles, self.now_s, self.link.beat_s(cycles, works), works)
        self.beats.append(beat)
        self.now_s += beat.seconds
        return beat, logits

    def _kind(self) -> str | None:
        """What the next beat does: prompts first; None if there is nothing to do yet."""
        for kind, line in self._lines.items():
            if any(line[:-1]) or self._ready(kind):
                return kind
        return None

    def _ready(self, kind: str) -> list[Generation]:
        """Whose work of that kind can enter now, those who have waited longest first."""
        found = [
            one
            for one in self._seated.values()
            if one.ready_s <= self.now_s and one.work(self._chunk).kind == kind
        ]
        return sorted(found, key=lambda one: (one.ready_s, one.number))

    def _enter(self, kind: str) -> Work | None:
        ready = self._ready(kind)
        if not ready:
            return None
        work = ready[0].work(self._chunk)
        ready[0].position += len(work.ids)
        if work.gives:
            ready[0].ready_s = math.inf
        return work

    # --- coming and going -------------------------------------------------------------------
    def _landed(self, generation: Generation, work: Work, token: int, last: bool) -> None:
        """A token of a generation is at the host, which goes on with it or with the next prompt."""
        at_s = self.now_s + (self.link.out_s(work) if self.link.beside else 0.0)
        generation.tokens.append(token)
        generation.token_s.append(at_s)
        if last or len(generation.tokens) == generation.count:
            self._seat(generation.slot, at_s)
        else:
            self._call(generation, at_s)

    def _seat(self, slot: int, at_s: float) -> None:
        self._seated.pop(slot, None)
        if self._queue:
            generation = self._seated[slot] = self._queue.popleft()
            generation.slot, generation.entered_s = slot, at_s
            self._call(generation, at_s)

    def _call(self, generation: Generation, at_s: float) -> None:
        first_s = self.link.in_s(generation.work(self._chunk)) if self.link.beside else 0.0
        generation.ready_s = at_s + first_s


def steady_tokens_per_s(generations: Sequence[Generation], slots: int) -> float | None:
    """Tokens/s while every slot decodes, over whole rounds; None if that was too short to say.

    From when all of the first sequences have had their first token until one of them ends, counted
    between two tokens of that one.
    """
    first = generations[:slots]
    start = max(one.token_s[0] for one in first)
    ender = min(first, key=lambda one: one.token_s[-1])
    inside = [at for at in ender.token_s if at >= start]
    if len(first) < slots or len(inside) < 2:
        return None
    low, high = inside[0], inside[-1]
    count = sum(low < at <= high for one in generations for at in one.token_s)
    return count / (high - low)
