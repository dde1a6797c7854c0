"""Read this first: the whole product in a few seconds, arrow by arrow.

Weights -> Plan -> Placement -> Program per chip (msgpack) -> Machine -> logits -> token.
"""

import numpy as np
import pytest

from chip.program import Program
from chip.spec import GROQCHIP1
from chip.wire import pack, unpack
from cluster.compiler.launch import decode_kind
from cluster.compiler.lower import Lowered, lower
from cluster.compiler.place import place
from cluster.compiler.stages import partition
from cluster.generation.sampling import Sampling
from cluster.machines.machine import LocalMachine
from cluster.model.reference import Reference
from cluster.serving.engine import PipelineRunner
from tests.cluster.tiny import forced, tiny_weights
from topology import parse

PROMPT = [1, 5, 9, 20, 3]


@pytest.fixture(scope="module")
def lowered() -> Lowered:
    """Two layers of 4 heads on four chips in a ring: two stages of one layer, two heads a chip."""
    weights = tiny_weights()
    graph = parse("ring:4")
    plan = partition(weights.model, GROQCHIP1, tp=2, pp=2)
    return lower(plan, place(plan, graph, "ring:4"), graph, weights)


@pytest.fixture(scope="module")
def machine(lowered) -> LocalMachine:
    """Four chips in this process, their programs linked and their weights in SRAM."""
    chips = LocalMachine()
    chips.load(lowered, lambda _what, _done, _total: None)
    return chips


@pytest.fixture(scope="module")
def reference() -> Reference:
    """The same model in plain NumPy float32."""
    return Reference(tiny_weights(), context=320)


def test_chips_say_what_the_reference_says(lowered, machine, reference):
    tokens = PipelineRunner(lowered, machine).generate(PROMPT, 8, Sampling(), frozenset())
    assert list(tokens) == reference.generate(PROMPT, 8)


def test_logits_are_close_to_float32_at_every_step(lowered, machine, reference):
    reference.reset()
    ours = forced(lowered, machine, PROMPT, 7, 80, 2)
    for logits, ids in zip(ours, (PROMPT, [7], [80], [2]), strict=True):
        assert np.abs(logits - reference.forward(ids)).max() < 0.05


def test_a_chip_is_given_bytes_only(lowered):
    for launch in lowered.launches.values():
        assert sorted(launch.programs) == [0, 1, 2, 3]
        for number, data in launch.programs.items():
            program = unpack(data)
            assert isinstance(program, Program) and program.chip == number
            assert pack(program) == data


def test_time_is_known_before_anything_runs(lowered, machine):
    """The load has compared all programs with the schedule; a launch only confirms it."""
    runner = PipelineRunner(lowered, machine)
    assert len(list(runner.generate(PROMPT, 2, Sampling(), frozenset()))) == 2
    *prefill, first, second = runner.launches  # the prompt goes stage by stage, a token through all
    assert len(prefill) == lowered.plan.pp and first == second == str(decode_kind(320))
    scheduled = [
        max(lowered.launches[program].end_cycles[chip] for chip, program in programs.items())
        for programs in map(runner.programs.get, runner.launches)
    ]
    assert runner.cycles == scheduled


def test_the_same_plan_and_prompt_have_the_same_digest():
    weights, graph = tiny_weights(num_hidden_layers=1), parse("node")
    plan = partition(weights.model, GROQCHIP1, tp=1, pp=1)
    lowered = lower(plan, place(plan, graph, "node"), graph, weights)

    def digest(prompt: list[int]) -> str:
        fresh = LocalMachine()
        fresh.load(lowered, lambda _what, _done, _total: None)
        runner = PipelineRunner(lowered, fresh)
        assert list(runner.generate(prompt, 1, Sampling(), frozenset()))
        return runner.digest.hexdigest()

    assert digest([3]) == digest([3]) != digest([4])
