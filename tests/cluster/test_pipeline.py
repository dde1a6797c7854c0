"""Several sequences in flight: each says what it says alone, in the cycles that a plan states."""

import json
import math
from functools import cache

import pytest

from chip.errors import NothingArrives
from chip.spec import GROQCHIP1
from chip.wire import unpack
from cluster.cli import main
from cluster.compiler.launch import StageProgram, decode_kind, prefill_kind, stage_programs
from cluster.compiler.lower import Lowered, lower
from cluster.compiler.pipeline import PipelineSteps, StepSchedules
from cluster.compiler.place import place
from cluster.compiler.stage_work import StageTimings
from cluster.compiler.stages import partition
from cluster.compiler.wires import Wires
from cluster.errors import BadValue
from cluster.generation.sampling import Sampling
from cluster.machines.machine import LocalMachine
from cluster.model.known import known_model
from cluster.planning.cost_step_times import StepTimes
from cluster.planning.pipeline_timing import simulated
from cluster.planning.timing import PlanTiming
from cluster.serving.build import Policy
from cluster.serving.engine import PipelineRunner
from cluster.serving.requests import Request, Step
from cluster.serving.scheduler import steady_tokens_per_s
from tests.cluster.tiny import no_progress, tiny_weights
from topology import parse
from topology.clocks import ClockSpec

PROMPTS = tuple(tuple(1 + (7 * k * n + k) % 100 for n in range(size)) for k, size in
                enumerate((40, 5, 1, 34, 2), 1))  # fmt: skip
NEW = 4
PLANS = [(1, 1, "node", 2), (2, 2, "ring:4", 3), (1, 3, "mesh:2x3", 4)]
LONG = {"max_position_embeddings": 700}


@cache
def lowered(tp: int, pp: int, topology: str, slots: int, context: int = 320) -> Lowered:
    weights, graph = tiny_weights(**LONG), parse(topology)
    plan = partition(weights.model, GROQCHIP1, tp, pp, context, slots=slots)
    return lower(plan, place(plan, graph, topology), graph, weights)


def loaded(plan: Lowered) -> LocalMachine:
    machine = LocalMachine()
    machine.load(plan, no_progress)
    return machine


def alone(plan: Lowered, prompts=PROMPTS) -> list[tuple[tuple[int, ...], str]]:
    """(tokens, SHA-256 of the logits) of every prompt, each with the cluster to itself."""
    machine, found = loaded(plan), []
    for prompt in prompts:
        _, said = answered(plan, machine, [prompt])
        found += said
    return found


def answered(plan: Lowered, machine, prompts=PROMPTS, stop=frozenset()):
    """The runner, and (tokens, SHA-256 of the logits) of every prompt."""
    runner = PipelineRunner(plan, machine)
    requests = [Request(prompt, NEW) for prompt in prompts]
    for _ in runner.answer(requests, Sampling().pick, stop):
        pass
    return runner, [(tuple(one.tokens), runner.logits_sha256(one)) for one in requests]


@cache
def answered_here(*plan):
    return answered(lowered(*plan), loaded(lowered(*plan)))


@pytest.mark.parametrize("tp, pp, topology, slots", PLANS)
def test_every_sequence_gets_the_logits_that_it_gets_alone(tp, pp, topology, slots):
    _, said = answered_here(tp, pp, topology, slots)
    assert said == alone(lowered(tp, pp, topology, 1))


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_executed_steps_take_the_cycles_that_are_planned(plan):
    runner, _ = answered_here(*plan)
    made, records = lowered(*plan), runner.scheduler.records
    times = PlanTiming(made.plan, made.placement, parse(plan[2])).steps
    assert {record.kind.logits_rows for record in records} == {0, 1}
    assert all(record.cycles == times.cycles(Step(record.kind, record.works)) for record in records)


def test_activations_are_sent_in_parts_where_the_clocks_demand_it():
    """32 tokens of x, in one, would take longer than the 3,332 cycles between two stalls."""
    weights, graph = tiny_weights(**LONG), parse("ring:4")
    plan = partition(weights.model, GROQCHIP1, 1, 2, 320, slots=2)
    made = lower(plan, ((0,), (1,)), graph, weights, ClockSpec(drift_ppm=1380))
    work = StageTimings(plan, made.pipeline, made.stages)
    parts = StepSchedules(plan, made.placement, made.stages, Wires(graph), work)
    steps = PipelineSteps(plan, made.pipeline, parts, made.clocking)
    idle = steps.compose(StageProgram(prefill_kind(plan.chunk, 0)))
    assert [len(chip.items) for _, chip in idle.chips()] == [2, 2]
    runner, said = answered(made, loaded(made))
    assert said == alone(lowered(1, 1, "node", 1))
    times, records = StepTimes(steps), runner.scheduler.records
    assert all(record.cycles == times.cycles(Step(record.kind, record.works)) for record in records)


def test_sequences_of_several_context_buckets_share_steps():
    prompts = (tuple(range(1, 100)) * 4)[:318], (5, 6, 7), (tuple(range(1, 100)) * 4)[:330]
    plan = lowered(1, 2, "node", 2, 640)
    runner, said = answered(plan, loaded(plan), prompts)
    works = [[work for work in step.works if work] for step in runner.scheduler.records]
    assert any(len({work.kind.context for work in step}) == 2 for step in works)
    assert said == alone(lowered(1, 2, "node", 1, 640), prompts)


def test_a_sequence_that_ends_leaves_its_slot_to_the_next_prompt():
    plan = lowered(1, 1, "node", 2)
    _, whole = answered_here(1, 1, "node", 2)
    stop = frozenset([whole[0][0][0]])
    runner, said = answered(plan, loaded(plan), stop=stop)
    requests = runner.scheduler.requests
    assert len(said[0][0]) == 1 and requests[0].slot == 0
    for (tokens, _), (full, _) in zip(said, whole, strict=True):
        assert tokens == full[: len(tokens)]
    later = requests[2]
    ended = [one for one in requests if one.slot == later.slot and one.number < 2]
    assert later.entered_s == ended[0].token_s[-1]


def test_programs_that_do_not_belong_together_are_refused():
    plan = lowered(1, 3, "mesh:2x3", 4)
    (first,), (second,), (third,) = plan.placement
    parts = {
        first: str(StageProgram(decode_kind(320), 0)),
        second: str(StageProgram(prefill_kind(plan.plan.chunk, 320), 0)),
        third: str(StageProgram(decode_kind(320), 1)),
    }
    machine = loaded(plan)
    with pytest.raises(NothingArrives):
        machine.join("mixed", parts)


def test_the_host_has_a_step_for_its_transfers():
    """What it writes is read in the opening only, what it reads is only written at the end."""
    plan = lowered(2, 2, "ring:4", 3)
    for program in stage_programs(plan.plan, apart=True):
        launch, idle = plan.launches[str(program)], str(StageProgram(program.kind.idle))
        opening = max(plan.launches[idle].end_cycles.values()) + 200
        for chip, data in launch.programs.items():
            number = next(n for n, group in enumerate(plan.placement) if chip in group)
            for where, family, cycle in _touches(plan.stages[number], unpack(data)):
                if where.startswith("next."):
                    assert family == "mem.r" and cycle < opening
                else:
                    assert family == "mem.w" and cycle > opening


def _touches(stage, program):
    """(buffer, queue family, last cycle) of accesses to what chip and host share."""
    shared = {n: b.region for n, b in stage.memory.buffers.items() if n[:5] in ("next.", "out.l")}
    for queue, cycle, instruction in program.instructions():
        family, _, index = queue.partition(":")
        if instruction.op not in ("mem.read", "mem.write"):
            continue
        for name, region in shared.items():
            inside = region.index <= int(index) < region.index + region.slices
            if inside and 0 <= instruction.args[0] - region.address < region.words:
                yield name, family, program.start_cycle + cycle + instruction.span_cycles


def test_stages_that_need_each_others_chips_are_refused():
    weights, graph = tiny_weights(), parse("ring:6")
    plan = partition(weights.model, GROQCHIP1, 2, 2, slots=2)
    with pytest.raises(BadValue, match="both cross chip"):
        lower(plan, ((0, 3), (1, 4)), graph, weights)


# --- how fast -----------------------------------------------------------------------------------
@pytest.mark.parametrize("tp, pp, topology", [(1, 6, "node"), (3, 3, "torus:3x3")])
def test_total_speed_grows_with_sequences_until_the_pipeline_is_full(tp, pp, topology):
    """Nearly linearly: stages wait for the longest, and sequences for a step to begin."""
    graph, batch = parse(topology), pp + 3
    plan = partition(known_model("smollm2"), GROQCHIP1, tp, pp, slots=batch)
    times = PlanTiming(plan, place(plan, graph, topology), graph).steps
    found = {
        count: steady_tokens_per_s(simulated(times, count, 317, held=316).requests, count)
        for count in range(1, batch + 1)
    }
    full = GROQCHIP1.clock_hz / times.full_cycles(decode_kind(320))
    assert found[batch] == pytest.approx(full)
    for count in range(2, pp + 1):
        assert 0.75 * count * found[1] < found[count] < 1.02 * count * found[1]
        assert found[count] > found[count - 1]


def printed(capsys, *arguments: str) -> dict:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("tp, pp, batch", [(1, 1, 2), (2, 2, 3), (1, 2, 5)])
def test_a_run_takes_the_steps_and_seconds_of_its_plan(tp, pp, batch, capsys, tmp_path):
    shape = ("--tp", str(tp), "--pp", str(pp))
    stated = printed(capsys, "plan", "tiny", *shape, "--batch", str(batch), "--prompt-tokens", "40")
    file = tmp_path / "prompts"
    file.write_text("".join(f"{chr(65 + n) * 40}\n" for n in range(batch)))
    arguments = ("--prompts", str(file), "--concurrency", str(batch), "--max-new-tokens", "4")
    ran = printed(capsys, "run", "tiny", *shape, *arguments)
    fast, steps = ran["emulated"], stated["pipeline"]
    assert all(len(one["output_ids"]) == 4 for one in ran["sequences"])
    assert fast["decode_cycles"] == steps["decode_step_cycles"]
    assert fast["prefill_step_cycles"] == steps["prefill_step_cycles"]
    assert fast["time_to_first_token_s"] == stated["time_to_first_token_s"]
    assert fast["steady_tokens_per_s_total"] == pytest.approx(stated["tokens_per_s_total"])
    assert max(fast["decode_cycles"]) == stated["interval_cycles"]


def test_one_at_a_time_takes_the_cycles_of_single_runs(capsys, tmp_path):
    file = tmp_path / "prompts"
    file.write_text("Hello\n\nHow are you\n")
    few = ("--max-new-tokens", "3")
    ran = printed(capsys, "run", "tiny", "--prompts", str(file), *few)
    for one, text in zip(ran["sequences"], ("Hello", "How are you"), strict=True):
        single = printed(capsys, "run", "tiny", "--prompt", text, *few)
        for key in ("output_ids", "text", "prompt_ids", "logits_sha256"):
            assert one[key] == single[key]
        for key in ("time_to_first_token_s", "tokens_per_s"):
            assert one[key] == pytest.approx(single["emulated"][key])


@pytest.mark.parametrize("text, arguments, message", [
    ("", [], "holds no prompt; write one a line"),
    (None, [], "cannot be read"),
    (b"\xff\xfe", [], "is not UTF-8 text"),
    ("a\n" + "b" * 400, [], "line 2: prompt of 400 tokens"),
    ("a", ["--prompt", "b"], "one of the three"),
    ("a", ["--concurrency", "1500", "--pp", "2", "--tp", "1"], "what fits: --concurrency "),
    ("a", ["--concurrency", "2", "--record", "there"], "holds one sequence at a time"),
])  # fmt: skip
def test_bad_input_is_one_clear_line(text, arguments, message, capsys, tmp_path):
    file = tmp_path / "prompts"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(["run", "tiny", "--prompts", str(file), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_concurrency_needs_a_file_of_prompts(capsys):
    assert main(["run", "tiny", "--prompt", "a", "--concurrency", "2"]) == 2
    assert "needs --prompts FILE" in capsys.readouterr().err


@pytest.mark.parametrize("move_s", [math.inf, 1e-9])
def test_shared_prefixes_and_pre_emption_change_no_token(move_s):
    """Executed: prompts start behind what a slot holds; where pages end, caches are taken in again,
    or go to the host and come back, perhaps into another slot."""
    head = tuple(1 + (5 * n) % 90 for n in range(70))
    prompts = (head, (*head, 7, 8, 9), head[:66], tuple(range(1, 60)), (*head, 3))
    plan, machine = lowered(1, 2, "node", 2), loaded(lowered(1, 2, "node", 2))
    spill = {"move_s": move_s, "refill_s": (0.0, 1.0)}
    policy = Policy("prefill", page_tokens=16, pages=11, block_tokens=32, **spill)
    runner, other = PipelineRunner(plan, machine, policy=policy), PipelineRunner(plan, machine)
    requests, expected = ([Request(prompt, 20) for prompt in prompts] for _ in range(2))
    for _ in runner.answer(requests, Sampling().pick, frozenset()):
        runner.scheduler.check()
    for _ in other.answer(expected, Sampling().pick, frozenset()):
        pass
    assert [one.tokens for one in requests] == [one.tokens for one in expected]
    assert any(one.cached_tokens >= 64 for one in requests)
    assert runner.scheduler.preempted > 0
    spilled, back = ([one for one in runner.transfers if one.back is way] for way in (False, True))
    assert bool(spilled) == bool(back) == math.isfinite(move_s)
    for one in runner.transfers:
        assert one.end_s == pytest.approx(one.begin_s + 1e-5 + one.tokens * 1e-9, rel=1e-12)
    assert other.scheduler.now_s != runner.scheduler.now_s
