"""Clocks are part of the product: programs start, deskew and stall, and arrivals are checked."""

from dataclasses import replace
from functools import cache

import pytest

from chip.errors import DeskewOverdue
from chip.linker import link
from chip.program import Instruction
from chip.spec import GROQCHIP1
from chip.wire import pack, unpack
from cluster.cli import main
from cluster.compiler.launch import StageProgram, prefill_kind
from cluster.compiler.lower import Lowered, lower
from cluster.compiler.stage_work import StageSchedules
from cluster.compiler.stages import partition
from cluster.errors import ClockMiss
from cluster.machines.clocked import Clocked
from cluster.machines.machine import LocalMachine
from tests.cluster.tiny import (
    local_outcome,
    lowered,
    no_progress,
    outcome,
    reference_tokens,
    tiny_weights,
)
from topology import parse
from topology.clocks import ClockSpec

PLAN = (2, 2, "ring:4")
PREFILL = str(StageProgram(prefill_kind(32, 320), 0))
PERIOD, BARRIER = GROQCHIP1.hac_period_cycles, GROQCHIP1.barrier_cycles
RUN = ["run", "tiny", "--prompt", "hello", "--tp", "2", "--pp", "2", "--max-new-tokens", "2"]


@cache
def drifting(ppm: float, topology: str = "ring:4", chips: tuple = ((0, 1), (2, 3))) -> Lowered:
    """The tiny model, scheduled for oscillators that are off by so much."""
    weights, graph = tiny_weights(), parse(topology)
    plan = partition(weights.model, GROQCHIP1, tp=len(chips[0]), pp=len(chips))
    return lower(plan, chips, graph, weights, ClockSpec(drift_ppm=ppm))


def programs(plan: Lowered):
    """(launch, chip, program) of a plan."""
    for launch in plan.launches.values():
        for chip, data in launch.programs.items():
            yield launch, chip, unpack(data)


@pytest.mark.parametrize("topology, height", [("ring:4", 2), ("node", 1), ("mesh:1x4", 2)])
def test_every_program_begins_with_the_start(topology, height):
    plan = lowered(2, 2, topology)
    assert plan.clocking.plan.height == height
    begin = PERIOD * (1 + height) + BARRIER  # Deskew, (floor(217 / 252) + 1) epochs a level
    starts = []
    for launch, chip, program in programs(plan):
        assert launch.startup_cycles == begin <= program.start_cycle
        kinds = [instruction.op for instruction in program.startup]
        assert "icu.deskew" in kinds
        assert ("c2c.await" in kinds) == (chip != plan.clocking.plan.root)
        starts.append(program.start_cycle)
    assert min(starts) == begin


def test_a_single_chip_has_nobody_to_agree_with():
    plan = lowered(1, 1, "node")
    assert plan.clocking is None
    assert all(not p.startup and not p.deskew_interval_cycles for _, _, p in programs(plan))


@pytest.mark.parametrize("ppm", [500, 800])
def test_programs_stall_as_often_as_the_drift_demands(ppm):
    calm = lowered(*PLAN)
    plan = drifting(ppm, chips=calm.placement)
    limit = plan.clocking.interval_cycles
    machine = LocalMachine()
    machine.load(plan, no_progress)  # links: which refuses a deskew that is overdue
    assert outcome(plan, machine).tokens == local_outcome(*PLAN).tokens == reference_tokens()
    assert all(p.deskew_interval_cycles == limit for _, _, p in programs(plan))
    for name, launch in plan.launches.items():
        steady = calm.launches[name]
        longer = max(launch.end_cycles.values()) - max(steady.end_cycles.values())
        assert longer >= launch.deskew_cycles >= 0 == steady.deskew_cycles
    assert plan.launches[PREFILL].deskew_cycles > 0


def test_a_program_without_its_deskews_is_refused():
    plan = drifting(800)
    found = 0
    for _, _, program in programs(plan):
        stalls = [q for q in program.queues.values() if any(map(is_stall, q))]
        found += bool(stalls)
        if stalls:
            bare = {name: tuple(map(waits, queue)) for name, queue in program.queues.items()}
            with pytest.raises(DeskewOverdue):
                link(replace(program, queues=bare))
    assert found


def is_stall(instruction: Instruction) -> bool:
    return instruction.op == "icu.runtime_deskew"


def waits(instruction: Instruction) -> Instruction:
    """A NOP in place of a stall."""
    return replace(instruction, op="icu.nop") if is_stall(instruction) else instruction


def test_a_program_that_starts_a_cycle_later_is_refused():
    plan = lowered(*PLAN)
    for _, _, program in programs(plan):
        late = replace(program, start_cycle=program.start_cycle + 1)
        with pytest.raises(Exception, match="out of step"):
            link(unpack(pack(late)))


def test_a_chip_that_idles_deskews_before_it_works_again():
    """Chips 0 and 1, of the first stage, pass on what the two far chips of the second exchange."""
    plan = drifting(800, "ring:6", ((0, 1), (2, 5)))
    kind, clocks = prefill_kind(32, 320), plan.clocking
    work = StageSchedules(plan.plan, plan.pipeline, plan.stages)
    stage_0 = clocks.start_cycle + work.stage(0, kind, clocks.pace(0)).end_cycle
    program = unpack(plan.launches[str(kind)].programs[0])
    stalls = [program.start_cycle + c for c, _ in program.deskews(next(iter(program.queues)))]
    assert any(cycle < stage_0 for cycle in stalls) and any(cycle > stage_0 for cycle in stalls)
    machine = LocalMachine()
    machine.load(plan, no_progress)
    assert outcome(plan, machine).tokens == reference_tokens()


def test_what_goes_to_the_next_stage_goes_in_parts_where_the_clocks_demand_it():
    """3,456 cycles of x at a stretch, with a place to stall every 3,332 at the most."""
    plan = drifting(1380, chips=((0,), (1,)))
    work = StageSchedules(plan.plan, plan.pipeline, plan.stages)
    kind, limit = prefill_kind(plan.plan.chunk, 320), plan.clocking.pace(0).limit_cycles
    whole, parts = (work.crossing(0, kind, most) for most in (None, limit))
    assert len(whole) == 1 and whole[0].end_cycle > limit
    assert len(parts) == 2 and max(part.end_cycle for part in parts) <= limit
    machine = LocalMachine()
    machine.load(plan, no_progress)
    assert outcome(plan, machine).tokens == reference_tokens()


def test_what_no_stall_can_hold_says_so():
    with pytest.raises(Exception, match=r"[\d,]+ cycles without a place for the Runtime deskew"):
        drifting(20_000)


# --- on oscillators --------------------------------------------------------------------------
@pytest.mark.parametrize("really", [{}, {"seed": 3}, {"seed": 4, "drift_ppm": 100.0}])
def test_inside_the_margin_nothing_changes(really):
    machine = Clocked(LocalMachine(), **really)
    machine.load(lowered(*PLAN), no_progress)
    assert outcome(lowered(*PLAN), machine) == local_outcome(*PLAN)
    assert machine.oscillators.checked > 1000
    assert machine.oscillators.worst_slip_cycles <= 24


@pytest.mark.parametrize("really, seed", [
    ({"drift_ppm": 9000.0}, 0), ({"jitter_cycles": 12.0}, 0), ({"jitter_cycles": 12.0}, 1),
])  # fmt: skip
def test_beyond_the_margin_the_link_is_named(really, seed):
    plan, machine = lowered(*PLAN), Clocked(LocalMachine(), seed, **really)
    machine.load(plan, no_progress)
    with pytest.raises(ClockMiss, match=r"link \d->\d misses the receive of cycle [\d,]+") as error:
        outcome(plan, machine)
    assert plan.clocking.graph.has_edge(*error.value.link)


def test_every_vector_on_a_cable_is_checked():
    plan, machine = lowered(*PLAN), Clocked(LocalMachine())
    machine.load(plan, no_progress)
    sent = {
        name: sum(
            instruction.count
            for data in launch.programs.values()
            for _, _, instruction in unpack(data).instructions()
            if instruction.op == "c2c.send"
        )
        for name, launch in plan.launches.items()
    }
    assert {name: len(r.src) for name, r in machine._receives.items()} == sent
    for name, found in machine._receives.items():
        latency = found.cycle - (found.cycle - found.received_since_cycles)
        assert (latency >= 0).all() and (found.sent_since_cycles >= 0).all()
        assert found.sent_since_cycles.max() <= plan.clocking.interval_cycles, name


def test_the_command_fails_its_check_with_one_line(capsys):
    assert main([*RUN, "--drift-ppm", "9000"]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("lpu: link ") and "--design-drift-ppm" in line
    assert main([*RUN, "--drift-ppm", "nan-ppm"]) == 2
