"""Answers in the times of a model that is only planned; the words come from elsewhere."""

from itertools import count, repeat
from typing import Protocol

import numpy as np

from cluster.generation.logprobs import Logprobs, logprobs
from cluster.generation.sampling import uniform
from cluster.model.load import Loaded, Tokenizer
from cluster.model.reference import Held, Reference
from cluster.serving.build import Policy
from cluster.serving.clockwork import Clockwork
from cluster.serving.core.columns import DECODE, PREFILL
from cluster.serving.engine import Choosing, Logits
from cluster.serving.requests import Request, Step
from cluster.serving.scheduler import PipelineScheduler, advance

CERTAIN = 100.0  # a logit above all others, which are 0
ECHO, RANDOM = "echo", "random"


class Words(Protocol):
    """Where the tokens of answers come from."""

    def logits(self, request: Request, choosing: Choosing) -> Logits:
        """Logits [rows, vocab] after what is new: of the prompt, in which case of all of its
        tokens if they are wanted, or of the last token."""

    def forget(self, request: Request) -> None:
        """Drop what is kept of a request."""


class Echo:
    """Repeats what was said, then ends."""

    def __init__(self, loaded: Loaded) -> None:
        self._vocab = loaded.model.vocab

    def logits(self, request: Request, choosing: Choosing) -> Logits:
        """Logits in which the next token of what was said is certain."""
        end = sorted(choosing.stop)[:1]
        text = (*choosing.said, *end) or request.prompt
        return _certain(request, text[len(request.tokens) % len(text)], self._vocab)

    def forget(self, request: Request) -> None:
        """There is nothing."""


class Chance:
    """Tokens of any text, by the seed; none ends it."""

    def __init__(self, loaded: Loaded) -> None:
        self._vocab, self._tokenizer = loaded.model.vocab, loaded.tokenizer

    def logits(self, request: Request, choosing: Choosing) -> Logits:
        """Logits in which a token that is neither control nor half a character is certain."""
        first = len(request.tokens) << 10
        draws = (int(uniform(choosing.seed, first + n) * self._vocab) for n in count())
        return _certain(request, next(filter(self._spells, draws)), self._vocab)

    def _spells(self, token: int) -> bool:
        return _spelled(self._tokenizer, token)

    def forget(self, request: Request) -> None:
        """There is nothing."""


class FromReference:
    """What a model says, computed in float32 in NumPy; every request has caches of its own."""

    def __init__(self, loaded: Loaded, context: int) -> None:
        self._reference = Reference(loaded.weights, context)
        self._held: dict[Request, Held] = {}

    def logits(self, request: Request, choosing: Choosing) -> Logits:
        """Logits of the model."""
        reference = self._reference
        reference.swap(self._held.pop(request, None))
        new = request.tokens[-1:] or request.prompt
        wanted = request.prompt_logits and not request.tokens
        found = reference.rows(new, last=not wanted)
        self._held[request] = reference.swap(None)
        return found if wanted else found[-1:]

    def forget(self, request: Request) -> None:
        """Drop its caches."""
        self._held.pop(request, None)


class TimedRunner:
    """Takes requests through the steps of a plan by the clock alone."""

    def __init__(self, clockwork: Clockwork, words: Words, policy: Policy | None = None) -> None:
        self.plan, self._clockwork, self._words = clockwork.timed.plan, clockwork, words
        shape, link = clockwork.shape, clockwork.link
        self._ends = clockwork.ends  # worked out now, so that no step waits for it
        self.scheduler = PipelineScheduler(
            *(shape.stages, shape.slots, shape.chunk, link, shape.rows),
            history=False,
            policy=policy,
            whole=shape.whole,
        )
        self._choosing: dict[Request, Choosing] = {}
        self._logprobs: dict[Request, list[Logprobs]] = {}
        self._prompt_logprobs: dict[Request, list[Logprobs]] = {}

    def submit(self, request: Request, choosing: Choosing) -> None:
        """Take in a request; raises PromptTooLong."""
        self.scheduler.submit(request.check(self.plan.tokens_max))
        self._choosing[request] = choosing

    def cancel(self, request: Request) -> None:
        """End a request wherever it is."""
        self.scheduler.cancel(request)

    def step(self) -> list[tuple[Request, int]] | None:
        """Let one step pass; return its tokens, or None if nobody is left."""
        found = advance(
            self.scheduler, lambda step: (self.cycles(step), repeat(None)), self._choose
        )
        self.scheduler.transfers()  # of caches that there are not
        return found

    def cycles(self, step: Step) -> int:
        """Cycles of a step, as planned: of the stage that takes longest over its work, or none."""
        line = DECODE if step.kind.logits_rows else PREFILL
        blocks = (work.kind.blocks if work else 0 for work in step.works)
        return max(int(self._ends[line, n, stage]) for stage, n in enumerate(blocks))

    def forget(self, request: Request) -> None:
        """Drop what is kept of a request that has ended."""
        self._words.forget(request)
        for kept in (self._choosing, self._logprobs, self._prompt_logprobs):
            kept.pop(request, None)

    def logprobs_of(self, request: Request) -> list[Logprobs]:
        """How likely each token so far was, if that was asked for."""
        return self._logprobs.get(request, [])

    def prompt_logprobs_of(self, request: Request) -> list[Logprobs]:
        """How likely each token of a prompt but the first was, if that was asked for."""
        return self._prompt_logprobs.get(request, [])

    def _choose(self, request: Request, _: None) -> tuple[int, bool]:
        choosing, top = self._choosing[request], self._choosing[request].logprobs
        *prompt, logits = self._words.logits(request, choosing)
        if prompt:
            known = zip(prompt, request.prompt[1:], strict=True)
            self._prompt_logprobs[request] = [logprobs(*one, top or 0) for one in known]
        token = choosing.pick(logits, len(request.tokens))
        if top is not None:
            self._logprobs.setdefault(request, []).append(logprobs(logits, token, top))
        return token, choosing.ends(token, len(request.tokens) + 1)


def _certain(request: Request, token: int, vocab: int) -> Logits:
    rows = len(request.prompt) if request.prompt_logits and not request.tokens else 1
    found = np.zeros((rows, vocab), np.float32)
    found[np.arange(rows), (*request.prompt[1:], token)[-rows:]] = CERTAIN
    return found


def _spelled(tokenizer: Tokenizer, token: int) -> bool:
    """Whether a token is whole text: neither control nor half a character."""
    text = tokenizer.decode([token])
    return bool(text) and "\ufffd" not in text
