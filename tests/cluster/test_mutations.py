"""Every logit comes out of the instructions: change any kernel and the logits change.

In each kernel of a decode program, and for each unit the kernel uses, one operand of one
instruction of one chip is changed: an address, a lane map or a stream. Then the linker refuses
the program, or the launch fails, or the logits differ.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest

from chip.barrier import issue_cycles
from chip.board import wire
from chip.errors import ChipError
from chip.group import ChipGroup, batches
from chip.isa import ALU_BASE, IMMEDIATE, NO_STREAM, WIDTHS, Op, lookup
from chip.program import Instruction
from chip.schedule import Schedule
from chip.spec import TINY as CHIP
from chip.sram import GROUP
from chip.wire import pack, unpack
from cluster.compiler.launch import decode_kind
from cluster.compiler.lower import Lowered, lower
from cluster.compiler.place import place
from cluster.compiler.stages import partition
from cluster.generation.sampling import Sampling
from cluster.machines.machine import Inputs, Result
from cluster.serving.engine import PipelineRunner
from cluster.serving.host_inputs import host_inputs
from cluster.serving.requests import Row, Work
from tests.cluster.tiny import tiny_weights
from topology import parse

# Two blocks of hidden and of vocabulary, so that both sides of a chip have work in every kernel.
WEIGHTS = tiny_weights(num_hidden_layers=1, hidden_size=336, vocab_size=1000)
DECODE = str(decode_kind(320))
PROMPT = [1, 5, 9, 20, 3, 77, 30, 8]
TOKEN = 2  # at position 8: cached in the first slice pair
KERNELS = [
    "norm: mean square",
    "norm: scale",
    "matmul layer.wq",
    "matmul layer.wk",
    "matmul layer.wv",
    "attention: append to cache",
    "attention: transpose V",
    "attention: softmax",
    "attention: weighted values",
    "matmul layer.wo0",
    "matmul layer.wo1",
    "all-reduce: add",
    "matmul layer.w_gate",
    "matmul layer.w_up",
    "ffn: silu",
    "matmul layer.w_down0",
    "matmul layer.w_down1",
    "matmul head.head0",
    "matmul head.head1",
    "transfer",
]
Spot = tuple[str, int]  # a queue of chip 0, and the cycle of an instruction's first issue
Kernels = dict[str, list[Spot]]


class Rig:
    """Two chips in this process, of which the programs can be exchanged."""

    def __init__(self, lowered: Lowered) -> None:
        self.lowered, self.group = lowered, ChipGroup(lowered.chips, CHIP)
        self.facts = {
            name: {n: self.group.load(name, n, data) for n, data in one.programs.items()}
            for name, one in lowered.launches.items()
        }
        for name in self.facts:
            self._wire(name)
        self.group.write(lowered.constants())

    def _wire(self, name: str) -> None:
        wiring = wire(self.facts[name], self.lowered.cables)
        self.group.prepare(name, batches(wiring, dict.fromkeys(self.group.chips, 0)))

    def launch(self, name: str, inputs: Inputs) -> Result:
        self.group.begin(name, inputs)
        self.group.run(name, 0)
        finished = self.group.finish(name)
        return Result(finished.outputs, 0, finished.digests)

    def exchange(self, data: bytes) -> None:
        self.facts[DECODE][0] = self.group.load(DECODE, 0, data)
        self._wire(DECODE)

    def blocks(self) -> list[np.ndarray]:
        firsts = range(0, CHIP.slices, GROUP)
        return [c.sram.group(first) for c in self.group.chips.values() for first in firsts]


@pytest.fixture(scope="module")
def built() -> tuple[Lowered, Kernels]:
    """A one-layer model on two chips, its decode launch, and who placed which instruction."""
    made: dict[int, list[tuple[str, Spot]]] = defaultdict(list)
    alive: list[Schedule] = []  # so that no two have the same id
    parts: list[list[tuple[str, Spot]]] = []
    place_chain, repeat = Schedule.place, Schedule.repeat

    def watched_place(plan, placed_chain, not_before=0, further=(), there=None):
        before = {queue: len(placed) for queue, placed in plan.placed.get(0, {}).items()}
        start = place_chain(plan, placed_chain, not_before, further, there)
        alive.append(plan)
        for queue, placed in plan.placed.get(0, {}).items():
            new = placed[before.get(queue, 0) :]
            made[id(plan)] += [(placed_chain.label, (queue, cycle)) for cycle, _ in new]
        return start

    def watched_repeat(plan, part, offset, moved, everyone, only=None):
        if any(members is None or members.get(0) == 0 for members in everyone):
            found = made[id(part)]
            parts.append([(label, (queue, cycle + offset)) for label, (queue, cycle) in found])
        repeat(plan, part, offset, moved, everyone, only)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Schedule, "place", watched_place)
        patch.setattr(Schedule, "repeat", watched_repeat)
        graph = parse("full:2")
        plan = partition(WEIGHTS.model, CHIP, tp=2, pp=1)
        lowered = lower(plan, place(plan, graph, "full:2"), graph, WEIGHTS)
    kernels: Kernels = defaultdict(list)
    # decode is lowered first: attention, all-reduce, FFN, all-reduce, LM head
    for label, spot in chain.from_iterable(parts[:5]):
        kernels[label].append(spot)
    return lowered, kernels


@pytest.fixture(scope="module")
def attempt(built) -> Callable[[bytes], bytes | ChipError]:
    """Decode TOKEN after PROMPT with other program bytes on chip 0: the logits, or the error."""
    lowered, _ = built
    rig = Rig(lowered)
    assert list(PipelineRunner(lowered, rig).generate(PROMPT, 1, Sampling(), frozenset()))
    before = [block.copy() for block in rig.blocks()]
    work = Work(decode_kind(320), (Row(0, len(PROMPT), TOKEN, gives=True),))
    inputs = host_inputs(lowered, (work,))

    def run(data: bytes) -> bytes | ChipError:
        for block, values in zip(rig.blocks(), before, strict=True):
            block[:] = values
        try:
            rig.exchange(data)
            outputs = rig.launch(DECODE, inputs).outputs
        except ChipError as error:
            return error
        return b"".join(v.tobytes() for _, one in sorted(outputs.items()) for v in one.values())

    return run


@pytest.fixture(scope="module")
def expected(built, attempt) -> bytes | ChipError:
    """The logits of the program as it is."""
    return attempt(built[0].launches[DECODE].programs[0])


def changed(instruction: Instruction, maps: int) -> Instruction:
    """The instruction with one operand changed: what names a place in memory comes first."""
    op = lookup(instruction.op)
    for kinds in (("addr",), ("map",), ("in", "src"), ("out", "dst"), ("int", "col", "slot")):
        for number, operand in enumerate(op.operands):
            value = instruction.args[number]
            if operand.kind in kinds and value not in (IMMEDIATE, NO_STREAM):
                other = _other(op, number, instruction.args, maps)
                args = (*instruction.args[:number], other, *instruction.args[number + 1 :])
                return replace(instruction, args=args)
    raise ValueError(f"nothing to change in {instruction}")


def _other(op: Op, number: int, args: tuple[int, ...], maps: int) -> int:
    kind, value = op.operands[number].kind, args[number]
    if kind in ("addr", "int", "slot", "col"):
        return value + 1
    if kind == "map":
        first, stop = (0, 2) if op.name == "sxm.distribute" else (2, maps)
        return first + (value - first + 1) % (stop - first)
    return value ^ (1 if value >= ALU_BASE else WIDTHS[op.element(number, args)])


def spots_to_try(spots: list[Spot]) -> list[Spot]:
    """Of byte planes, byte 2 of fp32 or 0 of fp16 first: a rounding may hide a lower byte.

    A higher one may be equal in all vectors, and is tried where the first changes nothing.
    """

    planes = sorted((int(q.partition(":")[2]) % 4 != 2, cycle, q) for q, cycle in spots)
    even = [(q, cycle) for _, cycle, q in planes if int(q[-1]) % 2 == 0]
    odd = [(q, cycle) for _, cycle, q in planes if int(q[-1]) % 2 == 1]
    return even[:1] + odd[:1]


def test_the_kernels_are_all_there_are(built):
    assert sorted(KERNELS) == sorted(built[1])


def test_an_unchanged_program_gives_the_same_logits_again(built, attempt):
    data = built[0].launches[DECODE].programs[0]
    assert isinstance(attempt(data), bytes)
    assert attempt(data) == attempt(pack(unpack(data)))


@pytest.mark.parametrize("kernel", KERNELS)
def test_changing_an_operand_changes_the_logits_or_is_an_error(built, attempt, expected, kernel):
    lowered, kernels = built
    launch = lowered.launches[DECODE]
    program = unpack(launch.programs[0])
    first = program.start_cycle - launch.startup_cycles  # schedules begin once the chips have
    at = {
        (queue, first + cycle): (queue, number)
        for queue, instructions in program.queues.items()
        for number, (cycle, _) in enumerate(issue_cycles(instructions))
    }

    def differs(spot: Spot) -> bool:
        queue, number = at[spot]
        instructions = list(program.queues[queue])
        instructions[number] = changed(instructions[number], len(program.maps))
        queues = {**program.queues, queue: tuple(instructions)}
        result = attempt(pack(replace(program, queues=queues)))
        return isinstance(result, ChipError) or result != expected

    spots_of: dict[str, list[Spot]] = defaultdict(list)
    for queue, cycle in kernels[kernel]:
        family = queue.partition(":")[0]  # "mem.r" and "mem.w" apart, "mxm.lw" with "mxm.abc"
        unit = family if family.startswith("mem") else family.partition(".")[0]
        spots_of[unit].append((queue, cycle))
    assert {"mem.r", "mem.w"} <= set(spots_of)
    for unit, spots in spots_of.items():
        assert any(differs(spot) for spot in spots_to_try(spots)), f"{unit} does not matter"
