"""Text, programs and bytes are one thing: each comes back from the others, to the bit."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chip.assembly import Check, Fill, Image, assemble, disassemble, pack_image, unpack_image
from chip.assembly.image import Network
from chip.assembly.listing import line
from chip.board import Cable
from chip.errors import ProgramError
from chip.isa import NUMPY_TYPES, OPS
from chip.program import ONCE, Instruction, Program, Region, fill_queue
from chip.spec import TINY
from chip.wire import pack, unpack
from tests.chip.chaos import Chaos
from tests.chip.programs import EMPTY
from tests.chip.test_wire import QUEUES, arguments, programs

ROOT = Path(__file__).resolve().parents[3]
TEXTS = sorted((ROOT / "scripts" / "asm").glob("*.lpuasm"))


def again(image: Image) -> Image:
    return assemble(disassemble(image), "again", lambda *_: image.cables)


@settings(max_examples=40, deadline=None)
@given(programs())
def test_any_program_survives_text_and_bytes(what):
    image = Image({what.chip: what})
    assert again(image).programs == {what.chip: what}
    assert unpack(pack(again(image).programs[what.chip])) == what
    assert disassemble(unpack_image(pack_image(image))) == disassemble(image)
    assert unpack_image(pack(what)) == image  # a bare program is an image, too


@pytest.mark.parametrize("name", OPS)
def test_every_op_survives_text_with_any_operands(name):
    """Nothing in the assembler knows an op: a new one is tested by existing."""
    op = OPS[name]
    size = len(op.sources) + bool(op.timing)
    loop = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(-9, 9))

    @settings(max_examples=8, deadline=None)
    @given(
        st.tuples(*(arguments(op, operand.kind) for operand in op.operands)),
        st.tuples(loop, loop),
        st.sampled_from([(), tuple(range(7, 7 + size))]),
        st.integers(0, 99),
    )
    def survives(args, loops, names, cycle):
        if op.control and not op.sources:
            loops = (ONCE, ONCE)
        made = Instruction(name, args, loops, names if any(names) else ())
        queue = QUEUES[op.queue]
        what = Program(0, "tiny", 0, {queue: fill_queue([(cycle, made)], queue)}, ((0,), (1,)))
        assert again(Image({0: what})).programs == {0: what}

    survives()


@pytest.mark.parametrize("seed", range(12))
def test_programs_that_link_survive_text(seed):
    what = Chaos(seed).program()
    assert again(Image({what.chip: what})).programs[what.chip] == what


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from(sorted(NUMPY_TYPES)))
def test_data_and_expectations_survive_to_the_bit(data, dtype):
    kind = NUMPY_TYPES[dtype]
    if dtype in ("w16", "b9", "b16"):
        return
    size = TINY.lanes * kind.itemsize
    head = data.draw(st.binary(max_size=40))
    rows = [head[: len(head) // kind.itemsize * kind.itemsize].ljust(size, b"\0")]
    rows += [data.draw(st.sampled_from([rows[0], bytes(size), b"\x01" * size]))]
    values = np.frombuffer(b"".join(rows), kind).reshape(2, TINY.lanes)
    region = Region(4, 3, 2, dtype)
    image = Image(
        programs={5: Program(5, "tiny", 0, {}, (), {"a b": region}, {"out": region}, (region,))},
        network=Network("ring:8", "ship", ("latency_cycles=300",)),
        cables=(Cable(5, 0, 6, 1, 270, Fraction(59, 2)),),
        fills=(Fill(5, region, values),),
        checks=(Check(5, "out", values, 0.25),),
    )
    for other in (again(image), unpack_image(pack_image(image))):
        assert pack_image(other) == pack_image(image)
        assert other.network == image.network and other.cables == image.cables


def test_explicit_cables_survive():
    cables = (Cable(0, 1, 3, 2, 217, Fraction(27)), Cable(0, 2, 4, 0, 9, Fraction(7, 3)))
    image = Image({0: EMPTY}, cables=cables)
    assert assemble(disassemble(image)).cables == cables


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_the_worked_programs_survive(path):
    from cluster.machines.execution import cables_of

    image = assemble(path.read_text(), str(path), cables_of)
    twice = assemble(disassemble(image), "again", cables_of)
    assert pack_image(twice) == pack_image(image) == pack_image(unpack_image(pack_image(image)))


def test_what_a_line_looks_like():
    add = Instruction("vxm.add", (1, 32, 128, 0x3F000000, 255), ((1, 1, 0), (4, 2, 0)), (3, 0, 9))
    assert line(add) == "vxm.add f16 a=W0%3 b=imm imm=0.5 out=none%9 x4@2+0"
    assert line(Instruction("icu.nop", (9,))) == "icu.nop count=9"


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 11), st.lists(st.tuples(st.integers(0), st.integers(1, 255)), max_size=6))
def test_flipped_bytes_are_an_image_or_one_clear_error(seed, flips):
    region = Region(4, 3, 1, "u8")
    fill = Fill(3, region, np.ones((1, TINY.lanes), np.uint8))
    data = bytearray(pack_image(Image({3: Chaos(seed).program()}, fills=(fill,))))
    for place, bits in flips:
        data[place % len(data)] ^= bits
    try:
        unpack_image(bytes(data))
    except ProgramError as error:
        assert str(error) and "\n" not in str(error)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x80", b"\x93\x01", pack(EMPTY)[:9]])
def test_other_bytes_are_refused(data):
    with pytest.raises(ProgramError):
        unpack_image(data)
