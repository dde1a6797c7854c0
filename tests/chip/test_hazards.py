"""Every rule of the static contract has a program that breaks it, and an error that says where."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from chip import errors
from chip.core import Chip
from chip.errors import (
    ChipError,
    DeskewMismatch,
    DeskewOverdue,
    DeskewOverlap,
    EmptyStream,
    HazardError,
    Misaligned,
    OutOfStep,
    Overwritten,
    ProgramError,
    ProgramsTooLarge,
    QueueConflict,
)
from chip.isa import DTYPES, OPS, Op
from chip.isa.mxm import SET
from chip.linker import link
from chip.program import Instruction, Region
from chip.spec import TINY
from chip.wire import pack, unpack
from tests.chip.breaking import BREAKING, E4M3, I8, acc, int8, read, stream, weights
from tests.chip.programs import EMPTY, at, linked, program

HAZARDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, HazardError) and kind is not HazardError
]
CONSTANTS = Region(48, 100, 8, "f32"), Region(52, 500, 40, "f32")  # the latter in both banks
FIELDS = {"constants": CONSTANTS, "maps": ((0,) * 320, (2,) * 320)}


@pytest.mark.parametrize("case", BREAKING)
def test_it_is_named_with_chip_queue_cycle_and_instruction(case):
    kind, queue, cycle, op, placed = BREAKING[case]
    with pytest.raises(HazardError) as caught:
        linked(*placed, **FIELDS)
    error = caught.value
    assert (type(error), error.queue, error.cycle) == (kind, queue, cycle)
    assert error.chip == EMPTY.chip
    assert error.instruction.split()[0] == op
    assert str(error).startswith(f"{kind.rule}: chip 3 queue {queue} cycle {cycle}: {op}")


def test_every_hazard_has_a_program():
    links = {errors.PortBusy, errors.NothingArrives}  # of several chips: see test_board
    broken = {case[0] for case in BREAKING.values()}
    clocks = {OutOfStep, DeskewMismatch, DeskewOverlap, DeskewOverdue}  # see test_clocks
    assert broken | links | clocks == set(HAZARDS)


@pytest.mark.parametrize("case", BREAKING)
def test_the_story_is_what_had_to_do_with_it_oldest_first(case):
    _, queue, cycle, _, placed = BREAKING[case]
    with pytest.raises(HazardError) as caught:
        linked(*placed, **FIELDS)
    lines = {f"{p.queue} cycle {p.cycle}: {p.instruction}" for p in placed}
    assert set(caught.value.story) <= lines
    assert len(caught.value.story) <= 4
    used = [p for p in placed if p.queue == queue and p.cycle < cycle - 4]
    assert caught.value.story or not used


def test_the_story_of_an_empty_stream_tells_who_drove_it_last():
    *_, placed = BREAKING["the last of a run is not driven"]
    with pytest.raises(EmptyStream, match=r"after mem\.r:0 cycle 32: mem\.read address=0 "):
        linked(*placed)


def arguments(op: Op) -> tuple[int, ...]:
    """Operands of an op that are in order: its first type, streams from 0 on, one lane map."""
    kinds = {"dtype": DTYPES.index(op.dtypes[0]) if op.dtypes else 0, "int": 16, "dst": 16}
    return tuple(kinds.get(operand.kind, 0) for operand in op.operands)


def queue_of(op: Op) -> str:
    return "vxm:0" if op.queue == "any" else op.queue if op.queue == "icu" else f"{op.queue}:0"


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.sources])
def test_every_op_that_reads_notices_that_nothing_is_there(name):
    with pytest.raises((EmptyStream, Misaligned)) as caught:
        linked(at(queue_of(OPS[name]), 5, name, *arguments(OPS[name])), maps=((0,) * 16,))
    assert caught.value.instruction.startswith(name)


@pytest.mark.parametrize("name", OPS)
def test_every_op_that_repeats_must_not_run_into_itself_and_others_do_not_repeat(name):
    op = OPS[name]
    once_only = name.startswith("icu.") and name != "icu.ifetch"
    expected = (ProgramError, "does not repeat") if once_only else (QueueConflict, "inner loop")
    if op.queue == "icu":
        return
    with pytest.raises(expected[0], match=expected[1]):
        linked(
            at(queue_of(op), 5, name, *arguments(op), loops=((2, 2, 0), (3, 1, 0))),
            maps=((0,) * 16,),
        )


def test_rules_differ():
    rules = [kind.rule for kind in HAZARDS]
    assert len(set(rules)) == len(rules)


@pytest.mark.parametrize("fewer", [1, 2])
def test_the_unbroken_programs_link(fewer):
    linked(*weights(), *stream(), acc(SET, 0))
    linked(*weights(loops=(2, 1, 8), columns=16, install=202), *stream(203), acc(SET, 0, 227))
    position = TINY.slice_position(3)
    run = (5 - fewer, 1, 1)
    linked(
        read(0, 0, 40, position, loops=(4, 1, 1)), at("mem.w:3", 40, "mem.write", 0, 0, loops=run)
    )


def test_planes_work_side_by_side_in_int8():
    linked(
        *int8(), *int8(plane=1, load=201, install=202),
        *stream(203, format=I8)[:1], *(at(f"mxm.abc:{n}", 203, "mxm.abc", I8, 0) for n in (0, 2)),
        *(acc(SET, 0, 227, f"mxm.acc:{n}", I8) for n in (0, 2)),
    )  # fmt: skip


def test_a_format_that_the_chip_lacks_is_refused():
    with pytest.raises(Misaligned, match="chip groqchip1 has no e4m3, it has i8, f16"):
        linked(*int8(format=E4M3), spec="groqchip1")


@pytest.mark.parametrize("kind", HAZARDS)
def test_hazards_survive_pickling(kind):
    error = kind(3, "mem.r:7", 99, "mem.read address=0 out=1", "detail", ("before",))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert vars(again) == vars(error)


@pytest.mark.parametrize(
    "error", [ProgramError("what", "where"), ProgramError("what"), ProgramsTooLarge("chip 3")]
)
def test_other_errors_survive_pickling(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_the_other_party_is_the_last_line_of_the_story():
    *_, placed = BREAKING["another value than the one named"]
    with pytest.raises(Overwritten, match=r"after mem\.r:5 cycle \d+: mem.read") as caught:
        linked(*placed)
    assert [line.split()[0] for line in caught.value.story] == ["mem.r:0", "mem.r:5"]


@pytest.mark.parametrize("queue", ["mem.r:88", "mem.r:-1", "mem.r:01", "mem.r:²", "mem.q:0", "x"])
def test_a_queue_that_is_not_there_is_refused(queue):
    waiting = replace(EMPTY, queues={queue: (Instruction("icu.nop", (3,)),)})
    with pytest.raises(ProgramError, match="no queue"):
        link(unpack(pack(waiting)))


def test_instructions_that_fill_the_sram_are_refused_unless_they_rest_there_already():
    chip = Chip(0, TINY)
    one, two = (pack(program(at("mem.r:0", 0, "mem.read", n, 0))) for n in range(2))
    chip.load("one", one)
    chip.instructions_at_most = TINY.sram_bytes // TINY.instruction_bytes
    chip.text.instructions = chip.instructions_at_most - 1
    chip.load("same", one)
    with pytest.raises(ProgramsTooLarge):
        chip.load("two", two)


def test_a_program_for_another_chip_is_refused():
    other = replace(EMPTY, spec="groqchip1")
    with pytest.raises(ProgramError, match="is for chip groqchip1"):
        Chip(0, TINY).load("it", pack(other))


def test_launches_need_a_program_and_a_beginning():
    chip = Chip(0, TINY)
    with pytest.raises(ProgramError, match="no program 'it'; it has none"):
        chip.begin("it")
    with pytest.raises(ChipError, match="no launch has begun"):
        chip.run(0, {})
    with pytest.raises(ChipError, match="no launch has begun"):
        chip.finish()


def test_host_data_must_fill_its_region():
    chip, region = Chip(0, TINY), Region(4, 0, 3, "f16")
    for wrong in (np.zeros((2, 320), np.float16), np.zeros((3, 320), np.float32)):
        with pytest.raises(ChipError, match="does not fill"):
            chip.write(region, wrong)
