"""`import cluster`: what it gives is what the command line gives."""

import json

import numpy as np
import pytest

import cluster
from cluster.cli import main
from cluster.errors import BadValue, PromptTooLong
from cluster.model.reference import Reference
from tests.cluster.tiny import PROMPT, local_outcome, tiny_weights


@pytest.fixture(scope="module")
def engine():
    with cluster.load("tiny", tp=2, pp=2, topology="ring:4") as loaded:
        yield loaded


def command(capsys, *arguments: str) -> dict:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_an_engine_answers_as_a_machine_and_the_reference_do(engine):
    expected = local_outcome(2, 2, "ring:4")
    said = engine.generate(PROMPT, len(expected.tokens))
    assert (said.ids, said.cycles, said.digest) == (
        expected.tokens, expected.cycles, expected.digest
    )  # fmt: skip
    assert said.prompt_ids == PROMPT and str(said) == said.text
    again = engine.generate(PROMPT, len(expected.tokens))
    assert (again.ids, again.cycles) == (said.ids, said.cycles)


def test_chat_and_plan_are_those_of_lpu_run(engine, capsys):
    arguments = ("--tp", "2", "--pp", "2", "--topology", "ring:4", "--max-new-tokens", "3")
    run = command(capsys, "run", "tiny", "--prompt", "hello", *arguments)
    said = engine.chat("hello", 3)
    assert list(said.ids) == run["output_ids"] and said.text == run["text"]
    assert engine.plan == {k: v for k, v in run["plan"].items() if k != "faults"}


def test_sampling_follows_its_seed(engine):
    first, same, other = (
        engine.generate("a", 8, temperature=2.0, seed=seed).ids for seed in (1, 1, 2)
    )
    assert first == same != other


def test_logprobs_are_of_the_softmax_and_those_of_lpu_run(engine, capsys):
    said = engine.generate(PROMPT, 3, logprobs=2)
    reference = Reference(tiny_weights(), 16)
    assert len(said.logprobs) == 3 and not engine.generate(PROMPT, 1).logprobs
    fed = (PROMPT, *([token] for token in said.ids[:-1]))
    for ids, token, one in zip(fed, said.ids, said.logprobs, strict=True):
        logits = reference.forward(list(ids)).astype(np.float64)
        every = logits - np.log(np.exp(logits).sum())
        best = np.argsort(-every)[:2]
        assert one.chosen == one.top[0] and one.chosen.id == token == best[0]
        assert [top.id for top in one.top] == list(best)
        assert [top.logprob for top in one.top] == pytest.approx(every[best], abs=0.02)
    shape = ("--tp", "2", "--pp", "2", "--topology", "ring:4", "--max-new-tokens", "3")
    prompt = ("--prompt-ids", ",".join(map(str, PROMPT)), "--logprobs", "2")
    ran = command(capsys, "run", "tiny", *prompt, *shape)["logprobs"]
    assert [one["logprob"] for one in ran] == [one.chosen.logprob for one in said.logprobs]
    assert [top["id"] for one in ran for top in one["top"]] == [
        top.id for one in said.logprobs for top in one.top
    ]


def test_a_trace_is_of_the_last_launch(engine, tmp_path):
    said = engine.generate(PROMPT, 2)
    engine.trace(tmp_path / "decode.json")
    body = json.loads((tmp_path / "decode.json").read_text())
    assert body["otherData"]["end_cycle"] == said.cycles[-1]


def test_a_plan_is_the_object_of_lpu_plan(capsys):
    printed = command(capsys, "plan", "tiny", "--tp", "2", "--pp", "2", "--topology", "ring:4")
    assert json.loads(json.dumps(cluster.plan("tiny", tp=2, pp=2, topology="ring:4"))) == printed


@pytest.mark.parametrize("call", [
    lambda engine: engine.generate([]),
    lambda engine: engine.generate([10**6]),
    lambda engine: cluster.plan("tiny", chips=0),
    lambda engine: cluster.load("tiny", weights="fp4"),
])  # fmt: skip
def test_what_cannot_be_is_refused(call, engine):
    with pytest.raises(BadValue):
        call(engine)


def test_a_prompt_beyond_the_context_is_refused(engine):
    with pytest.raises(PromptTooLong):
        engine.generate([1] * 400)


def test_nothing_else_is_found_in_the_package():
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        cluster.lod  # noqa: B018
