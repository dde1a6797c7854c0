"""The worked example of ARCHITECTURE.md runs, and its figures are those of the linker."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from chip.assembly import assemble
from chip.core import Chip
from chip.errors import EmptyStream
from chip.isa import STREAM_CODES
from chip.linker import Linked, link
from chip.linker.streams import drive_keys, read_keys
from chip.linker.timeline import timeline
from chip.program import Instruction, Program, Region, fill_queue
from chip.spec import ASSUMED_D_FUNC_CYCLES, EAST
from chip.spec import GROQCHIP1 as SPEC
from chip.wire import pack, unpack

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
Placed = list[tuple[str, int, Instruction]]


def block(name: str) -> list[str]:
    """The lines of a fenced block, below its heading if it has one."""
    (body,) = re.findall(rf"^```lpu {name}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    lines = body.splitlines()
    return lines if lines[0][-1].isdigit() else lines[1:]


def listing(name: str) -> Placed:
    """(queue, cycle, instruction) of a listing, which is assembly text; by cycle."""
    (made,) = assemble("\n".join(block(name))).programs.values()
    return sorted(made.instructions(), key=lambda placed: placed[1])


def program(placed: Placed) -> Program:
    """The program of a listing, as a chip would read it."""
    queues: dict[str, list[tuple[int, Instruction]]] = {}
    for queue, cycle, instruction in placed:
        queues.setdefault(queue, []).append((cycle, instruction))
    filled = {name: fill_queue(queue, name) for name, queue in queues.items()}
    return unpack(pack(Program(0, SPEC.name, 0, filled)))


def ends(placed: Placed, keys_of: object) -> set[tuple[int, int, int, int]]:
    """(stream, cycle, position, diagonal) of the first vector of everything driven or read."""
    found = set()
    for issue in timeline(program(placed), SPEC):
        for stream, keys in keys_of(issue, SPEC):
            if stream < STREAM_CODES:
                diagonal, along = divmod(int(keys[0]), SPEC.positions)
                assert along == SPEC.along(stream // SPEC.streams, issue.position)
                found.add((stream, diagonal + along, issue.position, diagonal))
    return found


def run(placed: Placed, packet: np.ndarray) -> tuple[Linked, Chip, list[np.ndarray]]:
    """Run a program on a chip that holds `a`, row i full of i, and `b`, row i full of 10 * i."""
    chip = Chip(0)
    linked = chip.load("example", pack(program(placed)))
    rows = np.repeat(np.arange(4, dtype=np.uint8)[:, None], SPEC.lanes, axis=1)
    chip.write(Region(3, 0, 4, "u8"), rows)
    chip.write(Region(46, 0, 4, "u8"), 10 * rows)
    chip.begin("example")
    sent: list[np.ndarray] = []
    for segment in range(len(linked.segments)):
        arrivals = {r.issue: packet for r in linked.receives if r.segment == segment}
        sent += chip.run(segment, arrivals).values()
    return linked, chip, sent


ONE, TWO = listing("one"), listing("one") + listing("two")
PACKET = np.full((1, SPEC.lanes), 7, np.uint8)


@pytest.mark.parametrize(("name", "placed"), [("one", ONE), ("two", TWO)])
def test_values_are_driven_and_read_as_the_table_says(name, placed):
    drives, reads = ends(placed, drive_keys), ends(placed, read_keys)
    for line in block(f"{name} values"):
        value = re.split(r"\s{2,}", line)
        _, stream, driven, at, diagonal, read, there = value
        code = int(stream[1:]) + (0 if stream[0] == "E" else SPEC.streams)
        cycle, along, k = map(int, re.fullmatch(r"(\d+) - (\d+) = (-?\d+)", diagonal).groups())
        assert (int(driven), SPEC.along(code // SPEC.streams, int(at))) == (cycle, along)
        assert (code, cycle, int(at), k) in drives
        assert (code, int(read), int(there), k) in reads


def test_the_sum_is_in_slice_5_at_cycle_42():
    linked, chip, _ = run(ONE, PACKET)
    assert chip.read(Region(5, 0, 4, "u8")).T.tolist() == [[0, 11, 22, 33]] * SPEC.lanes
    (end,) = re.findall(r"the program ends at cycle (\d+)\.", TEXT.replace("\n", " "))
    assert linked.end_cycle == chip.finish().end_cycle == int(end)


def test_the_packet_cuts_the_program_as_the_table_says():
    linked, chip, sent = run(TWO, PACKET)
    steps = [sum(len(part.nodes) for part in segment) for segment in linked.segments]
    rows = zip(range(len(steps)), steps, linked.segment_end_cycles, strict=True)
    assert [tuple(map(int, line.split())) for line in block("two segments")] == list(rows)
    assert [vector.tolist() for vector in sent] == [PACKET.tolist()]  # the first sum is 0
    assert chip.finish().segment_end_cycles == linked.segment_end_cycles


def test_positions_are_those_of_the_text():
    assert SPEC.positions == 95 and SPEC.vxm_position == 47
    first_and_last = [SPEC.slice_position(i) for i in (0, 43, 44, 87)]
    assert first_and_last == [48, 91, 46, 3]
    assert SPEC.edge_position("c2c", EAST) == 94


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_without_one_of_its_producers_the_first_program_is_refused(missing):
    with pytest.raises(EmptyStream):
        link(program(ONE[:missing] + ONE[missing + 1 :]))


def test_every_assumption_is_listed():
    delays = dict(line.split() for line in block("delays"))
    assert {name: int(cycles) for name, cycles in delays.items()} == dict(ASSUMED_D_FUNC_CYCLES)
    for assumption in SPEC.assumptions:
        assert f"- {assumption}\n" in TEXT or f"- `{assumption}`" in TEXT, assumption


def test_the_picture_is_up_to_date():
    drawn = runpy.run_path(str(ROOT / "scripts" / "draw_chip.py"))["picture"]()
    assert (ROOT / "images" / "chip.svg").read_text(encoding="utf-8") == drawn
