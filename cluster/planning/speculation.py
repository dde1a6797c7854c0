"""Speculative decoding of one user by the clock alone: what guesses gain if so many are right.

A round begins when a draft is asked for guesses, with nothing under way, and ends when it is asked
again; its rows go through the pipeline as a run has them. How long it takes, and how many tokens it
gives, follows from how many guesses were right, and from how many tokens the draft had to take in
before the first; the mean is over how likely these are.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from itertools import repeat
from typing import Any

import numpy as np

from cluster.compiler.choose import PlanRequest
from cluster.compiler.host_regions import host_bytes
from cluster.compiler.limits import NODE_CHIPS
from cluster.errors import BadValue, DoesNotFit
from cluster.planning.cost_store import CostStore
from cluster.planning.planner import Planned, make
from cluster.planning.timing import PlanTiming
from cluster.runs.drafting import OPTION, DraftChoice
from cluster.serving.host_link import HostLink
from cluster.serving.requests import Request
from cluster.serving.scheduler import advance
from cluster.serving.speculation import Guess, SpeculativeScheduler, taken_in

RIGHT, WRONG = 1, 0


@dataclass(frozen=True)
class Guessing:
    """Up to `count` guesses of `choice`, each right with the chance `acceptance` after right ones.

    Without a `choice` they come from somewhere that takes no time.
    """

    acceptance: float
    count: int
    choice: DraftChoice | None = None


@dataclass(frozen=True)
class PlannedSpeculation:
    """What guesses gain for one user of a plan of `chips`, beside those of the draft."""

    draft: str | None
    draft_chips: int
    draft_tokens: int
    acceptance: float
    chips: int
    tp: int
    pp: int
    tokens_per_round: float
    round_s: float
    tokens_per_s: float
    plain_tokens_per_s: float
    speedup: float

    def report(self) -> dict[str, Any]:
        """The object in the report of a plan."""
        return asdict(self)


def speculated(
    name: str, request: PlanRequest, guessing: Guessing, planned: Planned, store: CostStore
) -> PlannedSpeculation:
    """What guessing gains over a plan; raises what planning does, and BadValue.

    A plan with stages side by side is made for it, with caches for two: as a run has it.
    """
    if request.batch > 1:
        raise BadValue("--batch", request.batch, "is 1 with --acceptance: guesses are of one user")
    target, draft = _side_by_side(name, replace(request, batch=2, rows=1), store), None
    if guessing.choice is not None and guessing.choice.longest is None:
        draft = _draft(guessing.choice, request.context, target, store).timed
    tokens, seconds = mean_round(target.timed, draft, guessing.count, guessing.acceptance)
    plain = 1 / planned.timed.decode(planned.timed.plan.context).seconds(planned.timed.plan.spec)
    text = guessing.choice.text if guessing.choice else None
    chips = draft.plan.chips if draft else 0
    plan, rate = target.timed.plan, tokens / seconds
    return PlannedSpeculation(
        text, chips, guessing.count, guessing.acceptance, plan.chips, plan.tp, plan.pp,
        tokens, seconds, rate, plain, rate / plain,
    )  # fmt: skip


def _side_by_side(name: str, request: PlanRequest, store: CostStore) -> Planned:
    """The best plan, or if its stages cannot work side by side that of the widest groups in a node.

    Raises what planning does, of the best one.
    """
    refused: BadValue | None = None
    for tp in (request.tp, *(range(NODE_CHIPS, 0, -1) if request.tp is None else ())):
        try:
            planned = make(name, replace(request, tp=tp), store)
            planned.timed.steps  # noqa: B018  raises where stages need each other's chips
        except DoesNotFit:
            if refused is None:
                raise
        except BadValue as error:
            refused = refused or error
        else:
            return planned
    assert refused is not None
    raise refused


def mean_round(
    target: PlanTiming, draft: PlanTiming | None, count: int, acceptance: float
) -> tuple[float, float]:
    """Tokens and seconds of a round of so many guesses, on average; raises BadValue."""
    if count + 3 >= target.plan.context:
        rule = f"are too many for caches of {target.plan.context} tokens"
        raise BadValue("--draft-tokens", count, rule)
    right = acceptance ** np.arange(count + 1)  # how likely so many are, and more
    chances = right - np.append(right[1:], 0.0)
    found, falls = [], []  # by what the draft is behind
    for behind in (1, 2):
        guesses = (TimedGuesses(right, count, draft, behind) for right in range(count + 1))
        rounds = np.array([one_round(target, one) for one in guesses])
        found.append(chances @ rounds)
        # its last guess a draft has not taken in, nor the token after it if that came as well
        falls.append(chances[-1] * (rounds[-1][0] > count))
    share = falls[0] / (1 + falls[0] - falls[1])  # of rounds that begin two tokens behind
    tokens, seconds = (1 - share) * found[0] + share * found[1]
    return float(tokens), float(seconds)


class TimedGuesses:
    """A round of guesses, the first `right` of which are right, known when a draft would know them.

    The draft has to take in `behind` tokens before the first; no draft takes no time.
    """

    def __init__(self, right: int, count: int, draft: PlanTiming | None, behind: int) -> None:
        self.count, self._draft, self._behind = count, draft, behind
        self._tokens = [RIGHT] * right + [WRONG] * (count - right)
        self.asked_at: list[int] = []  # tokens of the request, at each time

    def guesses(self, request: Request) -> Sequence[Guess]:
        """The guesses behind the first token of a request, and none after that."""
        self.asked_at.append(len(request.tokens))
        tokens = self._tokens if len(self.asked_at) == 1 else []
        if self._draft is None:
            return [(token, 0.0) for token in tokens]
        known, seconds, found = len(request.prompt) + len(request.tokens), 0.0, list[Guess]()
        at = known - self._behind
        for number, token in enumerate(tokens):
            while at < known + number:
                took_s, count = self._launch(self._draft, known + number, at)
                seconds, at = seconds + took_s, at + count
            found.append((token, seconds))
        return found

    @staticmethod
    def _launch(draft: PlanTiming, known: int, at: int) -> tuple[float, int]:
        """Seconds and tokens of the draft's next launch, from the host and back to it."""
        chunk = 0 if draft.no_prefill else draft.plan.chunk
        kind, count = taken_in(chunk, lambda kind: draft.launch(kind).cycles, known, at)
        return draft.launch(kind).seconds(draft.plan.spec), count


def one_round(timed: PlanTiming, guesses: TimedGuesses) -> tuple[int, float]:
    """Tokens and seconds of a round at the end of full caches."""
    plan, known = timed.plan, timed.plan.context - guesses.count - 2
    link = HostLink(plan.spec, cache(partial(host_bytes, timed.stages)), beside=True)
    scheduler = SpeculativeScheduler(plan.pp, plan.chunk, link, guesses)
    request = Request((0,) * known, plan.context, position=known - 1)
    scheduler.submit(request)

    def choose(_request: Request, _logits: None) -> tuple[int, bool]:
        return RIGHT, False

    while len(guesses.asked_at) < 2:
        advance(scheduler, lambda step: (timed.steps.cycles(step), repeat(None)), choose)
    first, last = (request.token_s[count - 1] for count in guesses.asked_at)
    return guesses.asked_at[1] - guesses.asked_at[0], last - first


def _draft(choice: DraftChoice, context: int, target: Planned, store: CostStore) -> Planned:
    """The plan of a draft on chips of its own; raises BadValue for one with other tokens."""
    spec = target.timed.plan.spec.name
    made = make(
        choice.model, PlanRequest(weights=choice.weights, context=context, spec=spec), store
    )
    mine, theirs = made.timed.plan.model, target.timed.plan.model
    if mine.vocab != theirs.vocab:
        rule = f"has {mine.vocab} tokens, {theirs.name} {theirs.vocab}"
        raise BadValue(OPTION, choice.text, rule)
    return made
