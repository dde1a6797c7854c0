"""A collective carried out on emulated chips, beside what NumPy and the timetable say of it."""

from dataclasses import dataclass

import numpy as np

from chip.spec import GROQCHIP1, LP30, ChipSpec
from cluster.compiler.collectives import (
    INPUT,
    LAUNCH,
    OUTPUT,
    LoweredCollective,
    lower_collective,
)
from cluster.compiler.messages import ROW_VECTORS
from cluster.compiler.wires import Wires
from cluster.errors import BadValue
from cluster.machines.machine import LocalMachine
from topology.collectives import Collective, counted, defined, execute


@dataclass(frozen=True)
class Executed:
    """What the chips made of random data, and how much of it differs from NumPy's."""

    cycles: int
    wrong_values: int
    instructions: int


def execute_collective(timed: Collective, seed: int = 0) -> Executed:
    """Run a timed collective of whole fp32 rows on chips of this process; raises BadValue.

    Both add in the order of the list of messages, in fp32, so all bits must be equal.
    """
    spec = spec_for(timed)
    lowered = lower_collective(timed, Wires(timed.graph), spec)
    random = np.random.default_rng(seed)
    shape = (len(timed.chips), timed.vectors, spec.lanes // ROW_VECTORS)
    inputs = counted(timed, random.standard_normal(shape, np.float32))
    found = _on_chips(lowered, timed, inputs, spec)
    where = defined(timed)
    wrong = found[where].view(np.uint32) != execute(timed, inputs)[where].view(np.uint32)
    launch = lowered.launches[LAUNCH]
    cycles = max(launch.end_cycles.values())
    return Executed(cycles, int(wrong.sum()), sum(launch.instructions.values()))


def spec_for(timed: Collective) -> ChipSpec:
    """The chip that a profile of links is of; raises BadValue for links that are no chip's."""
    profile = timed.graph.graph["profile"]
    spec = LP30 if profile.name == LP30.name else GROQCHIP1
    if timed.fabric.payload_bytes != spec.lanes:
        rule = f"needs links of {spec.lanes}-byte vectors, not of {timed.fabric.payload_bytes}"
        raise BadValue("--execute", "", rule)
    return spec


def _on_chips(
    lowered: LoweredCollective, timed: Collective, inputs: np.ndarray, spec: ChipSpec
) -> np.ndarray:
    """Vectors [P, vectors, width] of all ranks after the launch."""
    machine = LocalMachine()
    machine.load(lowered, lambda *_: None)
    rows = inputs.reshape(len(timed.chips), -1, spec.lanes)
    result = machine.launch(LAUNCH, {c: {INPUT: rows[n]} for n, c in enumerate(timed.chips)})
    machine.close()
    outputs = [result.outputs[chip][OUTPUT] for chip in timed.chips]
    return np.stack(outputs).reshape(inputs.shape)
