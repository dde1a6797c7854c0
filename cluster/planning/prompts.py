"""The steps that take in the prompt of one user: what enters when, whatever it takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple

import numpy as np

from chip.spec import ChipSpec
from cluster.compiler.launch import LaunchKind
from cluster.serving.host_link import HostLink
from cluster.serving.requests import Request
from cluster.serving.scheduler import PipelineScheduler, drive
from topology.fabric import Ints


class PromptStep(NamedTuple):
    """A step of a prompt, and its time with the host's part of it."""

    cycles: int
    seconds: float


@dataclass(frozen=True)
class PromptSteps:
    """What the scheduler makes of a prompt while nobody else is there, whatever steps take.

    Chunks, then tokens with logits. Of several stages all chunks pass each: a stage works on what
    the one before has worked on in the step before.
    """

    chunks: tuple[LaunchKind, ...]
    tokens: tuple[LaunchKind, ...]

    def works(self, stages: int) -> Ints:
        """The chunk of each stage in each step [steps, stages], by its number; -1 for none."""
        if not self.chunks:
            return np.zeros((0, stages), np.int64)
        steps = np.arange(len(self.chunks) + stages - 1)[:, None] - np.arange(stages)
        return np.where(steps < len(self.chunks), np.maximum(steps, -1), -1)

    def waits_s(self, works: Ints, link: HostLink) -> list[float]:
        """Seconds that the chips wait for the host in each step; only the first stage takes x."""
        first = np.array([link.waits_s(kind) for kind in self.chunks])
        further = np.array([link.waits_s(kind, with_x=False) for kind in self.chunks])
        each = np.where(np.arange(works.shape[1]) == 0, first[works], further[works])
        tokens = map(link.waits_s, self.tokens)
        return [*np.where(works < 0, 0.0, each).max(axis=1).tolist(), *tokens]


def prompt_steps(spec: ChipSpec, chunk: int, prompt: int) -> PromptSteps:
    """The launches that take in so many tokens."""
    link = HostLink(spec, lambda _kind, _with_x: (0, 0), beside=False)
    scheduler = PipelineScheduler(1, 1, chunk, link)
    scheduler.submit(Request((0,) * prompt, 1))
    for _ in drive(scheduler, lambda _step: (0, repeat(None)), _zero, frozenset()):
        pass
    kinds = [work.kind for record in scheduler.records for work in record.works if work]
    chunks = tuple(kind for kind in kinds if not kind.logits_rows)
    return PromptSteps(chunks, tuple(kinds[len(chunks) :]))


def in_time(cycles: Sequence[int], waits_s: Sequence[float], clock_hz: int) -> list[PromptStep]:
    """Steps that take so many cycles of the chips each, and wait for the host beside."""
    pairs = zip(cycles, waits_s, strict=True)
    return [PromptStep(count, count / clock_hz + wait_s) for count, wait_s in pairs]


def _zero(_request: Request, _logits: None) -> int:
    return 0
