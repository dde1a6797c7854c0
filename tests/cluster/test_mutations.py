"""Every logit comes out of the instructions: change any kernel and the logits change.

In each kernel of a decode program, and for each op the kernel uses, one operand of one instruction
of one chip is changed: an address, a lane map or a stream. Then the linker refuses the program, or
the launch fails, or the logits differ.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from chip.board import wire
from chip.errors import ChipError
from chip.group import ChipGroup, batches
from chip.isa import ALU_BASE, IMMEDIATE, NO_STREAM, WIDTHS, Op, lookup
from chip.program import Instruction, issue_cycles
from chip.schedule import Schedule
from chip.spec import TINY as CHIP
from chip.sram import GROUP
from chip.wire import pack, unpack
from cluster.lower import Lowered, lower
from cluster.machine import Inputs, Result
from cluster.model.synthetic import TINY, tiny_weights
from cluster.partition import partition
from cluster.placement import place
from cluster.session import Session, host_inputs
from topology import parse

DECODE, CONTEXT = "decode@320", 320
PROMPT = [1, 5, 9, 20, 3, 77, 30, 8]
TOKEN = 2  # at position 8: cached in the first slice pair
KERNELS = [
    "norm: mean square",
    "norm: scale",
    "matmul 0.q",
    "matmul 0.k",
    "matmul 0.v",
    "rotary",
    "attention: append to cache",
    "attention: scores",
    "attention: transpose V",
    "attention: mask",
    "attention: maximum",
    "attention: exp",
    "attention: sums",
    "attention: weighted values",
    "attention: normalise",
    "matmul 0.o0",
    "transfer",
    "residual",
    "matmul 0.gate",
    "matmul 0.up",
    "ffn: SwiGLU",
    "matmul 0.down0",
    "matmul head0",
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
    """A one-layer model on two chips, and which kernel placed which instruction of chip 0."""
    made: dict[Schedule, list[tuple[str, Spot]]] = defaultdict(list)
    kernels: Kernels = defaultdict(list)
    place_chain, repeat = Schedule.place, Schedule.repeat

    def watched_place(plan, chain, not_before=0):
        before = {queue: len(placed) for queue, placed in plan.placed.get(0, {}).items()}
        start = place_chain(plan, chain, not_before)
        for queue, placed in plan.placed.get(0, {}).items():
            new = placed[before.get(queue, 0) :]
            made[id(plan)] += [(chain.label, (queue, cycle)) for cycle, _ in new]
        return start

    def watched_repeat(plan, part, offset, moved):
        for label, (queue, cycle) in made[id(part)]:
            kernels[label].append((queue, cycle + offset))
        repeat(plan, part, offset, moved)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Schedule, "place", watched_place)
        patch.setattr(Schedule, "repeat", watched_repeat)
        graph = parse("full:2")
        model = replace(TINY, layers=1)
        plan = partition(model, CHIP, tp=2, pp=1)
        lowered = lower(plan, place(plan, graph, "full:2"), graph, tiny_weights(model))
    return lowered, kernels
