"""What is wrong in a text is said in one line, with file, line and column; and what is right."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chip.assembly import assemble
from chip.barrier import issue_cycles
from chip.errors import AssemblyError, ChipError
from chip.program import Instruction
from chip.spec import GROQCHIP1, TINY

READ = "mem.r:0 mem.read address=0 out=E0"
BAD = {
    # --- syntax
    "mem.r:3 foo": "1:9: unexpected 'foo', expected an instruction or the end of the line",
    ".data x u8 slize 3": "1:12: unexpected 'slize', expected 'slice'",
    "\n\n   .chop 3": "3:4: unexpected '.chop'",
    ".map m = [1, 2": "1:15: unexpected the end of the line",
    "@3 @4 mem.read": "1:4: unexpected '@4', expected a queue such as mem.r:3 or an instruction",
    # --- instructions
    "mem.r:0 mem.reed 0": "1:9: unknown instruction mem.reed; did you mean mem.read?",
    "mem.w:0 mem.read 0 E0": "1:9: mem.read belongs on a mem.r queue, not on mem.w:0",
    "mem.read 0 E0": "1:1: on which queue? write it before, as in mem.r:3",
    "mem.q:0 mem.read 0 E0": "1:1: no queue 'mem.q:0' on chip groqchip1",
    "mem.r:88 mem.read 0 E0": "1:1: no queue 'mem.r:88' on chip groqchip1",
    "mem.r:9..3 mem.read 0 E0": "1:1: mem.r:9..3 is an empty range",
    "mem.r:0 mem.read addres=0": "1:18: mem.read has no operand addres; it has address, out",
    "mem.r:0 mem.read 0 E0 E1": "1:23: E1 is one operand too many; mem.read has address out",
    "mem.r:0 mem.read 0 out=E0 out=E1": "1:31: E1 is one operand too many",
    "mem.r:0 mem.read 0": "1:9: mem.read needs out=",
    "mem.r:0 mem.read 0 E32": "1:20: out=E32 is not a stream E0..E31 or W0..W31",
    "mem.r:0 mem.read -1 E0": "1:18: address=-1 is not a whole number",
    "mem.r:0 mem.read 99999999 E0": "1:9: mem.read address=99999999",
    "vxm:0 vxm.add f17 E0 E2": "1:15: dtype=f17 is not one of u8, f16",
    "vxm:0 vxm.exp u8 E0": "1:7: vxm.exp of u8, it takes",
    "vxm:0 vxm.add f16 alu64 E2": "1:19: a=alu64 is not a stream such as E0, an ALU",
    "vxm:0 vxm.add f16 E0 imm imm=half": "1:30: imm=half is not a number",
    "vxm:0 vxm.add u8 E0 imm imm=0.5": "1:29: imm=0.5 is not a number",
    "sxm:0 sxm.permute u8 swap E0 W0": "1:22: map=swap is not the name of a .map, or its number",
    "mem.r:0 mem.read 0 E0 x0@1": "1:9: loop of 0 every 1 cycles",
    "mem.r:0 mem.read 0 E0 x2 x2 x2": "1:29: loops nest two deep",
    # --- cycles
    "@5 " + READ + " x4\n@7 " + READ: "2:12: issues at cycle 7, mem.r:0 is taken until 9 (line 1)",
    "@9 " + READ + "\n@3 " + READ: "2:12: issues at cycle 3, mem.r:0 is taken until 10 (line 1)",
    "@x " + READ: "1:12: chip 0 has no label x; it has none",
    "a: @b " + READ + "\nb: @a mem.r:1 mem.read 0 E0": "1:15: waits for itself",
    "a: " + READ + "\na: " + READ: "2:12: label a is defined twice; it is on line 1",
    "@%x " + READ: "1:13: nothing on chip 0 drives %x; known: none",
    "@3>vxm:0 " + READ: "1:18: mem.r:0 drives eastward, its target does not lie there",
    "@3>vxm:0 mem.r:0 mem.read 0 W0": "1:18: would issue at cycle -3",
    "@3>sxm:99 " + READ: "1:19: no queue 'sxm:99'",
    "@9999999999999 " + READ: "1:24: would issue at cycle 9999999999999",
    "@peer.x " + READ: "1:17: @peer. is for a c2c.r queue",
    "@peer.x c2c.r:0 c2c.receive E0": "1:17: no cable on port 0 of chip 0",
    "@chip1.x " + READ: "1:18: chip 1 has no label x",
    "@3+ " + READ: "1:1: @3+ is not a cycle such as @12",
    # --- values
    "vxm:0 vxm.copy u8 %x": "1:7: nothing on chip 0 drives %x",
    "mem.r:0 mem.read 0%x E0": "1:18: address is no stream: it cannot carry %x",
    "mem.r:0 mem.read 0 E0 -> %x": "1:26: mem.read drives nothing that -> could name",
    "mem.r:0 mem.read 0 E0%a-b": "1:20: %a-b is not the name of a value",
    "vxm:0 vxm.copy u8 E0 none%x\nmem.w:0 mem.write 0 %x": "2:9: %x is on no stream: vxm:0 keeps",
    # --- directives
    ".spec tpu": "1:7: unknown chip 'tpu'",
    READ + "\n.spec tiny": "2:7: .spec must come before the first line of a chip",
    ".chip x": "1:7: x is not a number, or a range such as 0..7",
    ".chip 3..0": "1:7: 3..0 is not a chip, or chips such as 0..7",
    ".start -3": "1:8: '-3' is not a whole number",
    ".cable 0 1:1 latency 3": "1:8: 0 is not CHIP:PORT, such as 0:1",
    ".cable 0:0 1:1 latency 3 interval 0": "1:35: is not a rate such as 27 or 59/2",
    ".cable 0:0 1:1 latency x": "1:24: 'x' is not a whole number",
    ".topology ring:4": "a topology needs a reader of topologies",
    ".for i in 0..3\n" + READ: "1:6: .for without .end",
    READ + "\n.end": "2:1: .end without .for",
    ".for i in 0..999999\n" + READ + "\n.end": "more than 200000 lines, loops written out",
    ".let n = 1 / 2": "1:10: only whole numbers",
    ".let n = k + 1": "1:10: k is not defined here; known are chip, lanes, west",
    ".let n = 1 // 0": "no whole number of use",
    ".let n = 9 ** 64": "is too large",
    "mem.r:{1 +} mem.read 0 E0": "1:11: unexpected the end of the line",
    "mem.r:{k} mem.read 0 E0": "1:1: k is not defined here",
    ".map a = 3": "1:6: map a is not a list of lanes",
    ".map a = [1]\n.map a = [2]": "2:6: map a is defined twice",
    ".data x q8 slice 0 address 0": "1:9: unknown type q8",
    ".data x f16 slice 1 address 0": "1:7: region starts inside an aligned group of slices",
    ".data x u8 slice 0 address 9999": "1:7: region outside the SRAM",
    ".data x u8 slice 0 address 0 = 300": "1:32: 300 is no uint8 (0 to 255)",
    ".data x u8 slice 0 address 0 = 0.5": "1:32: 0.5 is no uint8",
    ".data x u8 slice 0 address 0 = y": "1:32: y is neither a variable nor data of a chip",
    ".data x u8 slice 0 address 0 = roll(3)": "1:32: call: missing a required argument: 'lanes'",
    ".data x u8 slice 0 address 0 = fly(3)": "1:32: unknown function fly; known are abs",
    '.data x u8 slice 0 address 0 = npy("absent.npy")': "absent.npy: No such file",
    ".data x u8 slice 0 address 0 vectors 3 = [[1], [2]]": "2 vectors for a region of 3",
    ".data x u8 slice 0 address 0 = iota(400)": "an array [400] is not [vectors, 320 lanes]",
    ".data x u8 slice 0 address 0\n.data x u8 slice 1 address 0": "2:7: x is defined twice",
    ".expect x = 1": "1:9: chip 0 has no .output x; it has none",
}  # fmt: skip


def complaint(text: str) -> str:
    with pytest.raises(ChipError) as caught:
        assemble(text, "p")
    line = str(caught.value)
    assert "\n" not in line
    assert str(pickle.loads(pickle.dumps(caught.value))) == line
    return line


@pytest.mark.parametrize("text", BAD)
def test_an_error_says_where_and_what(text):
    line = complaint(text)
    assert BAD[text] in line
    assert line.startswith("p:") or "topology" in line


def test_values_that_meet_late_are_named():
    text = """
        @0 mem.r:0 mem.read 0 W0%x
        @0 mem.r:1 mem.read 0 W1%x
        @%x vxm:0 vxm.copy f16 %x"""
    line = complaint(text)
    assert "p:4:19: %x is driven several times, and is at vxm:0 at cycles 6, 7" in line


@settings(max_examples=80, deadline=None)
@given(st.integers(0, len(BAD) - 1), st.integers(0, 60), st.sampled_from(".:%@{}[]=+-x09 \n#\"'/"))
def test_a_typing_error_is_a_program_or_an_error(number, place, letter):
    """Nothing else can come of a text: no other exception, and no hang."""
    text = [*BAD][number]
    try:
        assemble(text[:place] + letter + text[place:], "p")
    except ChipError as error:
        assert "\n" not in str(error)


def test_a_parked_queue_goes_on_after_the_notify_of_another():
    text = """
        mem.r:0
        icu.sync
        mem.read 0 E0%x
        mem.r:1
        @9 icu.notify
        @%x+0 sxm:0 icu.nop 1"""
    program = assemble(text).programs[0]
    cycles = [cycle for cycle, _ in program.issues("mem.r:0")]
    assert cycles == [0, 9 + GROQCHIP1.barrier_cycles]
    assert "no icu.notify comes" in complaint("mem.r:0\nicu.sync\n@90 mem.read 0 E0")


# --- what the text means ------------------------------------------------------------------------
def queue(text: str, name: str = "mem.r:0") -> list[tuple[int, Instruction]]:
    program = assemble(".spec tiny\n" + text).programs[0]
    return list(issue_cycles(program.queues[name]))


def test_lines_without_a_cycle_follow_each_other():
    found = queue("mem.r:0\nmem.read 0 E0 x3@2\nicu.nop 4\nmem.read 1 E0\n@20 mem.read 2 E0")
    assert [(cycle, one.op) for cycle, one in found] == [
        (0, "mem.read"), (5, "icu.nop"), (9, "mem.read"), (10, "icu.nop"), (20, "mem.read"),
    ]  # fmt: skip


def test_loops_and_sums_are_worked_out():
    text = ".let n = 3\n.for i in 0..{n - 1}\n@{10*i} mem.r:0 mem.read {i*i} E{i} x2@3-1\n.end"
    found = [one for one in queue(text) if one[1].op != "icu.nop"]
    assert [(cycle, one.args) for cycle, one in found] == [(0, (0, 0)), (10, (1, 1)), (20, (4, 2))]
    assert found[0][1].loops == ((1, 1, 0), (2, 3, -1))


def test_a_queue_range_steps_its_byte_streams_and_its_cycles():
    program = assemble(".spec tiny\n@100>vxm:0 mem.r:4..7 mem.read 9 W8%x").programs[0]
    for index in range(4):
        ((_, nop), (cycle, read)) = issue_cycles(program.queues[f"mem.r:{4 + index}"])
        away = TINY.slice_position(4 + index) - TINY.vxm_position
        assert cycle + TINY.d_func("mem.read") + away == 100 == nop.args[0] + 5 + away
        assert read.args == (9, 32 + 8 + index) and read.names == (1,)


def test_a_value_is_found_on_its_stream_or_in_its_alu():
    text = """
        @20>vxm:2 mem.r:0 mem.read 0 W5%x
        @20 vxm:2 vxm.copy u8 %x none%y
        @%y vxm:3 vxm.copy u8 %y E7%z
        @%z mem.w:3 mem.write 0 %z"""
    program = assemble(text).programs[0]
    args = {name: queue[-1].args for name, queue in program.queues.items()}
    assert args["vxm:2"][1] == 32 + 5 and args["vxm:3"][1] == 64 + 2 and args["mem.w:3"] == (0, 7)
    assert [c for c, _ in issue_cycles(program.queues["vxm:3"])][-1] == 24


def test_a_label_of_a_peer_is_its_cycle_and_the_latency():
    text = """
        .cable 0:0 1:1 latency 100 interval 2
        .chip 0..1
        go: @{7 + chip} c2c.s:{chip} c2c.send E0
        @peer.go+1 c2c.r:{chip} c2c.receive E1"""
    image = assemble(text)
    cycles = [[*issue_cycles(image.programs[c].queues[f"c2c.r:{c}"])][-1][0] for c in (0, 1)]
    assert cycles == [8 + 101, 7 + 101]


def test_data_is_arithmetic_on_what_the_chips_hold(tmp_path):
    np.save(tmp_path / "w.npy", np.arange(640).reshape(2, 320) % 7)
    text = """
        .chip 0..1
        .data x f16 slice 0 address 0 vectors 2 = (iota() - chip) / 4
        .data w u8 slice 2 address 0 = npy("w.npy")
        .output y f32 slice 4 address 0 vectors 2
        .expect y = chip0.x * 2 - max(chip1.x) + w within 1 / 8"""
    image = assemble(text, str(tmp_path / "p.lpuasm"))
    x = [(np.arange(320) - chip).astype(np.float16) / np.float16(4) for chip in (0, 1)]
    y = x[0] * 2.0 - x[1].max() + np.load(tmp_path / "w.npy")
    assert image.checks[0].within == 0.125
    np.testing.assert_array_equal(image.checks[0].values, y.astype(np.float32))
    np.testing.assert_array_equal(image.fills[0].values, np.stack([x[0], x[0]]))


def test_an_error_survives_pickling():
    error = AssemblyError("a.lpuasm", 3, 4, "what")
    assert str(pickle.loads(pickle.dumps(error))) == "a.lpuasm:3:4: what"
