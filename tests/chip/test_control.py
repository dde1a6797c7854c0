"""Sync, Notify, Config and Ifetch: naive interpreter and linker agree; what goes wrong is named."""

import numpy as np
import pytest

from chip.core import Chip
from chip.errors import ChipError, LanesOff, NeverNotified
from chip.isa import DTYPES, FORMATS, NO_STREAM
from chip.linker import link
from chip.program import Instruction, Program, fetch_image
from chip.saturate import fetch, published_queues
from chip.spec import EAST, TINY
from chip.wire import pack
from tests.chip.naive import interpret
from tests.chip.programs import (
    At,
    agree,
    at,
    fill,
    launch,
    linked,
    numbers,
    program,
    reads,
    writes,
)

VXM, ALU, READ = TINY.vxm_position, TINY.d_func("vxm.alu"), TINY.d_func("mem.read")
MXM, SXM = TINY.edge_position("mxm", EAST), TINY.edge_position("sxm", EAST)
BARRIER = TINY.barrier_cycles
F16, F32 = FORMATS.index("f16"), DTYPES.index("f32")


# --- Sync and Notify ------------------------------------------------------------------------
def cycles(what: Program, op: str) -> list[int]:
    return sorted(cycle for _, cycle, one in what.instructions() if one.op == op)


def test_a_notify_releases_all_parked_queues_a_barrier_later():
    copy = [
        *reads(44, 4, 0, 0, 90, VXM, (4, 1, 1)),
        at("vxm:0", 90, "vxm.copy", F32, 0, 8, loops=(4, 1, 0)),
    ]
    copy += writes(8, 4, 8, 600, 90 + ALU, VXM, (4, 1, 1))
    queues = sorted({one.queue for one in copy})
    what = program(
        *(at(queue, 0, "icu.sync") for queue in queues), *copy, at("sxm:0", 17, "icu.notify")
    )
    agree(what)
    assert BARRIER == 35
    assert cycles(what, "vxm.copy") == [17 + BARRIER + 90 - 1]


def test_a_queue_that_comes_late_waits_for_the_next_notify():
    placed = [
        at("mem.r:3", 0, "icu.sync"),
        at("mem.r:3", 1, "mem.read", 0, 0),
        at("mem.r:4", 6, "icu.sync"),
        at("mem.r:4", 7, "mem.read", 0, 1),
        at("sxm:0", 5, "icu.notify"),
        at("sxm:0", 60, "icu.notify"),
    ]
    what = program(*placed)
    assert cycles(what, "mem.read") == [5 + BARRIER, 60 + BARRIER]
    agree(what)


def test_a_sync_in_the_cycle_of_the_notify_is_released_by_it():
    what = program(
        at("mem.r:3", 5, "icu.sync"),
        at("mem.r:3", 6, "mem.read", 0, 0),
        at("sxm:0", 5, "icu.notify"),
    )
    assert cycles(what, "mem.read") == [5 + BARRIER]


def test_barriers_follow_each_other():
    """Two queues release each other in turn."""
    sync, notify = Instruction("icu.sync", ()), Instruction("icu.notify", ())
    read = Instruction("mem.read", (0, 0))
    queues = {"mem.r:0": (sync, notify, sync, read), "mem.r:1": (notify, sync, notify, read)}
    what = Program(3, "tiny", 0, queues)
    assert cycles(what, "icu.notify") == [0, BARRIER, 2 * BARRIER]
    assert cycles(what, "mem.read") == [2 * BARRIER + 1, 3 * BARRIER]
    agree(what)


@pytest.mark.parametrize("notify", [[], [at("sxm:0", 3, "icu.notify")]])
def test_a_sync_that_is_never_released_is_named(notify):
    with pytest.raises(NeverNotified, match=r"chip 3 queue mem\.r:3 cycle 7: icu\.sync"):
        linked(at("mem.r:3", 7, "icu.sync"), *notify)


# --- Config ---------------------------------------------------------------------------------
def narrow(lanes: int, *placed: At) -> list[At]:
    """The same, all of its queues configured first."""
    return [
        *(at(queue, 0, "icu.config", lanes) for queue in sorted({p.queue for p in placed})),
        *placed,
    ]


@pytest.mark.parametrize("lanes", [16, 160, 304, 320])
def test_words_keep_the_lanes_that_are_powered_down(lanes):
    copy = [
        *reads(44, 4, 0, 0, 90, VXM, (4, 1, 1)),
        at("vxm:0", 90, "vxm.add", F32, 0, 0, 0, 8, loops=(4, 1, 0)),
    ]
    copy += writes(8, 4, 8, 600, 90 + ALU, VXM, (4, 1, 1))
    after = agree(program(*narrow(lanes, *copy)))
    assert (after[8:12, 600:604, lanes:] == numbers()[8:12, 600:604, lanes:]).all()
    assert (after[8:12, 600:604, :lanes] != numbers()[8:12, 600:604, :lanes]).any()


def test_sums_are_of_the_powered_lanes():
    load = 200
    placed = reads(16, 16, 16, 100, load, MXM, (2, 1, 1)) + reads(
        4, 2, 0, 0, load + 5, MXM, (3, 2, 1)
    )
    done = load + 5 + TINY.d_func("mxm.abc")
    placed += [
        at("mxm.lw:0", load, "mxm.lw", F16, 0, 16, loops=(2, 1, 8)),
        at("mxm.iw:0", load + 4, "mxm.iw", F16, 0, 16),
        at("mxm.abc:0", load + 5, "mxm.abc", F16, 0, loops=(3, 2, 0)),
        at("mxm.acc:0", done, "mxm.acc", F16, 0, 0, 32, loops=(3, 2, 1)),
        *writes(8, 4, 32, 600, done + TINY.d_func("mxm.acc"), MXM, (3, 2, 1)),
    ]
    after = agree(program(*narrow(48, *placed)))
    halves = [
        np.ascontiguousarray(numbers()[i : i + 2, w].T).view("<f2")[:48, 0].astype(float)
        for i, w in ((4, 0), (16, 100))
    ]
    total = np.ascontiguousarray(after[8:12, 600].T).view("<f4")[0, 0]
    assert total == np.float32(halves[0] @ halves[1])


@pytest.mark.parametrize("op", ["shift_up", "shift_down", "distribute", "permute", "select"])
def test_lanes_move_among_the_powered_ones(op):
    maps = {
        "distribute": tuple(range(15, -1, -1)),
        "permute": (*range(63, -1, -1), *range(64, 320)),
        "select": (0, 1) * 160,
    }
    second = [0] if op == "select" else []
    placed = reads(4, 4, 0, 0, 100, SXM, (3, 2, 1))
    number = 0 if op in maps else 5
    placed.append(at("sxm:5", 100, f"sxm.{op}", F32, number, 0, *second, 32, loops=(3, 2, 0)))
    timing = TINY.d_func("sxm.shift" if "shift" in op else f"sxm.{op}")
    placed += writes(8, 4, 32, 600, 100 + timing, SXM, (3, 2, 1))
    agree(program(*narrow(64, *placed), maps=(maps.get(op, (0,)),)))


def test_packets_and_indirect_accesses_have_the_powered_lanes(addresses):
    image = addresses.copy()
    image[8, :, 160:] = 250  # out of the region, if anybody looked
    source, target = TINY.slice_position(20), TINY.slice_position(24)
    placed = reads(8, 2, 0, 0, 60, source, (4, 3, 1))
    placed.append(at("mem.r:20", 60, "mem.gather", 512, 64, 0, 6, loops=(4, 3, 0)))
    port = TINY.edge_position("c2c", EAST)
    send = 60 + TINY.d_func("mem.gather") + port - source
    placed.append(at("c2c.s:0", send, "c2c.send", 6, loops=(4, 3, 0)))
    placed += reads(12, 1, 7, 0, 60 + target - source, target, (4, 3, 1))
    placed.append(
        at("mem.w:24", 60 + target - source, "mem.scatter", 100, 64, 0, 7, loops=(4, 3, 0))
    )
    agree(program(*narrow(160, *placed)), image)


NEAR = reads(4, 1, 0, 0, 100, SXM, (1, 1, 0))
WIDE_READER = {
    "a write of all lanes": [
        at("mem.r:0", 0, "icu.config", 160),
        *reads(0, 1, 0, 0, 60, TINY.slice_position(3), (1, 1, 0)),
        at("mem.w:3", 60, "mem.write", 600, 0),
    ],
    "an ALU with more lanes than the one before": [
        at("vxm:0", 0, "icu.config", 16),
        *reads(44, 1, 0, 0, 60, VXM, (1, 1, 0)),
        at("vxm:0", 60, "vxm.copy", 0, 0, NO_STREAM),
        at("vxm:1", 0, "icu.config", 32),
        at("vxm:1", 60 + ALU, "vxm.copy", 0, 64, 8),
    ],
    "a permutation from beyond": narrow(32, *NEAR, at("sxm:0", 100, "sxm.permute", 0, 0, 0, 32)),
    "an Ifetch of fewer lanes": narrow(32, *NEAR, at("sxm:0", 100, "icu.ifetch", 0)),
}


@pytest.mark.parametrize("case", WIDE_READER)
def test_reading_lanes_that_are_off_is_named(case):
    with pytest.raises(LanesOff, match="lanes"):
        linked(*WIDE_READER[case], maps=(tuple(range(319, -1, -1)),))


@pytest.mark.parametrize("lanes", [0, 8, 336])
def test_config_takes_whole_superlanes(lanes):
    with pytest.raises(ChipError, match="takes 16 to 320 lanes"):
        linked(at("mem.r:0", 3, "icu.config", lanes))


# --- Ifetch ---------------------------------------------------------------------------------
def fetching() -> Program:
    """A queue that fetches, from slice 4, what it does next."""
    placed = reads(4, 1, 0, 9, 60, TINY.slice_position(12), (1, 1, 0))
    placed += [
        at("mem.w:12", 60, "icu.ifetch", 0),
        *reads(5, 1, 1, 0, 90, TINY.slice_position(12), (3, 1, 1)),
        at("mem.w:12", 90, "mem.write", 600, 1, loops=(3, 1, 1)),
    ]
    return program(*placed)


def test_a_queue_fetches_its_instructions_from_sram():
    what = fetching()
    at_fetch = next(n for n, one in enumerate(what.queues["mem.w:12"]) if one.op == "icu.ifetch")
    image = numbers().copy()
    image[4, 9] = fetch_image(what.queues["mem.w:12"], at_fetch, TINY)[0]
    assert image[4, 9, :32].any() and not image[4, 9, 32:].any()  # a NOP and the write
    agree(what, image)


def test_other_instructions_than_the_linked_ones_are_an_error():
    what = fetching()
    chip = Chip(what.chip, TINY)
    fill(chip, numbers(), what)
    ready = chip.load("it", pack(what))
    with pytest.raises(ChipError, match="Ifetch: vector 0 has byte"):
        launch(chip, ready, {})
    with pytest.raises(AssertionError):
        interpret(pack(what), numbers())


def test_all_queues_fetch_in_one_cycle_and_no_more():
    """144 instructions of 16 B: what the published 2,304 B per cycle allow."""
    queues = published_queues(TINY)
    assert len(queues) == 144
    link(fetch(queues, TINY))
    with pytest.raises(ChipError, match="145 instructions in a cycle, 144 are fetched"):
        link(fetch([*queues, "c2c.s:0"], TINY))
