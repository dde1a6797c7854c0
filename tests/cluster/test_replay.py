"""A replay: the steps of a run, latencies and rates of a plan, and what queueing theory says."""

import gzip
import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chip.spec import GROQCHIP1
from cluster.cli import main
from cluster.compiler.choose import PlanRequest
from cluster.compiler.lower import lower
from cluster.compiler.place import place
from cluster.compiler.stages import partition
from cluster.generation.sampling import Sampling
from cluster.machines.machine import LocalMachine
from cluster.planning.planner import make, report
from cluster.planning.timing import PlanTiming
from cluster.serving import replay as replaying
from cluster.serving.build import Policy, Shape, of_arrays
from cluster.serving.capacity import highest_rate
from cluster.serving.clockwork import Clockwork
from cluster.serving.compiled import compiled_play
from cluster.serving.core import columns as c
from cluster.serving.core import play as p
from cluster.serving.engine import PipelineRunner
from cluster.serving.metrics import measures, met
from cluster.serving.replay import replay
from cluster.serving.requests import Request
from cluster.serving.timeline import timeline
from cluster.serving.traces import read_trace
from cluster.serving.traffic import Traffic, lengths_of, load, traffic
from tests.cluster.tiny import no_progress, tiny_weights
from topology import parse

LONG = {"max_position_embeddings": 700}


@cache
def clockwork(slots: int, tp: int = 1, pp: int = 2, context: int = 640) -> Clockwork:
    """Tables of the tiny model on a ring."""
    weights, graph = tiny_weights(**LONG), parse("ring:4")
    plan = partition(weights.model, GROQCHIP1, tp, pp, context, slots=slots)
    return Clockwork(PlanTiming(plan, place(plan, graph, "ring:4"), graph), context)


@pytest.fixture
def as_python(monkeypatch):
    """The rules as they stand, where compiling them would take longer than they do."""
    monkeypatch.setattr(replaying, "compiled_play", lambda: p.play)


# --- replay == run --------------------------------------------------------------------------------
@pytest.mark.parametrize("slots, tp, pp", [(1, 1, 2), (4, 1, 3)])
def test_replayed_steps_are_those_of_a_run(as_python, slots, tp, pp):
    weights, graph = tiny_weights(**LONG), parse("mesh:2x3")
    plan = partition(weights.model, GROQCHIP1, tp, pp, 640, slots=slots)
    placement, machine = place(plan, graph, "mesh:2x3"), LocalMachine()
    lowered = lower(plan, placement, graph, weights)
    machine.load(lowered, no_progress)
    sizes = [(40, 3), (5, 4), (1, 2), (330, 2), (34, 3), (2, 1)]
    at_s = [0.0, 0.0, 1e-5, 2e-5, 1e-3, 1.0]
    runner = PipelineRunner(lowered, machine)
    requests = [
        Request(tuple(1 + n % 90 for n in range(prompt)), new, arrives_s)
        for (prompt, new), arrives_s in zip(sizes, at_s, strict=True)
    ]
    for _ in runner.answer(requests, Sampling().pick, frozenset()):
        pass
    works = Clockwork(PlanTiming(plan, placement, graph), 640)
    found = replay(works, traffic(at_s, *zip(*sizes, strict=True)), log_steps=10_000)
    records, log, shape = runner.scheduler.records, found.played.log, works.shape
    assert found.total(p.LOGGED) == len(records)
    for at, record in enumerate(records):
        line = c.DECODE if record.kind.logits_rows else c.PREFILL
        assert (log.steps[p.LOG_LINE][at], log.steps[p.LOG_CYCLES][at]) == (line, record.cycles)
        assert (log.start_s[at], log.seconds[at]) == (record.start_s, record.seconds)
        # one user's decode is a launch through all stages, whose work is at the last place
        whole = len(record.works) == 1
        for place_, work in enumerate(record.works):
            stage = shape.stages - 1 if whole else place_
            who = log.stages[p.LOG_WHO][at][stage]
            assert (work is None) == (who == c.NOBODY)
            if work:
                assert found.state.requests[c.SLOT][who] == work.slot
                assert log.stages[p.LOG_AT][at][stage] == work.rows[0].position
    entered = [c.DECODE if r.kind.logits_rows else c.PREFILL for r in records if r.works[0]]
    assert found.works.sum(axis=1).tolist() == [entered.count(c.PREFILL), entered.count(c.DECODE)]
    busy, stages = measures(found, works, {})["utilisation"], shape.stages
    assert 0 < busy["stages_mean"] <= busy["steps"] / (stages if slots == 1 else 1)
    assert busy["links"] > 0
    assert list(found.time_s(c.LAST)) == [one.token_s[-1] for one in requests]
    assert list(found.time_s(c.FIRST)) == [one.token_s[0] for one in requests]
    assert list(found.time_s(c.ENTERED)) == [one.entered_s for one in requests]


# --- replay == plan -------------------------------------------------------------------------------
@pytest.mark.parametrize("batch", [1, 3])
def test_at_a_low_rate_latencies_are_those_of_the_plan(as_python, batch):
    made = make("tiny", PlanRequest(tp=1, pp=2, batch=batch, prompt_tokens=64))
    found = replay(Clockwork(made.timed, 320), lengths_at([0.0, 10.0, 20.0], 64, 4))
    planned = report(replace(made, request=replace(made.request, batch=1)))
    assert np.ptp(found.ttft_s) < 1e-9 and np.ptp(found.tpot_s) < 1e-9
    if batch == 1:
        assert found.ttft_s[0] == pytest.approx(planned["time_to_first_token_s"], rel=1e-9)
        assert 1 / found.tpot_s[0] == pytest.approx(planned["tokens_per_s_per_user"], rel=1e-9)
    else:
        alone = report(made)["pipeline"]["tokens_per_s_total_by_concurrency"]["1"]
        assert 1 / found.tpot_s[0] == pytest.approx(alone, rel=1e-9)


def lengths_at(at_s: list[float], prompt: int, new: int) -> Traffic:
    return traffic(at_s, [prompt] * len(at_s), [new] * len(at_s))


def test_at_full_load_the_throughput_is_that_of_the_plan(as_python):
    made = make("tiny", PlanRequest(tp=1, pp=2, batch=3))
    outcome = replay(Clockwork(made.timed, 320), load("closed:3", lengths_of("1:300", 6, 0), 0))
    planned = report(made)["tokens_per_s_total"]
    found = measures(outcome, Clockwork(made.timed, 320), {})
    assert found["output_tokens_per_s"] == pytest.approx(planned, rel=0.02)
    assert found["kv"]["occupancy_mean"] > 0.95


# --- queueing theory ------------------------------------------------------------------------------
def test_littles_law_and_the_wait_of_m_d_1(as_python):
    """One slot serves a request in constant time: the mean wait is that of M/D/1."""
    works = clockwork(1)
    service_s = float(replay(works, lengths_at([0.0], 20, 2)).e2e_s[0])
    for busy in (0.3, 0.6):
        given_ = load(f"poisson:{busy / service_s}", lengths_of("20:2", 3000, 0), seed=5)
        found = replay(works, given_)
        wait_s = found.e2e_s - service_s
        assert wait_s.min() > -1e-12
        expected_s = busy * service_s / 2 / (1 - busy)
        assert wait_s.mean() == pytest.approx(expected_s, rel=0.15)
        edges = np.concatenate([found.time_s(c.ARRIVES), found.time_s(c.LAST)])
        order = np.argsort(edges, kind="stable")
        inside = np.cumsum(np.repeat([1, -1], 3000)[order])[:-1]
        mean_inside = float(inside @ np.diff(edges[order])) / found.end_s
        assert mean_inside == pytest.approx(3000 / found.end_s * found.e2e_s.mean(), rel=1e-9)


# --- compiled == python ---------------------------------------------------------------------------
policies = st.builds(
    Policy,
    st.sampled_from(["prefill", "decode", "budget"]),
    st.integers(1, 64),
    st.sampled_from([16, 320]),
    st.sampled_from([None, 45]),
    st.sampled_from([0, 16]),
    st.just(40),
    st.sampled_from([1e-9, 1e-6, float("inf")]),
    st.just((0.0, 1e-4, 2e-4, 3e-4)),
)
shapes = st.builds(
    Shape, st.integers(1, 4), st.integers(2, 6), st.sampled_from([0, 32]), st.integers(1, 3),
    st.just(True), st.just(1e-6), st.just(9e8),
)  # fmt: skip


def played(play, shape: Shape, policy: Policy, seed: int):
    """All columns after some random traffic."""
    random, count = np.random.default_rng(seed), 12
    prompt = random.integers(1, 600, count)
    blocks = -(-prompt // 16)
    hashes = np.concatenate([random.integers(0, 2) * 1000 + np.arange(n) for n in blocks])
    state = of_arrays(shape, policy, np.full((2, c.WAYS, 4), 1e-6), count, hashes)
    for column, values in {
        c.PROMPT: prompt, c.MOST: random.integers(1, 60, count), c.NUMBER: np.arange(count),
        c.PRIORITY: random.integers(0, 2, count), c.STATE: c.QUEUED, c.BLOCKS: blocks,
        c.FIRST_BLOCK: np.cumsum(blocks) - blocks,
    }.items():  # fmt: skip
        state.requests[column] = values
    state.times[c.ARRIVES] = np.sort(random.exponential(1e-3, count))
    state.heaps[c.LATER] = np.arange(count)
    state.sizes[c.LATER] = count
    ends = random.integers(1000, 9000, (2, 4, shape.stages))
    log = p.Log(np.zeros(9), np.zeros(9), np.zeros((2, 9), np.int64),
                np.zeros((2, 9, shape.stages), np.int64))  # fmt: skip
    done = p.Played(log, np.zeros((2, 4), np.int64), np.zeros(p.GAP_BINS, np.int64), np.zeros(2),
                    np.zeros(p.TOTALS, np.int64), 0)  # fmt: skip
    while play(state, p.Costs(ends), done, 1000):
        assert done.totals[p.STEPS] < 200_000, "it does not end"
    return state, done


@settings(max_examples=25, deadline=None)
@given(shapes, policies, st.integers(0, 1 << 30))
def test_compiled_rules_do_what_they_do_as_python(shape, policy, seed):
    one, other = (played(play, shape, policy, seed) for play in (p.play, compiled_play()))
    assert one[1].totals[p.COMPLETED] == 12, "somebody starves"
    for mine, theirs in zip([*one[0][1:], *one[1][1:5]], [*other[0][1:], *other[1][1:5]],
                            strict=True):  # fmt: skip
        assert np.array_equal(mine, theirs)
    assert one[0].counts[c.USED_PAGES] == 0 and (one[0].slots[c.TAKEN] == c.NOBODY).all()


# --- traffic --------------------------------------------------------------------------------------
MOONCAKE = '{"timestamp": %s, "input_length": %s, "output_length": %s, "hash_ids": %s}\n'


def test_traces_are_known_by_what_they_hold(tmp_path):
    mooncake = MOONCAKE % (27, 700, 5, [1, 2]) + "\n" + MOONCAKE % (7, 30, 9, [3])
    azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"
    azure += "2023-11-16 18:15:50.9951690,396,109\r\n"
    burst = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    burst += "5,ChatGPT,47,18,65,Conversation log\n45,ChatGPT,9,0,9,API log\n"
    found = {}
    for name, text in (("m", mooncake), ("a", azure), ("b", burst)):
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name == "a" else text.encode())
        found[name] = read_trace(path)
    assert list(found["m"].arrives_s) == [0, 0.02] and list(found["m"].prompt) == [30, 700]
    assert [found["m"].hashes[n] for n in found["m"].first_block] == [3, 1]
    assert found["m"].block_tokens == 512 and list(found["m"].blocks) == [1, 2]
    assert found["a"].arrives_s[1] == pytest.approx(4.314579) and list(found["a"].new) == [44, 109]
    assert (list(found["b"].new), found["b"].dropped) == ([18], 1)


@pytest.mark.parametrize(
    "text, said",
    [
        ('{"timestamp": 1, "input_length": 3}\n', "line 1, output_length: is missing"),
        (MOONCAKE % (1, 2, 3, "[]") + '{"timestamp": 1,,}', "line 2, column 17: is not JSON"),
        (MOONCAKE % (1, 2, 3, '["a"]'), "line 1, hash_ids: is not a list of whole numbers"),
        (MOONCAKE % (1, 0, 3, "[]"), "line 1, input_length: 0 is not 1 to"),
        (MOONCAKE % (-1, 2, 3, "[]"), "line 1, timestamp: -1"),
        (MOONCAKE % (1, "true", 3, "[]"), "line 1, input_length: True is not a whole number"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-13-16,1,2\n", "line 2, TIMESTAMP: "),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1\n", "line 2, the whole"),
        ("Timestamp,Request tokens,Response tokens\n1,2,3\n2,x,4\n", "line 3, Request tokens: 'x'"),
        ("a,b\n1,2\n", "begins with 'a,b'"),
        ("\n\n", "is empty"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "holds no request"),
    ],
)
def test_a_wrong_trace_is_refused_with_line_and_column(tmp_path, capsys, text, said):
    path = tmp_path / "trace"
    path.write_text(text)
    assert main(["replay", str(path), "--model", "tiny"]) == 2
    printed = capsys.readouterr()
    assert said in printed.err and printed.err.count("\n") == 1 and not printed.out


@pytest.mark.parametrize("text, cv", [("poisson:50", 1.0), ("gamma:50:3", 3.0), ("gamma:50:1", 1)])
def test_arrivals_have_the_rate_and_the_spread_that_were_asked_for(text, cv):
    found = load(text, lengths_of("~100:~10", 40_000, 2), 2)
    gaps_s = np.diff(found.arrives_s)
    assert gaps_s.mean() == pytest.approx(1 / 50, rel=0.05)
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(cv, rel=0.05)
    assert found.prompt.mean() == pytest.approx(100, rel=0.03) and found.prompt.min() >= 1


def test_a_closed_load_has_so_many_users_at_a_time(as_python):
    found = replay(clockwork(3), load("closed:2", lengths_of("9:4", 9, 0), 0))
    edges = [(at, 1) for at in found.time_s(c.ARRIVES)] + [(at, -1) for at in found.time_s(c.LAST)]
    inside = np.cumsum([step for _, step in sorted(edges)])
    assert inside.max() == 2 and found.total(p.COMPLETED) == 9


# --- what comes of it -----------------------------------------------------------------------------
def test_prompts_that_begin_alike_start_where_the_caches_end(as_python):
    same = traffic([0.0, 1.0, 2.0], [600, 600, 90], [2, 2, 2])
    same = replace(same, hashes=np.arange(20), blocks=np.array([19, 19, 3]), block_tokens=32)
    found = replay(clockwork(2), same, Policy(block_tokens=32), log_steps=1000)
    assert list(found.state.requests[c.HIT]) == [0, 576, 64]
    assert max(found.ttft_s[1:]) < found.ttft_s[0] / 2
    assert [event["name"] for event in drawn(found) if event["ph"] == "i"] == ["hit 1", "hit 2"]


def test_caches_that_give_way_cross_the_host_link_where_that_is_sooner(as_python):
    works, crowd = clockwork(2), traffic([0.0, 0.0], [300, 300], [200, 200])
    policy = Policy(pages=3, move_s=works.move_s, refill_s=(0.0, *[1.0] * 3))
    found = replay(works, crowd, policy, log_steps=4000)
    moved = [event for event in drawn(found) if event["ph"] == "X" and event["pid"] == 3]
    assert [event["name"] for event in moved] == ["spill 1", "restore 1"]
    spec = works.timed.plan.spec
    for event in moved:
        seconds = spec.host_latency_s + event["args"]["tokens"] * works.move_s
        assert event["dur"] == pytest.approx(seconds * 1e6)
    assert found.state.counts[c.SPILLS] == found.state.counts[c.RESTORED] == 1


def drawn(outcome) -> list[dict]:
    events: list[dict] = json.loads(timeline(outcome, "t.json"))["traceEvents"]
    return events


def test_the_highest_rate_keeps_the_bounds_and_a_higher_one_does_not(as_python):
    works, slo = clockwork(3), {"ttft": 5e-4}
    given_ = load("poisson:100", lengths_of("40:4", 200, 0), 0)
    rate = highest_rate(works, given_, Policy(), slo)
    shares = [met(replay(works, given_.at_rate(r)), slo).mean() for r in (rate, 1.3 * rate)]
    assert shares[0] >= 0.99 > shares[1]


def test_the_command_prints_what_its_files_say(tmp_path, capsys, as_python):
    lines, drawing = tmp_path / "out.jsonl", tmp_path / "t.json.gz"
    command = ["replay", "--model", "tiny", "--load", "poisson:2000", "--lengths", "~90:~9"]
    command += ["--requests", "40", "--slots", "4", "--slo", "ttft=1e-4,tpot=0.01", "--json"]
    command += ["--context", "320", "--output", str(lines), "--trace", str(drawing)]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert found["requests"] == len(rows) == 40 - found["rejected"] and found["rejected"] > 0
    for key in ("ttft_s", "tpot_s", "e2e_s"):
        values = [row[key] for row in rows if row[key] is not None]
        assert found[key]["p90"] == pytest.approx(np.percentile(values, 90))
    good = sum(row["slo_met"] for row in rows)
    assert found["goodput_requests_per_s"] == pytest.approx(good / found["seconds"])
    assert found["itl_s"]["mean"] == pytest.approx(
        sum(row["e2e_s"] - row["ttft_s"] for row in rows)
        / sum(row["output_tokens"] - 1 for row in rows),
        rel=2e-3,
    )
    assert found["joules_per_token"] > 0 and found["wall_s"] > 0
    events = json.loads(gzip.decompress(drawing.read_bytes()))["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    assert sum(event["pid"] == 2 for event in slices) == 2 * 40 - 2 * found["rejected"]
    busy_s = sum(event["dur"] for event in slices if event["pid"] == 1) / 1e6
    assert busy_s <= found["seconds"] * 4
