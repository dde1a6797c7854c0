"""Small programs by hand, and one claim about them: linker and naive interpreter agree."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from chip.core import Chip, Launch
from chip.linker import Linked, Transfer, link
from chip.program import ONCE, Instruction, Program, fill_queue
from chip.schedule import Chain, Schedule
from chip.spec import TINY
from chip.wire import pack, unpack
from tests.chip.naive import Packets, interpret

Bytes = npt.NDArray[np.uint8]
EMPTY = Program(chip=3, spec="tiny", start_cycle=0, queues={})
BLOCK = 4  # slices that share an array in `Sram`


@dataclass(frozen=True)
class At:
    """One instruction on a queue at a cycle."""

    queue: str
    cycle: int
    instruction: Instruction


def at(queue: str, cycle: int, op: str, *args: int, loops: Any = ONCE, names: Any = ()) -> At:
    """`loops` is (n, interval, step), or two of them: outer, inner."""
    both = loops if isinstance(loops[0], tuple) else (ONCE, loops)
    return At(queue, cycle, Instruction(op, args, both, names))


def program(*placed: At, **fields: Any) -> Program:
    queues: dict[str, list[tuple[int, Instruction]]] = {}
    for one in placed:
        queues.setdefault(one.queue, []).append((one.cycle, one.instruction))
    filled = {name: fill_queue(queue, name) for name, queue in queues.items()}
    return replace(EMPTY, queues=filled, **fields)


def passes(*cycles_of: tuple[int, int]) -> int:
    """Cycle in which what a slice reads, from a cycle on, passes a position: (slice, position)."""
    index, position = cycles_of
    return TINY.d_func("mem.read") + abs(position - TINY.slice_position(index))


def reads(
    index: int, width: int, code: int, row: int, arrival: int, position: int, loops: tuple
) -> list[At]:
    """Reads of neighbouring slices that pass a position together."""
    return [
        at(f"mem.r:{i}", arrival - passes(i, position), "mem.read", row, code + i - index,
           loops=loops)
        for i in range(index, index + width)
    ]  # fmt: skip


def writes(
    index: int, width: int, code: int, row: int, cycle: int, position: int, loops: tuple
) -> list[At]:
    """Writes into neighbouring slices of what is driven at a position from a cycle on."""
    away = {i: abs(position - TINY.slice_position(i)) for i in range(index, index + width)}
    return [
        at(f"mem.w:{i}", cycle + away[i], "mem.write", row, code + i - index, loops=loops)
        for i in away
    ]


def scheduled(*chains: Chain, **fields: Any) -> Program:
    schedule = Schedule(TINY)
    for chain in chains:
        schedule.place(chain)
    return schedule.program(0, replace(EMPTY, **fields))


def linked(*placed: At, **fields: Any) -> Linked:
    """What the linker makes of instructions that have been through the wire format."""
    return link(unpack(pack(program(*placed, **fields))))


@cache
def numbers() -> Bytes:
    """A whole SRAM of bytes [slices, words, lanes] that are finite as fp16 in any slice pair."""
    rng = np.random.default_rng(1)
    shape = (TINY.slices // 2, TINY.slice_words, TINY.lanes)
    halves = rng.standard_normal(shape, np.float32).astype("<f2")
    planes = halves.view(np.uint8).reshape(*shape, 2)
    return np.ascontiguousarray(planes.transpose(0, 3, 1, 2)).reshape(TINY.slices, *shape[1:])


def fill(chip: Chip, image: Bytes, what: Program) -> set[int]:
    """Put an image into the slices a program uses; returns the blocks of slices filled."""
    queues = [name.partition(":") for name in what.queues]
    blocks = {int(unit) // BLOCK for family, _, unit in queues if family.startswith("mem")}
    for block in blocks:
        planes = image[BLOCK * block : BLOCK * (block + 1)]
        chip.sram.group(BLOCK * block)[:] = planes.transpose(1, 2, 0)
    return blocks


def packets_for(ready: Linked) -> dict[int, Bytes]:
    """Something for every receive of a launch."""
    rng = np.random.default_rng(2)
    return {
        receive.issue: rng.integers(0, 60, (len(receive.cycles), TINY.lanes), np.uint8)
        for receive in ready.receives
    }


def launch(chip: Chip, ready: Linked, packets: dict[int, Bytes]) -> tuple[Launch, dict[int, Bytes]]:
    """Run the program "it" of a chip; what it reports and what it sends."""
    chip.begin("it")
    sent: dict[int, Bytes] = {}
    for segment in range(len(ready.segments)):
        mine = {r.issue: packets[r.issue] for r in ready.receives if r.segment == segment}
        leaving = chip.run(segment, mine)
        assert set(leaving) == {s.issue for s in ready.sends if s.segment == segment}
        sent |= leaving
    return chip.finish(), sent


def on_links(transfers: tuple[Transfer, ...], packets: dict[int, Bytes]) -> Packets:
    """Packets by (port, cycle)."""
    return {
        (one.port, cycle): vector
        for one in transfers
        for cycle, vector in zip(one.cycles, packets[one.issue], strict=True)
    }


def agree(what: Program, image: Bytes | None = None, launches: int = 1) -> Bytes:
    """Assert that both machines leave equal SRAM, packets and cycles; returns the SRAM."""
    image = numbers() if image is None else image
    chip = Chip(what.chip, TINY)
    blocks = fill(chip, image, what)
    ready = chip.load("it", pack(what))
    packets = packets_for(ready)
    for _ in range(launches):
        ours = interpret(pack(what), image, on_links(ready.receives, packets))
        report, sent = launch(chip, ready, packets)
        assert report.end_cycle == ours.end_cycle
        assert max(report.segment_end_cycles) <= ours.end_cycle
        for block in blocks:
            after = ours.sram[BLOCK * block : BLOCK * (block + 1)].transpose(1, 2, 0)
            wrong = np.argwhere(chip.sram.group(BLOCK * block) != after)
            assert not len(wrong), f"block {block}: (word, lane, slice) {wrong[0]} and others"
        leaving = {key: vector.tobytes() for key, vector in on_links(ready.sends, sent).items()}
        assert leaving == {key: vector.tobytes() for key, vector in ours.sent.items()}
        image = ours.sram
    return image
