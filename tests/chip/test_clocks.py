"""A program starts on an epoch, stalls as a whole to re-align, and is refused if it does not."""

from dataclasses import replace
from fractions import Fraction

import pytest

from chip.board import Cable, PacketLost, facts, wire
from chip.errors import (
    DeskewMismatch,
    DeskewOverdue,
    DeskewOverlap,
    NothingArrives,
    OutOfStep,
)
from chip.linker import Linked, link
from chip.linker.reuse import Linker
from chip.program import Instruction, Program
from chip.spec import TINY
from chip.wire import pack, unpack, with_header
from tests.chip.naive import Misread, interpret
from tests.chip.programs import At, agree, at, numbers, program

PERIOD, BARRIER = TINY.hac_period_cycles, TINY.barrier_cycles
DESKEW = Instruction("icu.deskew", ())
ROOT = (DESKEW, Instruction("c2c.transmit", (0b101,)), DESKEW, Instruction("icu.nop", (BARRIER,)))
CHILD = (
    Instruction("c2c.await", (1, PERIOD + 217)),
    DESKEW,
    Instruction("icu.nop", (BARRIER,)),
)
START = 2 * PERIOD + BARRIER


def copy(cycle: int, source: int = 3, target: int = 5, stream: int = 0) -> list[At]:
    """A vector from slice to slice, eastward, its read at a cycle."""
    there = TINY.d_func("mem.read") + target - source
    return [
        at(f"mem.r:{source}", cycle, "mem.read", 0, stream),
        at(f"mem.w:{target}", cycle + there, "mem.write", 9, stream),
    ]


def stall(cycle: int, cycles: int, *queues: str) -> list[At]:
    return [at(queue, cycle, "icu.runtime_deskew", cycles) for queue in queues]


def checked(*placed: At, **fields) -> Linked:
    return link(unpack(pack(program(*placed, **fields))))


BOTH = ("mem.r:3", "mem.w:5")


@pytest.mark.parametrize("startup", [ROOT, CHILD])
def test_a_start_sequence_ends_where_the_program_starts(startup):
    what = program(*copy(0), start_cycle=START, startup=startup)
    agree(what)
    found = link(what).startup
    assert found.aligned_cycle == 2 * PERIOD
    assert found.transmits == (((0, PERIOD), (2, PERIOD)) if startup is ROOT else ())
    assert found.awaits == (() if startup is ROOT else ((1, PERIOD + 217),))


@pytest.mark.parametrize("wait", [0, 1, 100, PERIOD - 1, PERIOD, 5 * PERIOD + 3])
def test_a_later_deskew_aligns_a_later_start(wait):
    """The naive interpreter steps the counter; the linker divides by the period."""
    startup = (*ROOT[:2], Instruction("icu.nop", (wait + 1,)), *ROOT[2:])
    start = ((PERIOD + wait + 2) // PERIOD + 1) * PERIOD + BARRIER
    agree(program(*copy(0), start_cycle=start, startup=startup))


@pytest.mark.parametrize("off", [-1, 1])
def test_another_start_cycle_is_refused_by_both_machines(off):
    what = program(*copy(0), start_cycle=START + off, startup=ROOT)
    with pytest.raises(OutOfStep, match=f"starts at {START + off}"):
        link(what)
    with pytest.raises(Misread):
        interpret(pack(what), numbers())


@pytest.mark.parametrize(
    ("startup", "words"),
    [
        ((Instruction("icu.nop", (START,)),), "Deskew ends at cycle -1"),
        ((DESKEW, DESKEW, Instruction("icu.nop", (BARRIER - 1,))), "released 35 cycles after"),
        ((DESKEW, Instruction("icu.nop", (1,)), ROOT[1], *ROOT[2:]), "epoch boundary"),
        ((ROOT[1], *ROOT), "epoch boundary"),
        ((DESKEW, Instruction("c2c.await", (1, 251)), *ROOT[2:]), "before the chip listens"),
        ((*ROOT[:2], Instruction("icu.runtime_deskew", (4,)), *ROOT[2:]), "no place there"),
    ],
)
def test_a_sequence_out_of_step_is_refused(startup, words):
    with pytest.raises(OutOfStep, match=words) as caught:
        checked(*copy(0), start_cycle=START, startup=startup)
    assert (caught.value.chip, caught.value.queue) == (3, "icu")


def test_programs_with_other_starts_share_a_link_but_not_its_check():
    linker, what = Linker(), program(*copy(0), start_cycle=START, startup=ROOT)
    first = linker(pack(what))
    moved = linker(with_header(pack(what), 8, START, CHILD))
    assert moved.segments is first.segments and moved.startup.awaits
    with pytest.raises(OutOfStep):
        linker(with_header(pack(what), 8, START + PERIOD, CHILD))


# --- Runtime deskew --------------------------------------------------------------------------
def test_all_queues_stall_and_the_second_half_comes_later():
    placed = [*copy(0), *stall(20, 6, *BOTH), *copy(26)]
    agree(program(*placed))
    found = checked(*placed)
    assert found.deskews == ((20, 6),) and found.reach_cycles == 7
    assert found.end_cycle == checked(*copy(0), *copy(26)).end_cycle


@pytest.mark.parametrize("other", [[], stall(20, 5, "mem.w:5"), stall(21, 6, "mem.w:5")])
def test_a_deskew_that_not_all_queues_hold_is_refused(other):
    with pytest.raises(DeskewMismatch, match="do not stall alike") as caught:
        checked(*copy(0), *stall(20, 6, "mem.r:3"), *other)
    assert (caught.value.queue, caught.value.cycle) == ("mem.w:5", 20)


def test_nothing_is_under_way_in_a_deskew():
    with pytest.raises(DeskewOverlap, match="until cycle 5, the chip deskews at 4") as caught:
        checked(copy(0)[0], *stall(4, 2, "mem.r:3"))
    assert caught.value.queue == "mem.r:3"
    checked(copy(0)[0], *stall(5, 2, "mem.r:3"))


def test_a_value_on_a_stream_does_not_survive_a_deskew():
    """Driven before, read after: how far it got depends on how long the stall really was."""
    queues = ("mem.r:3", "mem.w:40")
    with pytest.raises(DeskewOverlap, match="driven before the deskew at cycle 10") as caught:
        checked(*copy(0, target=40), *stall(10, 4, *queues))
    assert caught.value.queue == "mem.w:40"


def test_a_value_that_replaces_an_older_one_may_be_read():
    """Both are on one diagonal; what the reader gets was driven after the deskew."""
    queues = ("mem.r:0", "mem.r:20", "mem.w:40")
    away = TINY.d_func("mem.read")
    placed = [
        at("mem.r:0", 0, "mem.read", 0, 0),
        at("mem.r:20", 20, "mem.read", 0, 0),
        at("mem.w:40", 20 + away + 20, "mem.write", 9, 0),
        *stall(10, 4, *queues),
    ]
    agree(program(*placed))
    with pytest.raises(DeskewOverlap, match="driven before"):
        checked(placed[0], *placed[2:], at("mem.r:20", 60, "mem.read", 0, 0))


def test_an_instruction_too_long_after_the_last_deskew_is_refused():
    placed = [*copy(0), *stall(50, 6, *BOTH), *copy(100)]
    late = 107 - 56
    checked(*placed, deskew_interval_cycles=late)
    with pytest.raises(DeskewOverdue, match=f"{late} cycles after the last deskew") as caught:
        checked(*placed, deskew_interval_cycles=late - 1)
    assert (caught.value.queue, caught.value.cycle) == ("mem.w:5", 107)


def test_the_interval_counts_from_the_deskew_of_the_start():
    what = program(*copy(0), start_cycle=START, startup=ROOT, deskew_interval_cycles=BARRIER + 7)
    link(what)
    with pytest.raises(DeskewOverdue, match=f"{BARRIER + 7} cycles after its Deskew"):
        link(replace(what, deskew_interval_cycles=BARRIER + 6))
    with pytest.raises(DeskewOverdue):  # also when only the start is another
        longer = (*ROOT[:-1], Instruction("icu.nop", (BARRIER + 1,)))
        Linker()(with_header(pack(what), 3, START + 1, longer))


# --- between chips ---------------------------------------------------------------------------
def board(child: tuple[Instruction, ...], start: int = START) -> dict[int, Program]:
    one = (DESKEW, Instruction("c2c.transmit", (1,)), DESKEW, ROOT[3])
    return {
        0: program(*copy(0), chip=0, start_cycle=START, startup=one),
        1: program(*copy(0), chip=1, start_cycle=start, startup=child),
    }


def wired(programs: dict[int, Program], hac: int = 217) -> None:
    cable = Cable(0, 0, 1, 1, 270, Fraction(27), hac)
    wire({chip: facts(link(p)) for chip, p in programs.items()}, (cable,))


def test_a_start_is_heard_one_link_latency_later():
    wired(board(CHILD))


@pytest.mark.parametrize(
    ("programs", "hac", "error"),
    [
        (board(CHILD), 218, NothingArrives),
        (board((DESKEW, *CHILD[1:])), 217, PacketLost),
        (board((Instruction("c2c.await", (3, PERIOD + 217)), *CHILD[1:])), 217, NothingArrives),
    ],
)
def test_a_start_that_comes_elsewhere_or_not_at_all_is_refused(programs, hac, error):
    with pytest.raises(error) as caught:
        wired(programs, hac)
    assert caught.value.queue == "icu"
