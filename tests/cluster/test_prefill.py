"""Chunks of one user's prompt follow each other through the stages: same bits, fewer cycles."""

from functools import cache
from itertools import repeat
from math import ceil

import pytest

from chip.recording import replay
from chip.spec import GROQCHIP1
from cluster.compiler.chunk import with_best_chunk
from cluster.compiler.launch import prefill_kind
from cluster.compiler.lower import Lowered, lower
from cluster.compiler.place import place
from cluster.compiler.stages import partition
from cluster.generation.sampling import Sampling
from cluster.machines.machine import LocalMachine
from cluster.machines.record import Recorder
from cluster.model.known import known_model
from cluster.planning.timing import PlanTiming
from cluster.serving.engine import PipelineRunner
from cluster.serving.host_link import HostLink
from cluster.serving.scheduler import PipelineScheduler, Request, drive
from tests.cluster.tiny import no_progress, tiny_weights
from topology import parse

PROMPT = tuple(1 + 7 * n % 100 for n in range(345))  # chunks of two context buckets in one step
NEW = 3
LONG = {"max_position_embeddings": 700}


@cache
def lowered(tp: int, pp: int, topology: str) -> Lowered:
    weights, graph = tiny_weights(**LONG), parse(topology)
    plan = partition(weights.model, GROQCHIP1, tp, pp, 640)
    return lower(plan, place(plan, graph, topology), graph, weights)


def answered(plan: Lowered, machine) -> tuple[PipelineRunner, tuple[list[int], str]]:
    machine.load(plan, no_progress)
    runner, request = PipelineRunner(plan, machine), Request(PROMPT, NEW)
    for _ in runner.answer([request], Sampling().pick, frozenset()):
        pass
    return runner, (request.tokens, runner.logits_sha256(request))


@cache
def answered_here(*plan) -> tuple[PipelineRunner, tuple[list[int], str]]:
    return answered(lowered(*plan), LocalMachine())


@pytest.mark.parametrize("plan", [(1, 3, "ring:3"), (3, 2, "node")], ids=str)
def test_pipelined_chunks_give_the_logits_of_whole_launches(plan):
    """On one stage each chunk is a launch of its own; three ranks send shares of x, and hand them
    round."""
    (_, pipelined), (_, whole) = answered_here(*plan), answered_here(plan[0], 1, "node")
    assert pipelined == whole


@pytest.mark.parametrize("plan", [(1, 1, "node"), (1, 3, "ring:3"), (3, 2, "node")], ids=str)
def test_a_prompt_takes_the_cycles_and_steps_that_are_planned(plan):
    runner, _ = answered_here(*plan)
    made, chunks = lowered(*plan), ceil((len(PROMPT) - 1) / 32)
    timed = PlanTiming(made.plan, made.placement, parse(plan[2]))
    launches = timed.prefill(len(PROMPT))
    assert [launch.cycles for launch in launches] == runner.cycles[: len(launches)]
    assert len(launches) == chunks + made.plan.pp - 1 + 1
    counts = [launch.instructions for launch in made.launches.values()]
    held = {chip: sum(one.get(chip, 0) for one in counts) for chip in counts[0]}
    size = GROQCHIP1.instruction_bytes
    assert all(n >= held[chip] * size for chip, n in timed.program_bytes().items())


@pytest.mark.parametrize("plan", [(1, 1, "node"), (1, 3, "ring:3")], ids=str)
@pytest.mark.parametrize("prompt", [1, 33, 345])
def test_a_prompt_takes_the_time_that_the_scheduler_says(plan, prompt):
    made = lowered(*plan)
    timed = PlanTiming(made.plan, made.placement, parse(plan[2]))
    stages = made.plan.pp if made.pipeline.apart else 1

    def bytes_of(kind, with_x):
        return timed.costs.host_bytes(timed.width, kind, with_x), 0

    def cycles(step):
        kind = max(work.kind for work in step.works if work)
        return timed.steps.cycles(step) if timed.in_steps(kind) else timed.launch(kind).cycles

    link = HostLink(made.plan.spec, bytes_of, beside=False)
    scheduler = PipelineScheduler(stages, 1, made.plan.chunk, link, whole=True)
    scheduler.submit(Request((0,) * prompt, 1))
    for _ in drive(scheduler, lambda step: (cycles(step), repeat(None)), lambda *_: 0, frozenset()):
        pass
    said = [(record.cycles, record.seconds) for record in scheduler.records]
    assert timed.prefill(prompt) == said


def test_stages_that_share_chips_take_chunks_one_after_another():
    """In a line of chips 0, 2 and 1, 3 all-reduces of both groups cross chips of the other."""
    weights, graph = tiny_weights(**LONG), parse("mesh:1x4")
    plan = partition(weights.model, GROQCHIP1, 2, 2, 640)
    made = lower(plan, ((0, 2), (1, 3)), graph, weights)
    assert not made.pipeline.apart and str(prefill_kind(32, 320)) in made.launches
    runner, said = answered(made, LocalMachine())
    assert said == answered_here(2, 1, "node")[1]
    assert len(runner.launches) == ceil((len(PROMPT) - 1) / 32) + NEW


def test_a_recording_of_pipelined_chunks_is_replayed_by_chips_alone(tmp_path):
    recorder = Recorder(LocalMachine(), tmp_path / "run")
    runner, said = answered(lowered(1, 2, "node"), recorder)
    recorder.commit()
    assert said == answered_here(1, 2, "node")[1]
    steps = list(replay(tmp_path / "run"))
    assert all(step.equal for step in steps) and len(steps) == len(runner.launches)


def test_a_long_pipeline_has_short_chunks():
    """What it costs to fill the stages grows with their number, what long chunks save does not."""
    graph, found = parse("dragonfly:64"), {}
    for pp in (2, 30):
        plan = partition(known_model("smollm2"), GROQCHIP1, 1, pp)
        timed = PlanTiming(plan, place(plan, graph, "dragonfly:64"), graph)
        best = with_best_chunk(plan, timed.pipeline, timed.clocks)
        assert best.sram_bytes_max <= plan.sram_bytes_max
        found[pp] = best.chunk
    assert found[2] > found[30]
