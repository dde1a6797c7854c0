"""Steps of the pipeline on a loaded machine: their programs, the host's inputs, their logits."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.compiler.host_regions import host_bytes
from cluster.compiler.launch import StageProgram
from cluster.compiler.lower import Lowered
from cluster.compiler.pipeline import joined
from cluster.compiler.weight_layout import Array
from cluster.generation.logprobs import Logprobs, logprobs
from cluster.generation.sampling import Sampling
from cluster.machines.machine import Digest, Machine
from cluster.serving.build import Policy
from cluster.serving.host_inputs import host_inputs, host_tables, logits_of
from cluster.serving.host_link import HostLink
from cluster.serving.scheduler import (
    PipelineScheduler,
    Request,
    Step,
    Work,
    drive,
)

Logits = npt.NDArray[np.float32]
Pick = Callable[[Logits, int], int]  # logits, step -> token


class PipelineRunner:
    """Answers requests, each step by the stages that its works have come to.

    With one slot, a step is a launch through all stages. `launches` are the names of those that
    were run, `programs` says of each which launch's program a chip ran. With `logprobs` so many of
    the likeliest tokens are kept of each choice.
    """

    def __init__(
        self, lowered: Lowered, machine: Machine, logprobs: int = 0, policy: Policy | None = None
    ) -> None:
        plan, several = lowered.plan, lowered.plan.slots > 1
        self.lowered, self.machine, self.logprobs = lowered, machine, logprobs
        link = HostLink(plan.spec, lambda kind: host_bytes(lowered.stages, kind), beside=several)
        stages = plan.pp if several else 1
        self.scheduler = PipelineScheduler(stages, plan.slots, plan.chunk, link, policy=policy)
        self.digest = Digest(lowered)
        self.launches: list[str] = []
        self.programs: dict[str, dict[int, str]] = {}
        self._tables: dict[Work, dict[str, Array]] = {}
        self._logits: dict[Request, Any] = {}
        self._logprobs: dict[Request, list[Logprobs]] = {}

    @property
    def cycles(self) -> list[int]:
        """Executed cycles of every step."""
        return [record.cycles for record in self.scheduler.records]

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
        for request in requests:
            self.scheduler.submit(request.check(self.lowered.plan.tokens_max))

        def choose(request: Request, logits: Logits) -> int:
            seen = self._logits.setdefault(request, hashlib.sha256())
            seen.update(logits.tobytes())
            token = pick(logits, len(request.tokens))
            if self.logprobs:
                found = logprobs(logits, token, self.logprobs)
                self._logprobs.setdefault(request, []).append(found)
            return token

        return drive(self.scheduler, self._run, choose, stop)

    def logprobs_of(self, request: Request) -> list[Logprobs]:
        """How likely each token of an answer was, if that was asked for."""
        return self._logprobs.get(request, [])

    def logits_sha256(self, request: Request) -> str:
        """SHA-256 of all logits that a token of the request was chosen from."""
        digest: str = self._logits[request].hexdigest()
        return digest

    def _run(self, step: Step) -> tuple[int, Logits]:
        """Executed cycles, and the logits [rows, vocab] of what has come to the end."""
        name = self._name(step)
        known, self._tables = self._tables, {}

        def tables(work: Work) -> dict[str, Array]:  # the same for each stage that it comes to
            found = known.get(work) or host_tables(self.lowered, work)
            return self._tables.setdefault(work, found)

        result = self.machine.launch(name, host_inputs(self.lowered, step.works, tables))
        self.digest.add(result)
        self.launches.append(name)
        return result.end_cycle, logits_of(self.lowered, result.outputs)

    def _name(self, step: Step) -> str:
        """The launch of a step, joined of stage programs when it is new."""
        lowered = self.lowered
        if lowered.plan.slots == 1:
            (work,) = step.works
            assert work is not None
            name = str(work.kind)
            self.programs[name] = dict.fromkeys(lowered.launches[name].programs, name)
            return name
        programs = [
            StageProgram(w.kind, w.slot) if w else StageProgram(step.kind) for w in step.works
        ]
        name = " | ".join(map(str, programs))
        if name not in self.programs:
            self.programs[name] = joined(lowered.pipeline.groups, programs, lowered.launches)
            self.machine.join(name, self.programs[name])
        return name
