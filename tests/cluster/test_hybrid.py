"""LPUs with GPUs: the FFN part, links, steady states, and what the commands say of them."""

import json
from dataclasses import replace
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.cli import main
from cluster.compare.roofline import kv_bytes_per_token
from cluster.compiler.choose import NODE_CHIPS, PlanRequest
from cluster.compiler.limits import heads_of
from cluster.errors import BadValue
from cluster.hybrid.answer import pareto, with_gpus
from cluster.hybrid.between import between
from cluster.hybrid.ffn import attention_parameters, ffn_model
from cluster.hybrid.gpus import gpus_of
from cluster.hybrid.systems import AFD, PREFILL, Point, Stage, Turn, steady
from cluster.model.graph.attention import Attention
from cluster.model.known import known_model

TINY = PlanRequest(tp=2, context=320)


@pytest.mark.parametrize("name", ["tiny", "llama-3.3-70b", "mixtral-8x7b", "gemma-2-9b"])
def test_the_ffn_part_is_the_model_without_attention(name):
    model = known_model(name)
    ffn = ffn_model(model)
    assert len(ffn.layers) == len(model.layers)
    assert not any(isinstance(op, Attention) for layer in ffn.layers for op in layer.ops)
    assert ffn.layers[0].out == model.layers[0].out
    weights = sum(prod(w.shape) for layer in model.layers for w in layer.weights)
    mine = sum(prod(w.shape) for layer in ffn.layers for w in layer.weights)
    assert mine + attention_parameters(model) * len(model.layers) == pytest.approx(weights)
    assert mine > weights / 2 and heads_of(ffn) >= (1 if name == "tiny" else NODE_CHIPS)


def test_a_link_is_a_name_fields_or_both():
    assert between(()).name == "ethernet-400g" and between(()).rate(8) == 8 * 50e9
    link = between(("pcie5x16", "latency_s=5e-6", "links=2"))
    assert (link.bytes_per_s, link.latency_s, link.rate(8)) == (63e9, 5e-6, 2 * 63e9)
    assert between(("latency_s=5e-6", "pcie5x16")).latency_s == 5e-6
    for wrong in ("wire", "latency_s=x", "latency_s=0", "speed=1", "bytes_per_s=nan"):
        with pytest.raises(BadValue):
            between((wrong,))


@given(
    users=st.integers(1, 4096), prompt=st.integers(1, 10**5), new=st.integers(1, 10**4),
    each_s=st.floats(1e-6, 1.0), first_s=st.floats(0.0, 10.0), busy_s=st.floats(1e-6, 100.0),
)  # fmt: skip
def test_a_steady_state_obeys_littles_law_and_keeps_nothing_busier_than_always(
    users, prompt, new, each_s, first_s, busy_s
):
    turn = Turn(prompt, new)
    speed, total, limit = steady(turn, users, each_s, first_s, Stage("x", busy_s))
    turns = total / new
    assert turns * busy_s <= 1 + 1e-9 and speed <= 1 / each_s * (1 + 1e-9)
    assert turns * (first_s + new * each_s) <= users * (1 + 1e-9)  # users who are in a turn
    if limit == "x":
        assert turns * busy_s == pytest.approx(1)
    else:
        assert turns * (first_s + new * each_s) == pytest.approx(users)


@given(st.lists(st.tuples(st.floats(1, 1e5), st.floats(1, 1e7)), min_size=1, max_size=30))
def test_nothing_beats_the_front_and_all_else_is_beaten(sizes):
    points = [Point(AFD, "x", 1, 1, 1, each, total, 0.0, 1e6, 1.0, "") for each, total in sizes]
    front = pareto(points)

    def beats(a, b):
        faster = a.tokens_per_s_per_user >= b.tokens_per_s_per_user
        return faster and a.tokens_per_s >= b.tokens_per_s

    assert all(any(beats(a, b) for a in front) for b in points)
    assert not any(beats(a, b) for a in front for b in front if a is not b)


def test_farther_gpus_are_slower_and_prompts_wait_for_keys_and_values():
    gpus, model = gpus_of("--afd", "B200:2"), known_model("tiny")
    near = between(("latency_s=1e-7",))
    far = replace(near, latency_s=1e-3)
    found = {link: with_gpus("tiny", TINY, link, gpus, gpus) for link in (near, far)}

    def best(link, kind):
        return max((p for p in found[link].points if p.kind == kind),
                   key=lambda p: p.tokens_per_s_per_user)  # fmt: skip

    layers = len(model.layers)
    each = {link: 1 / best(link, AFD).tokens_per_s_per_user for link in found}
    assert each[far] - each[near] == pytest.approx(2 * layers * (1e-3 - 1e-7), rel=0.01)
    first = {link: best(link, PREFILL).time_to_first_token_s for link in found}
    assert first[far] - first[near] == pytest.approx(1e-3 - 1e-7)
    moved = found[near].turn.prompt * kv_bytes_per_token(model) / near.rate(2)
    assert first[near] > max(moved, gpus.prompt_s(model, found[near].turn.prompt, 1.0))
    for point in found[near].points:
        assert point.watts == pytest.approx(point.joules_per_token * point.tokens_per_s)
        assert point.users / point.tokens_per_s >= 1 / point.tokens_per_s_per_user * (1 - 1e-9)


def test_the_commands_answer_in_a_sentence_and_refuse_what_is_no_gpu(tmp_path, capsys):
    picture, page = tmp_path / "p.svg", tmp_path / "p.html"
    words = ["compare", "tiny", "--tp", "2", "--afd", "B200:1", "--prefill-on", "H200:1"]
    assert main([*words, "--plot", str(picture), "--report", str(page), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["with_gpus"]
    assert found["answer"].startswith("Do GPUs help LPUs here? ")
    assert {p["kind"] for p in found["points"]} == {
        "LPUs alone", "GPUs alone", "prompts on GPUs", "AFD"
    }  # fmt: skip
    assert any(p["on_front"] for p in found["points"])
    assert picture.stat().st_size and found["answer"].partition("?")[0] in page.read_text()
    assert main(["plan", "tiny", "--tp", "2", "--afd", "B200:1"]) == 0
    out = capsys.readouterr().out
    assert "Do GPUs help LPUs here?" in out and "M/MW" in out
    for wrong in (
        ["--afd", "B200"], ["--afd", "B300:8"], ["--afd", "TPU v4:8"], ["--prefill-on", "H200:0"],
        ["--between", "pcie5x16"], ["--afd", "B200:8", "--between", "wire"],
    ):  # fmt: skip
        assert main(["plan", "tiny", *wrong]) == 2
        assert capsys.readouterr().err.startswith("lpu: --")
