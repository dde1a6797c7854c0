"""Steps of the pipeline on a loaded machine: their programs, the host's inputs, their logits."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from chip.digest import Hash
from chip.program import Region
from cluster.compiler.host_regions import host_bytes
from cluster.compiler.launch import LaunchKind, StageProgram, in_steps, prefill_kind
from cluster.compiler.lower import Lowered
from cluster.compiler.pipeline import joined
from cluster.compiler.weight_layout import Array
from cluster.generation.logprobs import Logprobs, logprobs
from cluster.generation.sampling import Sampling
from cluster.machines.machine import Contents, Digest, Machine
from cluster.serving.build import Policy
from cluster.serving.host_inputs import host_inputs, host_tables, logits_of
from cluster.serving.host_link import HostLink
from cluster.serving.requests import Request, Row, Step, Work
from cluster.serving.scheduler import PipelineScheduler, Transfer, advance
from cluster.serving.speculation import Draft, SpeculativeScheduler

MOST_JOINED = 2048  # launches of stage programs that are kept, where no history is
Logits = npt.NDArray[np.float32]
Scheduler = PipelineScheduler | SpeculativeScheduler
Pick = Callable[[Logits, int], int]  # logits, step -> token


@dataclass(frozen=True)
class Choosing:
    """How the tokens of one request are chosen, and what ends it before its count is full.

    A token of `stop` does once there are `min_tokens`. With `logprobs` each choice is kept with so
    many of the likeliest tokens. `said` and `seed` are for words that no model chooses: what an
    echo repeats, and the seed of random ones.
    """

    pick: Pick
    stop: frozenset[int] = frozenset()
    min_tokens: int = 0
    logprobs: int | None = None
    said: tuple[int, ...] = ()
    seed: int = 0

    def ends(self, token: int, count: int) -> bool:
        """Whether a token, the request's `count`-th, is its last."""
        return token in self.stop and count >= self.min_tokens


class PipelineRunner:
    """Answers requests, each step by the stages that its works have come to.

    Requests join with `submit` and leave with `cancel` between two steps, whatever others do. With
    one slot, a step is a launch through all stages. `launches` are the names of those that were
    run, `programs` says of each which launch's program a chip ran. With `logprobs` so many of the
    likeliest tokens are kept of each choice. With a `draft` it answers one request at a time,
    guesses of whose tokens go ahead. Without `history` nothing is kept of requests that
    `forget` is called for, and of steps.
    """

    def __init__(
        self,
        lowered: Lowered,
        machine: Machine,
        logprobs: int = 0,
        history: bool = True,
        draft: Draft | None = None,
        policy: Policy | None = None,
    ) -> None:
        plan, several = lowered.plan, lowered.plan.slots > 1
        self.lowered, self.machine, self.logprobs = lowered, machine, logprobs
        self.history = history
        link = HostLink(plan.spec, partial(host_bytes, lowered.stages), beside=several)
        stages = plan.pp if several else 1
        chunks = plan.pp if self._in_steps(prefill_kind(plan.chunk, 0)) else stages
        size = chunks, plan.slots, plan.chunk, link, plan.rows
        self.scheduler: Scheduler = (
            SpeculativeScheduler(stages, plan.chunk, link, draft, chunks)
            if draft
            else PipelineScheduler(*size, history=history, policy=policy, whole=not several)
        )
        self.digest = Digest(lowered)
        self.launches: list[str] = []
        self.programs: dict[str, dict[int, str]] = {}
        self._joined: OrderedDict[str, str] = OrderedDict()  # name by what it is of, used last last
        self._tables: dict[Work, dict[str, Array]] = {}
        self.transfers: list[Transfer] = []  # of caches over the host link
        self._spilled: dict[Request, Contents] = {}
        self._choosing: dict[Request, Choosing] = {}
        self._logits: dict[Request, Hash] = {}
        self._logprobs: dict[Request, list[Logprobs]] = {}
        self._prompt_logprobs: dict[Request, list[Logprobs]] = {}

    @property
    def cycles(self) -> list[int]:
        """Executed cycles of every step."""
        return [record.cycles for record in self.scheduler.records]

    # --- requests that come and go ----------------------------------------------------------
    def submit(self, request: Request, choosing: Choosing) -> None:
        """Take in a request; raises PromptTooLong."""
        self.scheduler.submit(request.check(self.lowered.plan.tokens_max))
        self._choosing[request] = choosing

    def cancel(self, request: Request) -> None:
        """End a request wherever it is; its slot is free then."""
        self.scheduler.cancel(request)

    def step(self) -> list[tuple[Request, int]] | None:
        """Run one step; return the tokens that came of it, or None if nobody is left."""
        return advance(self.scheduler, self._run, self._choose)

    def forget(self, request: Request) -> None:
        """Drop what is kept of a request that has ended."""
        kept: tuple[dict[Request, Any], ...] = (
            self._choosing, self._logits, self._logprobs, self._prompt_logprobs, self._spilled,
        )  # fmt: skip
        for one in kept:
            one.pop(request, None)

    # --- requests that are answered to the end ----------------------------------------------
    def generate(
        self, prompt: Sequence[int], count: int, sampling: Sampling, stop: frozenset[int]
    ) -> Iterator[int]:
        """Yield up to `count` tokens, the stop token included; raises PromptTooLong."""
        request = Request(tuple(prompt), count)
        return (token for _, token in self.answer([request], sampling.pick, stop))

    def answer(
        self, requests: Iterable[Request], pick: Pick, stop: frozenset[int]
    ) -> Iterator[tuple[Request, int]]:
        """Yield every token of all requests as it comes; raises PromptTooLong."""
        choosing = Choosing(pick, stop, logprobs=self.logprobs or None)
        for request in requests:
            self.submit(request, choosing)

        def tokens() -> Iterator[tuple[Request, int]]:
            while (found := self.step()) is not None:
                yield from found

        return tokens()

    def logprobs_of(self, request: Request) -> list[Logprobs]:
        """How likely each token of an answer was, if that was asked for."""
        return self._logprobs.get(request, [])

    def prompt_logprobs_of(self, request: Request) -> list[Logprobs]:
        """How likely each token of a prompt but the first was, if logits of it were wanted."""
        return self._prompt_logprobs.get(request, [])

    def logits_sha256(self, request: Request) -> str:
        """SHA-256 of all logits that a token of the request was chosen from."""
        return self._logits[request].hexdigest()

    # --- one step ---------------------------------------------------------------------------
    def _choose(self, request: Request, logits: Logits) -> tuple[int, bool]:
        """The next token of a request, and whether it is its last."""
        choosing = self._choosing[request]
        if self.history:
            self._logits.setdefault(request, Hash()).update(lambda: [logits])
        token = choosing.pick(logits, len(request.tokens))
        if choosing.logprobs is not None:
            found = logprobs(logits, token, choosing.logprobs)
            self._logprobs.setdefault(request, []).append(found)
        return token, choosing.ends(token, len(request.tokens) + 1)

    def _run(self, step: Step) -> tuple[int, list[Logits]]:
        """Executed cycles, and the logits [vocab] of each row that a token is chosen from."""
        self._move_caches()
        name = self._name(step)
        known, self._tables = self._tables, {}

        def tables(work: Work) -> dict[str, Array]:  # the same for each stage that it comes to
            found = known.get(work) or host_tables(self.lowered, work)
            return self._tables.setdefault(work, found)

        result = self.machine.launch(name, host_inputs(self.lowered, step.works, tables))
        if self.history:
            self.digest.add(result)
            self.launches.append(name)
        done = step.works[-1]
        rows = [row for row in done.rows if row.gives] if done else []
        logits = logits_of(self.lowered, result.outputs)
        if done:
            logits = logits[[done.kind.row_of(row.slot) for row in rows]]
        return result.end_cycle, self._due(rows, logits)

    def _move_caches(self) -> None:
        """Take caches out of slots, and put them into others, as the scheduler has booked it."""
        for transfer in self.scheduler.transfers():
            places = self._caches(transfer.slot)
            if not transfer.back:
                self._spilled[transfer.request] = self.machine.contents(places)
            elif transfer.request in self._spilled:  # or it was cancelled meanwhile
                self.machine.put(places, self._spilled.pop(transfer.request))
            if self.history:
                self.transfers.append(transfer)

    def _caches(self, slot: int) -> dict[int, list[Region]]:
        """Where the caches of a slot are, by chip."""
        lowered = self.lowered
        return {
            chip: list(stage.memory.caches(slot))
            for stage, group in zip(lowered.stages, lowered.placement, strict=True)
            for chip in group
        }

    def _due(self, rows: list[Row], logits: Logits) -> list[Logits]:
        """The logits from which tokens are chosen; those of tokens that are known are read."""
        found = []
        for row, mine in zip(rows, logits, strict=False):
            request = self.scheduler.seated(row.slot)
            if request.due(row):
                found.append(mine)
            else:
                known, top = request.prompt[row.position + 1], self._choosing[request].logprobs
                heard = self._prompt_logprobs.setdefault(request, [])
                heard.append(logprobs(mine, known, top or 0))
        return found

    def _in_steps(self, kind: LaunchKind) -> bool:
        return in_steps(self.lowered.plan, kind, self.lowered.pipeline.apart)

    def _name(self, step: Step) -> str:
        """The launch of a step, joined of stage programs when it is new."""
        lowered = self.lowered
        if not self._in_steps(step.kind):
            (work,) = step.works
            assert work is not None
            name = str(work.kind)
            self.programs[name] = dict.fromkeys(lowered.launches[name].programs, name)
            return name
        programs = [
            StageProgram(w.kind, w.slot) if w else StageProgram(step.kind) for w in step.works
        ]
        key = " | ".join(map(str, programs))
        if key in self._joined:
            self._joined.move_to_end(key)
            return self._joined[key]
        full = not self.history and len(self._joined) == MOST_JOINED
        name = self._joined.popitem(last=False)[1] if full else key  # is joined anew, of others
        self.programs[name] = joined(lowered.pipeline.groups, programs, lowered.launches)
        self.machine.join(name, self.programs[name])
        self._joined[key] = name
        return name
