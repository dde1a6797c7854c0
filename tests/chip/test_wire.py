"""The wire format: programs survive it, equal programs are equal bytes, broken bytes are named."""

import time
from dataclasses import replace

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chip.errors import ChipError, ProgramError
from chip.isa import DTYPES, FORMATS, NO_STREAM, OPS, STREAM_CODES, Op
from chip.linker import link
from chip.linker.reuse import Linker
from chip.program import ONCE, Instruction, Program, Region
from chip.spec import TINY
from chip.wire import MAX_ISSUES, pack, unpack
from tests.chip.chaos import Chaos
from tests.chip.programs import EMPTY, at, program

SMALL = st.integers(0, 1000)
LIMITS = {
    "imm": 2**32 - 1,
    "map": 1,
    "format": len(FORMATS) - 1,
    "plane": 1,
    "in": STREAM_CODES - 1,
    "out": STREAM_CODES - 1,
    "src": 128,
    "dst": NO_STREAM,
}
QUEUES = {"any": "vxm:15"} | {op.queue: f"{op.queue}:1" for op in OPS.values() if op.queue != "any"}


STARTUP = (
    Instruction("icu.deskew", ()),
    Instruction("icu.nop", (2**39,)),
    Instruction("c2c.transmit", (0b1010,)),
    Instruction("c2c.await", (3, 469)),
)


def arguments(op: Op, kind: str) -> st.SearchStrategy[int]:
    if kind == "dtype":
        return st.sampled_from([DTYPES.index(name) for name in op.dtypes])
    return st.integers(0, LIMITS.get(kind, 1000))


@st.composite
def instructions(draw) -> tuple[str, Instruction]:
    op = OPS[draw(st.sampled_from(sorted(OPS)))]
    args = tuple(draw(arguments(op, o.kind)) for o in op.operands)
    loop = st.tuples(st.integers(1, 50), st.integers(1, 50), st.integers(-50, 50))
    loops = (ONCE, ONCE) if op.control and not op.sources else (draw(loop), draw(loop))
    size = len(op.sources) + bool(op.timing)
    names = draw(st.sampled_from([(), tuple(range(1, size + 1))]))
    return QUEUES[op.queue], Instruction(op.name, args, loops, names)


@st.composite
def regions(draw) -> Region:
    dtype = draw(st.sampled_from(sorted({*DTYPES, *FORMATS})))
    layout = "columns" if dtype in FORMATS and draw(st.booleans()) else "rows"
    index = 4 * draw(st.integers(0, (TINY.slices - 16) // 4))
    return Region(index, draw(st.integers(0, 20)), draw(SMALL), dtype, layout)


@st.composite
def programs(draw) -> Program:
    queues: dict[str, tuple[Instruction, ...]] = {}
    for queue, instruction in draw(st.lists(instructions(), max_size=12)):
        queues[queue] = (*queues.get(queue, ()), instruction)
    named = st.dictionaries(st.sampled_from("abcdé"), regions(), max_size=3)
    return Program(
        chip=draw(SMALL),
        spec="tiny",
        start_cycle=draw(st.integers(0, 2**40 - 1)),
        queues=queues,
        maps=tuple(draw(st.lists(st.tuples(SMALL, SMALL), min_size=2, max_size=3))),
        inputs=draw(named),
        outputs=draw(named),
        constants=tuple(draw(st.lists(regions(), max_size=3))),
        startup=tuple(draw(st.lists(st.sampled_from(STARTUP), max_size=4))),
        deskew_interval_cycles=draw(SMALL),
    )


@settings(max_examples=60, deadline=None)
@given(programs())
def test_a_program_survives_the_wire(what):
    again = unpack(pack(what))
    assert again == what
    assert pack(again) == pack(what)


@settings(max_examples=30, deadline=None)
@given(programs())
def test_equal_programs_are_equal_bytes(what):
    turned = replace(
        what,
        queues=dict(reversed(what.queues.items())),
        inputs=dict(reversed(what.inputs.items())),
    )
    assert turned == what
    assert pack(turned) == pack(what)


def accepted(data: bytes) -> bool:
    """Whether bytes are a program; anything but ChipError while finding out is a bug."""
    try:
        decoded = unpack(data)
    except ProgramError as error:
        assert str(error)
        assert "\n" not in str(error)
        return False
    try:
        link(decoded)
    except ChipError:
        return False
    return True


def test_every_truncation_is_refused():
    data = next(d for d in (pack(Chaos(n).program()) for n in range(20)) if accepted(d))
    assert not any(accepted(data[:size]) for size in range(0, len(data), 7))
    assert not accepted(data + b"\0")


@settings(max_examples=400, deadline=None)
@given(seed=st.integers(0, 30), flips=st.lists(st.tuples(st.integers(0), st.integers(1, 255))))
def test_flipped_bytes_are_a_program_or_an_error(seed, flips):
    data = bytearray(pack(Chaos(seed).program()))
    for place, bits in flips:
        data[place % len(data)] ^= bits
    accepted(bytes(data))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_noise_is_refused(data):
    assert not accepted(data)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


def opened(what: Program) -> list:
    """The head of a program's bytes, with its body decoded."""
    *head, inner = msgpack.unpackb(pack(what))
    return [*head, msgpack.unpackb(inner)]


def closed(head: list) -> bytes:
    *rest, inner = head
    return msgpack.packb([*rest, msgpack.packb(inner)])


@st.composite
def edited(draw) -> bytes:
    """A good program in which one value, at any depth, has become anything."""
    head = opened(Chaos(draw(st.integers(0, 10))).program())
    head[-1]["inputs"] = {"x": [0, 0, 1, "u8", "rows"]}
    if draw(st.integers(0, 9)) == 0:
        return msgpack.packb([*head[:-1], draw(JSON)])
    node = head[-1]
    while True:
        keys = sorted(node) if isinstance(node, dict) else range(len(node))
        key = draw(st.sampled_from(list(keys)))
        inner = node[key]
        if not isinstance(inner, dict | list) or not inner or draw(st.integers(0, 3)) == 0:
            break
        node = inner
    node[key] = draw(JSON)
    return closed(head)


@settings(max_examples=400, deadline=None)
@given(edited())
def test_any_value_anywhere_is_a_program_or_an_error(data):
    accepted(data)


READ = ("mem.read", 0, 0)


@pytest.mark.parametrize(
    "loops",
    [(10**12, 1, 0), (2**31, 2**31, 0), (2, 2**50, 0), ((2**20, 2**21, 0), (2**20, 1, 0)),
     (2, 1, 2**62), (0, 1, 0), (-1, 1, 0), (2, 0, 0), (2, -1, 0)],
)  # fmt: skip
def test_loops_beyond_reason_are_refused_at_once(loops):
    started = time.perf_counter()
    with pytest.raises(ProgramError, match=r"queue mem\.r:0"):
        unpack(pack(program(at("mem.r:0", 0, *READ, loops=loops))))
    assert time.perf_counter() - started < 1


def test_many_long_loops_are_refused_together():
    loops = (MAX_ISSUES // 3, 1, 0)
    queues = [at(f"mem.r:{n}", 0, *READ, loops=loops) for n in range(4)]
    unpack(pack(program(*queues[:3])))
    with pytest.raises(ProgramError, match="issues"):
        unpack(pack(program(*queues)))


def test_endless_waits_are_refused():
    with pytest.raises(ProgramError, match="cycles"):
        unpack(pack(program(at("mem.r:0", 2**39, *READ), at("mem.r:0", 2**40, *READ))))


@pytest.mark.parametrize(
    ("instruction", "queue", "words"),
    [
        (Instruction("mem.read", (0, 64)), "mem.r:0", "mem.read out=64"),
        (Instruction("mem.read", (-1, 0)), "mem.r:0", "address=-1"),
        (Instruction("mem.read", (0, 0)), "mem.w:0", "belongs to a mem.r queue"),
        (Instruction("mem.read", (0,)), "mem.r:0", "number of operands"),
        (Instruction("mem.read", (0, 0), names=(1, 2)), "mem.r:0", "number of names"),
        (Instruction("vxm.add", (7, 0, 0, 0, 0)), "vxm:0", "dtype=7"),
        (Instruction("vxm.add", (0, 255, 0, 0, 0)), "vxm:0", "a=255"),
        (Instruction("vxm.add", (0, 0, 0, 2**32, 0)), "vxm:0", "imm="),
        (Instruction("sxm.permute", (0, 0, 0, 0)), "sxm:0", "map=0"),
    ],
)
def test_operands_out_of_range_are_named(instruction, queue, words):
    with pytest.raises(ProgramError, match=words):
        unpack(pack(replace(EMPTY, queues={queue: (instruction,)})))


@pytest.mark.parametrize(
    "region",
    [Region(88, 0, 1, "u8"), Region(0, 1020, 8, "u8"), Region(0, 0, 1, "f64"),
     Region(0, 0, 1, "w16"), Region(0, 0, 1, "f32", "columns"), Region(0, 0, 1, "u8", "heap"),
     Region(1, 0, 1, "f16"), Region(6, 0, 1, "f32"), Region(76, 0, 1, "f16", "columns"),
     Region(-4, 0, 1, "u8"), Region(0, -1, 1, "u8"), Region(0, 0, -1, "u8")],
)  # fmt: skip
@pytest.mark.parametrize("field", ["inputs", "outputs", "constants"])
def test_regions_lie_aligned_in_the_sram(field, region):
    held = (region,) if field == "constants" else {"x": region}
    with pytest.raises(ProgramError, match="region"):
        unpack(pack(replace(EMPTY, **{field: held})))


def head(at: int, value: object) -> bytes:
    changed = opened(EMPTY)
    changed[at] = value
    return closed(changed)


def body(**changes: object) -> bytes:
    return head(5, opened(EMPTY)[5] | changes)


def reads(row: object) -> bytes:
    return body(ops=["mem.read"], instructions=[row], queues={"mem.r:0": [0]})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "corrupt program"),
        (msgpack.packb([1, 2]), "not an LPU program"),
        (head(0, "other"), "not an LPU program"),
        (head(1, 1), "program version 1, this chip reads 2"),
        (head(2, True), "chip is True"),
        (head(3, -1), "start is -1"),
        (head(4, [[]]), "a start sequence is a list"),
        (head(4, [["mem.read", 0, 0]]), "belongs to a mem.r queue"),
        (head(4, [["icu.deskew", 1]]), "wrong number of operands"),
        (msgpack.packb([*opened(EMPTY)[:5], 2**40]), "without a body"),
        (body(spec="groqchip9"), "unknown chip 'groqchip9'"),
        (body(ops=["mem.fly"]), r"unknown instruction 'mem\.fly'"),
        (body(queues={b"vxm:0": []}), "strings"),
        (body(queues={"vxm:\n": []}), "printable"),
        (body(queues={"vxm:0": [0]}), "instruction is 0"),
        (body(maps=[[65536]]), "map is 65536"),
        (reads([1, [0, 0]]), "instruction is 1"),
        (reads([-1, [0, 0]]), "instruction is -1"),
        (reads([0, [0, 1.0]]), "integers"),
        (reads([0, [0, True]]), "integers"),
    ],
)
def test_each_defect_is_one_line(data, words):
    for use in (unpack, Linker()):
        with pytest.raises(ProgramError, match=words):
            use(data)


def test_an_unknown_op_fails_when_packed_too():
    with pytest.raises(ProgramError, match="unknown instruction"):
        unpack(pack(replace(EMPTY, queues={"vxm:0": (Instruction("vxm.think", ()),)})))
