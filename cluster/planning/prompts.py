"""The steps that take in the prompt of one user: what enters when, whatever it takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cluster.compiler.launch import LaunchKind
from cluster.serving.host_link import HostLink
from cluster.serving.requests import Request, Step
from cluster.serving.scheduler import PipelineScheduler, drive
from topology.fabric import Ints


class PromptStep(NamedTuple):
    """A step of a prompt, and its time with the host's part of it."""

    cycles: int
    seconds: float


@dataclass(frozen=True, eq=False)
class PromptSteps:
    """Steps of a pipeline of chunks, or launches, with what each stage works on in them.

    Of works [steps, stages] that is the context, or 0 for none. Nobody but this one user being
    there, that does not depend on cycles; nor do the `waits_s` for the host link.
    """

    kinds: tuple[LaunchKind, ...]  # of each step the largest
    works: Ints
    waits_s: npt.NDArray[np.float64]

    def timed(self, cycles: Ints, clock_hz: int) -> Sequence[PromptStep]:
        """Steps that take so many cycles of the chips each."""
        seconds = cycles / clock_hz + self.waits_s
        return list(map(PromptStep._make, zip(cycles.tolist(), seconds.tolist(), strict=True)))


def prompt_steps(link: HostLink, stages: int, chunk: int, prompt: int) -> PromptSteps:
    """The steps of so many tokens, chunk by chunk; the last one has logits."""
    scheduler = PipelineScheduler(stages, 1, chunk, link, whole=True)
    scheduler.submit(Request((0,) * prompt, 1))
    for _ in drive(scheduler, lambda _step: (0, repeat(None)), _zero, frozenset()):
        pass
    steps = [Step(record.kind, record.works) for record in scheduler.records]
    works = np.zeros((len(steps), stages), np.int64)
    for row, step in zip(works, steps, strict=True):
        row[: len(step.works)] = [work.kind.context if work else 0 for work in step.works]
    kinds = tuple(max(work.kind for work in step.works if work) for step in steps)
    return PromptSteps(kinds, works, np.array([record.seconds for record in scheduler.records]))


def _zero(_request: Request, _logits: None) -> int:
    return 0
