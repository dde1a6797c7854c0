"""`lpu plan` states what a run does, chooses the best plan, and what it holds fits."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

import cluster
from chip.spec import GROQCHIP1
from chip.spec import TINY as SMALL_CHIP
from cluster.cli import main
from cluster.compiler.choose import PlanRequest
from cluster.compiler.launch import StageProgram, launch_kinds
from cluster.compiler.lower import lower
from cluster.compiler.place import place
from cluster.compiler.sizes import CHUNKS, Sizes
from cluster.compiler.stage_work import StageSchedules, make_stages, through_all_stages
from cluster.compiler.stages import partition
from cluster.compiler.wires import Wires
from cluster.errors import DoesNotFit
from cluster.model.graph.shares import share
from cluster.model.graph.stand_in import Experts
from cluster.model.known import changed_model, known_model
from cluster.model.weights.synthetic import SyntheticWeights
from cluster.planning.planner import make, report
from cluster.planning.search import Search
from cluster.planning.timing import PlanTiming
from tests.cluster.model.files import CONFIG, write_folder
from topology import parse, ports

ODD = {"num_hidden_layers": 4, "hidden_size": 672, "num_attention_heads": 6,
       "num_key_value_heads": 2, "intermediate_size": 960, "vocab_size": 700}  # fmt: skip
TINY, MODEL = known_model("tiny"), changed_model("tiny", **ODD)
DEEPER = changed_model("tiny", **ODD | {"num_hidden_layers": 7, "intermediate_size": 2000})
CASES = [(1, 1, "node"), (1, 3, "ring:3"), (2, 2, "ring:4"), (4, 1, "mesh:2x3"), (3, 2, "node")]
SMOLLM2 = (2, 5, "torus:3x4")  # with chips that only pass vectors on


def planned(capsys, *arguments: str) -> dict:
    assert main(["plan", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("model, tp, pp, topology", [
    *((MODEL, *case) for case in CASES), (known_model("smollm2"), *SMOLLM2),
])  # fmt: skip
def test_planned_cycles_and_instructions_are_those_of_the_programs(model, tp, pp, topology):
    """One layer and one LM head are timed; loading a program compares its cycles with its own."""
    graph = parse(topology)
    plan = partition(model, GROQCHIP1, tp, pp)
    placement = place(plan, graph, topology)
    timed = PlanTiming(plan, placement, graph)
    lowered = lower(plan, placement, graph, SyntheticWeights(model))
    for kind in launch_kinds(plan):
        if timed.in_steps(kind):
            launch = lowered.launches[str(StageProgram(kind, 0))]
            cycles, counts = timed.steps.full_cycles(kind), timed.steps.instructions_of(kind)
        else:
            launch, planned = lowered.launches[str(kind)], timed.launch(kind)
            cycles, counts = planned.cycles, planned.instructions
        assert cycles == max(launch.end_cycles.values())
        assert counts == launch.instructions
    assert sum(timed.breakdown(320).values()) == timed.decode(320).cycles


@pytest.mark.parametrize("tp, pp", [(1, 1), (2, 2), (4, 1)])
def test_a_run_takes_the_cycles_and_seconds_of_its_plan(tp, pp, capsys):
    shape = ("--tp", str(tp), "--pp", str(pp))
    stated = planned(capsys, "tiny", *shape, "--prompt-tokens", "40")
    ids = ",".join(str(1 + n % 100) for n in range(40))
    ran = ["run", "tiny", *shape, "--prompt-ids", ids, "--max-new-tokens", "3", "--json"]
    assert main(ran) == 0
    found = json.loads(capsys.readouterr().out)["emulated"]
    assert set(found["decode_cycles"]) == {stated["cycles_per_token"]}
    assert found["prefill_cycles"] == stated["prefill_cycles"]
    assert found["time_to_first_token_s"] == pytest.approx(stated["time_to_first_token_s"])
    assert found["tokens_per_s"] == pytest.approx(stated["tokens_per_s_per_user"])


# Whose sums are more rows than relays take, which are quicker with few even in fp32.
WIDE = CONFIG | {"num_attention_heads": 16, "num_key_value_heads": 16, "hidden_size": 8192,
                 "intermediate_size": 640, "num_hidden_layers": 1}  # fmt: skip
NODES = ("--tp", "16", "--pp", "1", "--topology", "dragonfly:16", "--weights", "int8")


def test_sums_between_nodes_may_be_fp16(tmp_path, capsys):
    """The plan says so, with what it costs; sweeps have it as an axis."""
    folder, half = str(write_folder(tmp_path / "wide", WIDE)), ("--sums-between-nodes", "fp16")
    wide, narrow = planned(capsys, folder, *NODES), planned(capsys, folder, *NODES, *half)
    assert narrow["bound_cycles"] <= narrow["cycles_per_token"] < wide["cycles_per_token"]
    assert [one["plan"]["sums_between_nodes"] for one in (wide, narrow)] == ["fp32", "fp16"]
    assert "infinite from 65,520 on" in narrow["notes"][-1] and len(wide["notes"]) == 0
    size = {"model": folder, "tp": 16, "pp": 1, "topology": "dragonfly:16", "weights": "int8"}
    swept = cluster.sweep(size | {"grid": {"sums_between_nodes": ["fp32", "fp16"]}}, workers=1)
    cycles = [row["cycles_per_token"] for row in swept.rows]
    assert cycles == [wide["cycles_per_token"], narrow["cycles_per_token"]]


def test_a_plan_within_nodes_says_that_no_sums_leave_them(capsys):
    found = planned(capsys, "tiny", "--sums-between-nodes", "fp16")
    assert "--sums-between-nodes changes nothing" in found["notes"][-1]
    found.pop("notes")
    for key, value in planned(capsys, "tiny").items():
        assert key in ("notes", "plan") or found[key] == value


@pytest.mark.parametrize("model, chip, topology", [
    *itertools.product((TINY, MODEL, DEEPER), (GROQCHIP1, SMALL_CHIP), ("node",)),
    (MODEL, GROQCHIP1, "ring:6"), (DEEPER, SMALL_CHIP, "mesh:2x3"),
])  # fmt: skip
def test_the_choice_is_within_two_percent_of_an_exhaustive_search(model, chip, topology):
    graph = parse(topology)
    search = Search(model, chip, graph)
    found = search.candidates(len(graph))
    every = {}
    for tp in range(1, min(len(graph), model.size("heads")) + 1):
        for pp in range(1, min(len(graph) // tp, len(model.layers) + 1) + 1):
            try:
                plan = partition(model, chip, tp, pp, sizes=search.sizes, cut=False)
            except DoesNotFit:
                continue
            timed = PlanTiming(plan, place(plan, graph, topology), graph)
            every[tp, pp] = timed.decode(320).cycles
            assert search.bound(tp, pp) <= every[tp, pp]
    assert bool(found) == bool(every)
    if every:
        best = found[0]
        assert best.cycles == every[best.tp, best.pp] <= 1.02 * min(every.values())


def test_a_plan_whose_programs_have_no_room_gives_way_to_one_with_more_stages():
    graph, wide = parse("node"), replace(SMALL_CHIP, instruction_bytes=3072)
    best, *others = Search(DEEPER, SMALL_CHIP, graph).candidates(len(graph))
    search = Search(DEEPER, wide, graph)
    found = search.candidates(len(graph))
    assert {(one.tp, one.pp) for one in (best, *others)} == set(search.outgrown)
    assert [(one.tp, one.pp) for one in found] == [(best.tp, best.pp + 1)]
    assert search.timed(best.tp, best.pp + 1).program_bytes()
    for size in search.outgrown:
        with pytest.raises(DoesNotFit, match="instructions among it; use more stages"):
            search.timed(*size).program_bytes()


@pytest.mark.parametrize("name, chips, topology, batch, context", [
    ("smollm2", 24, "dragonfly:24", 1, 320), ("llama-2-7b", 264, "dragonfly:264", 1, 320),
    ("smollm2", 9, "torus:3x3", 3, 960),
])  # fmt: skip
def test_a_plan_never_exceeds_its_chips(name, chips, topology, batch, context):
    request = PlanRequest(chips=chips, topology=topology, batch=batch, context=context)
    made = make(name, request)
    stated, timed = report(made), made.timed
    used = [chip for group in timed.placement for chip in group]
    assert len(used) == len(set(used)) <= chips
    for stage, kinds in zip(stated["plan"]["stages"], timed.stages, strict=True):
        assert stage["sram_bytes"] <= GROQCHIP1.sram_bytes
        assert sum(stage["sram"].values()) == stage["sram_bytes"]
        assert kinds.shape.slots == timed.plan.caches and kinds.shape.context == context
    assert batch <= timed.plan.caches < batch + timed.plan.rows
    assert sum(stage["layers"] for stage in stated["plan"]["stages"]) == len(
        timed.plan.model.layers
    )
    cabled = ports(timed.graph)
    assert max(p for chip in cabled.values() for mine in chip.values() for p in mine) < 16


@pytest.mark.parametrize("tp, pp, topology", [(2, 2, "ring:5"), (3, 2, "node"), (6, 3, "mesh:3x6")])
def test_no_cable_carries_more_than_it_can(tp, pp, topology):
    """Vectors leave a port one interval apart at least, on chips with a cable at that port."""
    graph = parse(topology)
    plan = partition(MODEL, GROQCHIP1, tp, pp)
    placement, wires = place(plan, graph, topology), Wires(graph)
    pipeline = wires.pipeline(placement)
    work = StageSchedules(plan, pipeline, make_stages(plan))
    for kind in launch_kinds(plan):
        timeline = through_all_stages(pipeline, work, kind, None)
        for chip, part in timeline.chips():
            cabled = {wires.ports[chip][peer][0]: peer for peer in graph[chip]}
            leaves: dict[int, list[np.ndarray]] = {}
            for schedule, member, offset in part.items:
                for queue, placed in schedule.placed[member].items():
                    unit, _, port = queue.partition(":")
                    for cycle, instruction in placed if unit == "c2c.s" else ():
                        (n, outer, _), (m, inner, _) = instruction.loops
                        each = np.add.outer(np.arange(n) * outer, np.arange(m) * inner).ravel()
                        leaves.setdefault(int(port), []).append(each + cycle + offset)
            for port, cycles in leaves.items():
                link = graph.edges[chip, cabled[port]]["link"]
                apart = np.diff(np.sort(np.concatenate(cycles)))
                assert apart.min(initial=1 << 40) >= link.cycles_per_vector
            assert all(port < GROQCHIP1.c2c_ports for port in leaves)


def test_several_sequences_share_the_stages(capsys):
    """Total speed grows with sequences in flight until the busiest stage is always busy.

    For one sequence stages wait for each other and for the host link, a quarter of its time. More
    than stages share launches: what one of them alone takes is the same but for where it rests.
    """
    found = [
        planned(capsys, "smollm2", "--tp", "1", "--pp", "5", "--batch", str(b))
        for b in (1, 2, 4, 8)
    ]
    one, two, four, eight = (plan["tokens_per_s_total"] for plan in found)
    assert 1.7 * one < two < 2 * one and four > 3 * one and 5 * one < eight < 8 * one
    cycles = [plan["cycles_per_token"] for plan in found]
    assert [plan["rows_per_launch"] for plan in found[:3]] == [1, 1, 1]
    assert len(set(cycles[:3])) == 1 and cycles[3] == pytest.approx(cycles[0], rel=0.01)


def test_sizes_grow_with_what_they_hold():
    sizes, more = Sizes(MODEL, GROQCHIP1), Sizes(MODEL, GROQCHIP1, 640, slots=2)
    for chunk in CHUNKS:
        assert more.need_bytes(2, chunk, 2, False) > sizes.need_bytes(2, chunk, 2, False)
    assert sizes.need_bytes(2, 32, 2, True) > sizes.need_bytes(2, 8, 2, True)


@pytest.mark.parametrize("arguments, message", [
    (["llama-2-70b", "--chips", "576", "--topology", "dragonfly:576", "--weights", "fp16"],
     "or --weights int8 on these 576"),
    (["smollm2", "--chips", "1", "--weights", "fp16"],
     "what fits: --tp 1 --pp 2 (2 chips) or more"),
    (["smollm2", "--tp", "10"], "must be 1 to 9, the heads of smollm2-135m"),
    (["smollm2", "--tp", "3", "--pp", "3", "--chips", "8"], "needs 9 chips"),
    (["smollm2", "--objective", "energy", "--spec", "lp30"], "nothing is known of lp30's power"),
    (["smollm2", "--topology", "ring:4", "--faults", "chip:1", "--chips", "4"], "has 3 chips"),
    (["smollm2", "--context", "9000"], "must be 1 to 8192 tokens"),
    (["bert-base"], "`lpu embed` runs encoders"),
    (["nothing"], "unknown model"),
])  # fmt: skip
def test_what_cannot_be_planned_is_one_clear_line(arguments, message, capsys):
    assert main(["plan", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_weights_that_nobody_chose_are_int8_where_fp16_has_no_room(capsys):
    free = planned(capsys, "smollm2", "--chips", "2", "--context", "1600", "--topology", "node")
    assert free["plan"]["weights"] == "int8" and "weights are int8" in free["notes"][-1]
    assert planned(capsys, "smollm2", "--chips", "2")["plan"]["weights"] == "fp16"


def test_a_mixture_of_many_experts_is_planned_as_it_runs():
    model = known_model("qwen3-30b-a3b")
    assert model.stand_in is None and not model.notes
    assert (model.size("experts"), model.size("expert_ffn")) == (128, 768)


@pytest.mark.parametrize("tp, per_rank, whole", [(8, 1, True), (4, 2, True), (3, 8 / 3, False)])
def test_a_plan_says_where_experts_rest(tp, per_rank, whole):
    """Columns are shared out evenly: if tp divides the experts, no rank has a part of one."""
    experts = Experts(8, 2, 14336)
    mine, columns = experts.residents(tp), share(experts.columns, tp, 1)
    assert (mine.per_rank, mine.whole) == (per_rank, whole)
    starts = columns.start % experts.ffn, columns.stop % experts.ffn
    assert (starts == (0, 0)) == whole
    shared = replace(experts, shared_ffn=100)
    assert not shared.residents(8).whole and shared.residents(4).whole


def test_a_plan_goes_around_dead_parts(capsys):
    shape = ("tiny", "--tp", "2", "--pp", "2", "--topology", "ring:6")
    whole, cut = planned(capsys, *shape), planned(capsys, *shape, "--faults", "chip:1")
    chips = [chip for stage in cut["plan"]["stages"] for chip in stage["chips"]]
    assert 1 not in chips and len(set(chips)) == 4
    assert cut["cycles_per_token"] != whole["cycles_per_token"]
    ran = ["run", *shape, "--faults", "chip:1", "--prompt-ids", "1,2", "--json"]
    assert main([*ran, "--max-new-tokens", "2"]) == 0
    emulated = json.loads(capsys.readouterr().out)["emulated"]
    assert set(emulated["decode_cycles"]) == {cut["cycles_per_token"]}


def test_the_plan_of_least_energy_takes_the_fewest_joules(capsys):
    shape = ("smollm2", "--chips", "8", "--topology", "node")
    found = {o: planned(capsys, *shape, "--objective", o) for o in ("latency", "energy")}
    joules = {objective: plan["joules_per_token"] for objective, plan in found.items()}
    assert joules["energy"] <= joules["latency"]
    for tp, pp in ((1, 2), (1, 3), (2, 2), (3, 2), (8, 1)):
        one = planned(capsys, "smollm2", "--tp", str(tp), "--pp", str(pp), "--topology", "node")
        assert joules["energy"] <= 1.001 * one["joules_per_token"]


def test_a_person_can_read_it(capsys):
    assert main(["plan", "smollm2", "--chips", "4", "--topology", "node"]) == 0
    text = capsys.readouterr().out
    for part in ("tokens/s per user", "bottleneck", "of its SRAM", "next best"):
        assert part in text
