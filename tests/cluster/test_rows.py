"""Sequences that share decode launches: each says what it says alone, sooner for all of them."""

import json
from dataclasses import replace

import pytest

from chip.kernels.work import HALVES
from chip.program import WEIGHT_SLICES
from chip.spec import GROQCHIP1, ChipSpec
from chip.text import ProgramText
from chip.wire import unpack
from cluster.cli import main
from cluster.compiler.lower import Lowered, lower
from cluster.compiler.place import place
from cluster.compiler.stages import partition
from cluster.planning.rows import row_counts, shared
from cluster.planning.search import Search
from cluster.planning.timing import PlanTiming
from cluster.serving.scheduler import Step
from tests.cluster.test_pipeline import LONG, alone, answered, loaded
from tests.cluster.tiny import tiny_weights
from topology import parse

SHORT = tuple(tuple(1 + (7 * k * n + k) % 100 for n in range(size)) for k, size in
              enumerate((40, 5, 1, 34, 2), 1))  # fmt: skip
MIXED = (tuple(range(1, 100)) * 4)[:318], (5, 6, 7), (tuple(range(1, 100)) * 4)[:330]
# tp, pp, topology, slots, rows, context, weights: launches that are full and not, on both arrays,
# of one block and of more, with slots at different ones.
PLANS = [
    ((1, 2, "node", 5, 2, 320, "fp16"), SHORT),
    ((2, 2, "ring:4", 5, 4, 320, "int8"), SHORT),
    ((1, 1, "node", 3, 3, 640, "fp16"), MIXED),
    ((1, 1, "node", 3, 3, 320, "w8a16"), SHORT[1:4]),
]


def made(
    tp: int, pp: int, topology: str, slots: int, rows: int, context: int, weights: str,
    spec: ChipSpec = GROQCHIP1, **keys: object,
) -> Lowered:  # fmt: skip
    source, graph = tiny_weights(**(LONG | keys)), parse(topology)
    size = tp, pp, context, weights
    plan = partition(source.model, spec, *size, slots=slots, rows=rows, cut=spec != GROQCHIP1)
    return lower(plan, place(plan, graph, topology), graph, source)


@pytest.mark.parametrize("plan, prompts", PLANS, ids=lambda one: str(one)[:40])
def test_who_shares_a_launch_gets_the_logits_of_his_own_in_planned_cycles(plan, prompts):
    tp, pp, topology, _, rows, context, weights = plan
    together = made(*plan)
    runner, said = answered(together, loaded(together), prompts)
    assert said == alone(made(tp, pp, topology, 1, 1, context, weights), prompts)
    records = runner.scheduler.records
    decode = [work for one in records for work in one.works if work and work.kind.logits_rows]
    assert {work.kind.rows for work in decode} == {rows} and max(len(w.rows) for w in decode) > 1
    timed = PlanTiming(together.plan, together.placement, parse(topology))
    times, planned = timed.steps, timed.program_bytes()
    assert all(record.cycles == times.cycles(Step(record.kind, record.works)) for record in records)
    for chip in together.chips:
        text = ProgramText()
        for launch in together.launches.values():
            text.add(unpack(launch.programs[chip]))
        held = text.instructions * GROQCHIP1.instruction_bytes
        assert held <= planned[chip] <= 1.25 * held


@pytest.mark.parametrize(
    "slots, rows, context, words", [(5, 2, 320, 832), (2, 1, 640, 640)], ids=str
)
def test_caches_that_no_16_slices_hold_are_those_of_half_of_the_layers(slots, rows, context, words):
    """The first three layers have theirs in other slices than the last two."""
    five, small = {"num_hidden_layers": 5}, replace(GROQCHIP1, name="small", slice_words=words)
    prompts = SHORT if context == 320 else MIXED
    together = made(1, 1, "node", slots, rows, context, "fp16", small, **five)
    memory = together.stages[0].memory
    early, late = (memory[f"layer.{half}K0"].region.index for half in HALVES)
    assert abs(early - late) >= WEIGHT_SLICES
    assert [memory.layers[f"layer.{half}"] for half in HALVES] == [3, 2]
    runner, said = answered(together, loaded(together), prompts)
    assert said == alone(made(1, 1, "node", 1, 1, context, "fp16", **five), prompts)
    times = PlanTiming(together.plan, together.placement, parse("node")).steps
    records = runner.scheduler.records
    assert all(record.cycles == times.cycles(Step(record.kind, record.works)) for record in records)


def test_rows_keep_every_stage_at_work():
    for batch, pp in ((1, 4), (3, 4), (16, 2), (16, 1), (500, 2)):
        for rows in row_counts(batch, pp, 32):
            assert rows == 1 or rows == 32 or -(-batch // rows) in (pp, pp + 1, pp + 2)


def test_rows_without_which_there_is_no_room_are_looked_at():
    def search(rows: int) -> Search:
        context = 1_000_000 if rows == 1 else 320  # whose caches no chip holds
        return Search(tiny_weights(**LONG).model, GROQCHIP1, parse("node"), context, 2, rows=rows)

    (found,) = shared(search, [[search(2).candidates(8, 1, 2, "latency")[0]]], 2, 8, "latency")
    assert (found.tp, found.pp, found.rows) == (1, 2, 2)


def printed(capsys, *arguments: str) -> dict:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_plan_chooses_rows_and_a_run_takes_them(capsys, tmp_path):
    shape = ("--tp", "1", "--pp", "2")
    stated = printed(capsys, "plan", "tiny", *shape, "--batch", "16", "--prompt-tokens", "40")
    forced = printed(capsys, "plan", "tiny", *shape, "--batch", "16", "--rows-per-launch", "1")
    assert stated["rows_per_launch"] > 1 == forced["rows_per_launch"]
    assert stated["tokens_per_s_total"] > forced["tokens_per_s_total"]
    full, alone_ = (one["energy"]["full_pipeline"] for one in (stated, forced))
    assert full["joules_per_token"] < alone_["joules_per_token"]
    file = tmp_path / "prompts"
    file.write_text("".join(f"{chr(65 + n) * 40}\n" for n in range(16)))
    arguments = ("--prompts", str(file), "--concurrency", "16", "--max-new-tokens", "4")
    ran = printed(capsys, "run", "tiny", *shape, *arguments)
    assert ran["plan"]["rows_per_launch"] == stated["rows_per_launch"]
    assert ran["emulated"]["decode_cycles"] == stated["pipeline"]["decode_step_cycles"]


def test_rows_need_as_many_in_flight(capsys, tmp_path):
    file = tmp_path / "prompts"
    file.write_text("a\n")
    arguments = ("--prompts", str(file), "--concurrency", "2", "--rows-per-launch", "3")
    assert main(["run", "tiny", *arguments]) == 2
    error = capsys.readouterr().err
    assert "--rows-per-launch" in error and "--concurrency 2" in error and error.count("\n") == 1
    assert main(["plan", "tiny", "--batch", "2", "--rows-per-launch", "3"]) == 2
    assert "--batch 2" in capsys.readouterr().err
