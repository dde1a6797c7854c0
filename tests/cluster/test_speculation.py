"""Speculative decoding: whatever is guessed, tokens are those of plain decoding, only sooner."""

import json
from collections import Counter
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from chip.spec import GROQCHIP1
from cluster.cli import main
from cluster.compiler.lower import lower
from cluster.compiler.place import place
from cluster.compiler.stages import partition
from cluster.generation.sampling import Sampling
from cluster.machines.machine import LocalMachine
from cluster.planning.speculation import mean_round
from cluster.planning.timing import PlanTiming
from cluster.serving.engine import PipelineRunner
from cluster.serving.host_link import HostLink
from cluster.serving.requests import Request, Step
from cluster.serving.scheduler import PipelineScheduler, advance
from cluster.serving.speculation import DraftModel, NGrams, SpeculativeScheduler, measured
from tests.cluster.tiny import lowered, no_progress, tiny_weights
from topology import parse

CHUNK, STOP = 8, 7
SAMPLED = Sampling(1.2, 0.95, 3)


class Guesses:
    """Guesses that come from anywhere, each known a little later than the one before."""

    def __init__(self, draw, gap_s: float = 0.0) -> None:
        self._draw, self._gap_s = draw, gap_s

    def guesses(self, request: Request) -> list[tuple[int, float]]:
        return [(token, n * self._gap_s) for n, token in enumerate(self._draw(request))]


def link(beside: bool = True) -> HostLink:
    return HostLink(GROQCHIP1, lambda kind, _: (1000 * kind.rows, 500 * kind.logits_rows), beside)


def after(request: Request) -> int:
    """A language: the next token by those before it."""
    known = (*request.prompt, *request.tokens)
    return (3 * known[-1] + len(known)) % (STOP + 1)


def run(scheduler, requests: list[Request], stop: int | None = STOP) -> list[Step]:
    steps: list[Step] = []

    def execute(step: Step):
        steps.append(step)
        return 1000 + 100 * sum(work is not None for work in step.works), [None]

    def choose(request: Request, _: None) -> tuple[int, bool]:
        token = after(request)
        return token, token == stop

    for request in requests:
        scheduler.submit(request)
    while advance(scheduler, execute, choose) is not None:
        pass
    return steps


prompts = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 12)), min_size=1, max_size=3)


def made(sizes: list[tuple[int, int]]) -> list[Request]:
    return [Request(tuple(n % STOP for n in range(size)), count) for size, count in sizes]


@settings(max_examples=200, deadline=None)
@given(prompts, st.integers(1, 4), st.sampled_from([0, CHUNK]), st.floats(0, 1e-5), st.data())
def test_tokens_do_not_depend_on_what_is_guessed(sizes, stages, chunk, gap_s, data):
    plain = made(sizes)
    run(SpeculativeScheduler(stages, chunk, link(), None), plain)
    draw = st.lists(st.integers(0, STOP), max_size=5)
    guessed = made(sizes)
    draft = Guesses(lambda _: data.draw(draw), gap_s)
    steps = run(SpeculativeScheduler(stages, chunk, link(), draft), guessed)
    assert [one.tokens for one in guessed] == [one.tokens for one in plain]
    for one in guessed:
        assert one.token_s == sorted(one.token_s) and len(one.token_s) == len(one.tokens)
    for kind in {
        step.kind for step in steps
    }:  # what a stage has done, the next one does, or nobody
        line = [step for step in steps if step.kind == kind]
        for before, behind in pairwise(line):
            pairs = zip(before.works[:-1], behind.works[1:], strict=True)
            assert all(now is None or was == now for was, now in pairs)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 4), st.sampled_from([0, CHUNK]))
def test_without_guesses_it_is_the_scheduler_of_all_others(size, count, stages, chunk):
    (mine,), (other,) = made([(size, count)]), made([(size, count)])
    speculative = SpeculativeScheduler(stages, chunk, link(), None)
    scheduler = PipelineScheduler(stages, 2, chunk, link())
    run(speculative, [mine])
    run(scheduler, [other])
    assert mine.tokens == other.tokens and mine.token_s == pytest.approx(other.token_s)
    works = [[record.works for record in one.records] for one in (speculative, scheduler)]
    assert works[0] == works[1]


def test_guesses_that_are_right_come_through_one_behind_the_other():
    def following(request: Request) -> list[int]:
        copy = Request(request.prompt, 99, tokens=list(request.tokens))
        for _ in range(4):
            copy.tokens.append(after(copy))
        return copy.tokens[-4:]

    (slow,), (fast,) = made([(5, 40)]), made([(5, 40)])
    run(SpeculativeScheduler(4, CHUNK, link(), None), [slow], None)
    scheduler = SpeculativeScheduler(4, CHUNK, link(), Guesses(following))
    run(scheduler, [fast], None)
    assert fast.tokens == slow.tokens and scheduler.accepted == scheduler.guessed > 0
    # five tokens take eight steps and one way to the host, not twenty and five
    assert fast.tokens_per_s > 2.3 * slow.tokens_per_s


def test_what_is_sampled_has_the_distribution_of_the_target():
    """The third token of many seeds, some of whose guesses are right by chance."""
    table = np.random.default_rng(5).normal(size=(5, 5)).astype(np.float32)
    guess, seen, accepted = np.random.default_rng(6), Counter(), 0
    for seed in range(3000):
        sampling, request = Sampling(1.0, 1.0, seed), Request((1,), 4)
        draft = Guesses(lambda _: [int(guess.integers(5))])
        scheduler = SpeculativeScheduler(3, 0, link(), draft)
        scheduler.submit(request)

        def choose(one: Request, _: None, sampling=sampling) -> tuple[int, bool]:
            row = table[one.token_at(len(one.prompt) + len(one.tokens) - 1)]
            return sampling.pick(row, len(one.tokens)), False

        while advance(scheduler, lambda step: (1000, [None]), choose) is not None:
            pass
        seen[request.tokens[2]] += 1
        accepted += scheduler.accepted
    likely = np.exp(table.astype(float))
    likely /= likely.sum(axis=1, keepdims=True)
    expected = 3000 * likely[1] @ likely @ likely
    assert 300 < accepted < 2000
    assert chisquare([seen[token] for token in range(5)], expected).pvalue > 1e-3


@cache
def rig(tp: int, pp: int):
    """A tiny model on chips, with stages that work side by side."""
    weights, graph = tiny_weights(), parse(f"ring:{tp * pp}")
    plan = partition(weights.model, GROQCHIP1, tp, pp, slots=2)
    made = lower(plan, place(plan, graph, f"ring:{tp * pp}"), graph, weights)
    machine = LocalMachine()
    machine.load(made, no_progress)
    return made, machine


def answered(plan, sampling: Sampling, draft) -> tuple[PipelineRunner, Request]:
    runner, request = PipelineRunner(*rig(*plan), draft=draft), Request((1, 5, 9, 5, 9), 24)
    assert list(runner.answer([request], sampling.pick, frozenset()))
    return runner, request


@pytest.mark.parametrize(("plan", "sampling"), [((1, 2), Sampling()), ((2, 2), SAMPLED)])
def test_on_chips_the_logits_are_those_of_plain_decoding_to_the_bit(plan, sampling):
    plain, known = answered(plan, sampling, None)
    rng = np.random.default_rng(1)

    def often_right(request: Request) -> list[int]:
        at = len(request.tokens)
        return [t if rng.random() < 0.8 else t ^ 1 for t in known.tokens[at : at + 3]]

    for draft in (Guesses(often_right), NGrams(3, 3)):
        runner, request = answered(plan, sampling, draft)
        assert request.tokens == known.tokens
        assert runner.logits_sha256(request) == plain.logits_sha256(known)
        found = measured(runner.lowered, runner.scheduler)
        assert found.plain_tokens_per_s == pytest.approx(known.tokens_per_s)
        assert found.tokens_per_s > found.plain_tokens_per_s or not found.accepted


def test_a_model_that_drafts_for_itself_is_always_right():
    _, known = answered((1, 2), SAMPLED, None)
    machine, alone = LocalMachine(), lowered(1, 1, "node")
    machine.load(alone, no_progress)
    draft = DraftModel(alone, machine, SAMPLED.pick, 3)
    for _ in range(2):  # the second time its caches hold another sequence
        runner, request = answered((1, 2), SAMPLED, draft)
        assert request.tokens == known.tokens
        assert runner.scheduler.accepted == runner.scheduler.guessed > 0
    target, small = (
        PlanTiming(made.plan, made.placement, parse(name))
        for made, name in ((runner.lowered, "ring:2"), (alone, "node"))
    )
    tokens, seconds = mean_round(target, small, 3, 1.0)
    # the first round takes in the prompt as well
    assert seconds / tokens == pytest.approx((request.token_s[22] - request.token_s[4]) / 18)


def test_a_plan_weighs_rounds_by_how_likely_they_are(capsys):
    plan = ["plan", "tiny", "--pp", "2", "--draft", "ngram:2", "--draft-tokens", "2", "--json"]
    assert main([*plan, "--acceptance", "0.5"]) == 0
    found = json.loads(capsys.readouterr().out)
    gain = found["speculation"]
    assert gain["tokens_per_round"] == 0.5 * 1 + 0.25 * 2 + 0.25 * 3
    assert gain["tokens_per_s"] == gain["tokens_per_round"] / gain["round_s"]
    assert gain["plain_tokens_per_s"] == found["tokens_per_s_per_user"]
    assert main(plan) == 2 and "needs --acceptance" in capsys.readouterr().err


def test_lpu_run_says_what_guesses_were_worth(capsys):
    run = ["run", "tiny", "--prompt", "hello hello", "--max-new-tokens", "16", "--json"]
    assert main([*run, "--draft", "ngram:2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["output_ids"]) == 16 and found["output_ids"] == plain_tokens()
    worth = found["speculation"]
    assert (worth["draft"], worth["draft_chips"]) == ("ngram:2", 0)
    assert worth["acceptance"] is None or 0 <= worth["acceptance"] <= 1


def plain_tokens() -> list[int]:
    machine, alone = LocalMachine(), lowered(1, 1, "node")
    machine.load(alone, no_progress)
    prompt = list(b"hello hello")
    return list(PipelineRunner(alone, machine).generate(prompt, 16, Sampling(), frozenset({0})))
