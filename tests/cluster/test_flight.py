"""Several sequences in flight: each says what it says alone, in the cycles that a plan states."""

import hashlib
import json
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest

from chip.errors import NothingArrives
from chip.spec import GROQCHIP1
from chip.wire import unpack
from cluster.cli import main
from cluster.errors import BadValue
from cluster.generation.flight import steady_tokens_per_s
from cluster.generation.inflight import Crew
from cluster.generation.sampling import Sampling
from cluster.generation.session import Session
from cluster.compiler.pipeline import Beats
from cluster.compiler.lower import Lowered, lower
from cluster.compiler.wires import Wires
from cluster.machines.machine import LocalMachine
from cluster.mapping.partition import partition
from cluster.compiler.place import place
from cluster.model.presets import named_spec
from cluster.model.synthetic import TINY, tiny_weights
from cluster.planning.pipeline_timing import BeatTimes, fly
from cluster.planning.timing import Timed
from cluster.runs.many import make_flight
from tests.cluster.tiny import no_progress
from topology import parse
from topology.clocks import ClockSpec

PROMPTS = tuple(tuple(1 + (7 * k * n + k) % 100 for n in range(size)) for k, size in
                enumerate((40, 5, 1, 34, 2), 1))  # fmt: skip
NEW = 4
PLANS = [(1, 1, "node", 2), (2, 2, "ring:4", 3), (1, 3, "mesh:2x3", 4)]
LONG = replace(TINY, name="long", context_max=700)


@cache
def lowered(tp: int, pp: int, topology: str, slots: int, context: int = 320) -> Lowered:
    weights, graph = tiny_weights(LONG), parse(topology)
    plan = partition(weights.spec, GROQCHIP1, tp, pp, context, slots=slots)
    return lower(plan, place(plan, graph, topology), graph, weights)


def loaded(plan: Lowered) -> LocalMachine:
    machine = LocalMachine()
    machine.load(plan, no_progress)
    return machine


def alone(plan: Lowered, prompts=PROMPTS) -> list[tuple[tuple[int, ...], str]]:
    """(tokens, SHA-256 of the logits) of every prompt, each with the cluster to itself."""
    machine, found = loaded(plan), []
    for prompt in prompts:
        session = Session(plan, machine)
        tokens = tuple(session.generate(prompt, NEW, Sampling(), frozenset()))
        found.append((tokens, session.logits_digest.hexdigest()))
    return found


def flown(plan: Lowered, machine, prompts=PROMPTS, stop=frozenset()):
    """The flight, its digest, and (tokens, SHA-256 of the logits) of every prompt."""
    crew = Crew(plan, machine)
    flight = make_flight(plan.plan, plan, crew)
    hashes: dict[int, hashlib._Hash] = {}
    seen = []

    def pick(logits, step: int) -> int:
        seen[:] = [logits.tobytes()]
        return Sampling().pick(logits, step)

    for one, _ in flight.go(prompts, [NEW] * len(prompts), pick, stop):
        hashes.setdefault(one.number, hashlib.sha256()).update(seen[0])
    said = [(tuple(one.tokens), hashes[one.number].hexdigest()) for one in flight.generations]
    return flight, crew.digest.hexdigest(), said


@cache
def flown_here(*plan):
    return flown(lowered(*plan), loaded(lowered(*plan)))


@pytest.mark.parametrize("tp, pp, topology, slots", PLANS)
def test_every_sequence_gets_the_logits_that_it_gets_alone(tp, pp, topology, slots):
    _, _, said = flown_here(tp, pp, topology, slots)
    assert said == alone(lowered(tp, pp, topology, 1))


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_executed_beats_are_those_that_the_schedules_state(plan):
    flight, _, _ = flown_here(*plan)
    made = lowered(*plan)
    times = Timed(made.plan, made.placement, parse(plan[2])).beats
    assert {beat.kind for beat in flight.beats} == {"prefill", "decode"}
    for beat in flight.beats:
        assert beat.cycles == times.cycles(beat.kind, beat.works)


def test_a_hand_over_goes_in_parts_where_the_clocks_demand_it():
    """32 tokens of x, in one, would take longer than the 3,284 cycles between two stalls."""
    weights, graph = tiny_weights(LONG), parse("ring:4")
    plan = partition(weights.spec, GROQCHIP1, 1, 2, 320, slots=2)
    made = lower(plan, ((0,), (1,)), graph, weights, ClockSpec(drift_ppm=1400))
    beats = Beats(plan, made.placement, made.stages, Wires(graph), made.clocking)
    assert len(beats.compose("prefill", None, 0).parts[0].items) == 2
    flight, _, said = flown(made, loaded(made))
    assert said == alone(lowered(1, 1, "node", 1))
    times = BeatTimes(beats)
    assert all(beat.cycles == times.cycles(beat.kind, beat.works) for beat in flight.beats)


def test_sequences_of_several_context_buckets_fly_together():
    prompts = (tuple(range(1, 100)) * 4)[:318], (5, 6, 7), (tuple(range(1, 100)) * 4)[:330]
    plan = lowered(1, 2, "node", 2, 640)
    flight, _, said = flown(plan, loaded(plan), prompts)
    works = [[work for work in beat.works if work] for beat in flight.beats]
    assert any(len({work.context for work in beat}) == 2 for beat in works)
    assert said == alone(lowered(1, 2, "node", 1, 640), prompts)


def test_a_sequence_that_ends_leaves_its_slot_to_the_next_prompt():
    plan = lowered(1, 1, "node", 2)
    _, _, whole = flown_here(1, 1, "node", 2)
    stop = frozenset([whole[0][0][0]])
    flight, _, said = flown(plan, loaded(plan), stop=stop)
    assert len(said[0][0]) == 1 and flight.generations[0].slot == 0
    for (tokens, _), (full, _) in zip(said, whole, strict=True):
        assert tokens == full[: len(tokens)]
    later = flight.generations[2]
    ended = [one for one in flight.generations if one.slot == later.slot and one.number < 2]
    assert later.entered_s == ended[0].token_s[-1]


def test_a_beat_never_holds_a_sequence_twice_and_each_moves_on_by_a_stage():
    flight, _, _ = flown_here(1, 3, "mesh:2x3", 4)
    for kind in ("prefill", "decode"):
        beats = [beat.works for beat in flight.beats if beat.kind == kind]
        for before, after in pairwise(beats):
            assert before[:-1] == after[1:]
        if kind == "decode":
            for works in beats:
                slots = [work.slot for work in works if work]
                assert len(slots) == len(set(slots))


def test_programs_that_do_not_belong_together_are_refused():
    plan = lowered(1, 3, "mesh:2x3", 4)
    (first,), (second,), (third,) = plan.placement
    parts = {first: "decode.0@320", second: "prefill.0@320", third: "decode.1@320"}
    machine = loaded(plan)
    with pytest.raises(NothingArrives):
        machine.join("mixed", parts)


def test_the_host_has_a_beat_for_its_transfers():
    """What it writes is read in the opening only, what it reads is only written at the end."""
    plan = lowered(2, 2, "ring:4", 3)
    for name, launch in plan.launches.items():
        opening = max(plan.launches[f"{name.split('.')[0]}.idle"].end_cycles.values()) + 200
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
    plan = partition(weights.spec, GROQCHIP1, 2, 2, slots=2)
    with pytest.raises(BadValue, match="both cross chip"):
        lower(plan, ((0, 3), (1, 4)), graph, weights)


# --- how fast -----------------------------------------------------------------------------------
@pytest.mark.parametrize("tp, pp, topology", [(1, 6, "node"), (3, 3, "torus:3x3")])
def test_total_speed_grows_with_sequences_until_the_pipeline_is_full(tp, pp, topology):
    """Nearly linearly: stages wait for the longest, and sequences for a beat to begin."""
    graph, batch = parse(topology), pp + 3
    plan = partition(named_spec("smollm2"), GROQCHIP1, tp, pp, slots=batch)
    times = Timed(plan, place(plan, graph, topology), graph).beats
    found = {
        count: steady_tokens_per_s(fly(times, count, 317, held=316).generations, count)
        for count in range(1, batch + 1)
    }
    full = GROQCHIP1.clock_hz / times.full_cycles("decode", 320)
    assert found[batch] == pytest.approx(full)
    for count in range(2, pp + 1):
        assert 0.75 * count * found[1] < found[count] < 1.02 * count * found[1]
        assert found[count] > found[count - 1]


def told(capsys, *arguments: str) -> dict:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("tp, pp, batch", [(1, 1, 2), (2, 2, 3), (1, 2, 5)])
def test_a_run_takes_the_beats_and_seconds_of_its_plan(tp, pp, batch, capsys, tmp_path):
    shape = ("--tp", str(tp), "--pp", str(pp))
    stated = told(capsys, "plan", "tiny", *shape, "--batch", str(batch), "--prompt-tokens", "40")
    file = tmp_path / "prompts"
    file.write_text("".join(f"{chr(65 + n) * 40}\n" for n in range(batch)))
    arguments = ("--prompts", str(file), "--concurrency", str(batch), "--max-new-tokens", "4")
    ran = told(capsys, "run", "tiny", *shape, *arguments)
    fast, beats = ran["emulated"], stated["pipeline"]
    assert all(len(one["output_ids"]) == 4 for one in ran["sequences"])
    assert fast["decode_cycles"] == beats["decode_beat_cycles"]
    assert fast["prefill_beat_cycles"] == beats["prefill_beat_cycles"]
    assert fast["time_to_first_token_s"] == stated["time_to_first_token_s"]
    assert fast["steady_tokens_per_s_total"] == pytest.approx(stated["tokens_per_s_total"])
    assert max(fast["decode_cycles"]) == stated["interval_cycles"]


def test_one_at_a_time_takes_the_cycles_of_single_runs(capsys, tmp_path):
    file = tmp_path / "prompts"
    file.write_text("Hello\n\nHow are you\n")
    few = ("--max-new-tokens", "3")
    ran = told(capsys, "run", "tiny", "--prompts", str(file), *few)
    for one, text in zip(ran["sequences"], ("Hello", "How are you"), strict=True):
        single = told(capsys, "run", "tiny", "--prompt", text, *few)
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
