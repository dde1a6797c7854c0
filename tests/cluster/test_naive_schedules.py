"""What schedules do, by definition: chips in the middle of a run, and the naive interpreter.

A chip of a launch gets the SRAM and the packets that it had in the run; it must leave the same
SRAM, send the same packets in the same cycles and end in the same one. Where that is so on every
chip, a launch is what the naive interpreter makes of it: what one hears others have sent before.
"""

from functools import partial

import numpy as np
import numpy.typing as npt
import pytest

from chip.core import Chip
from chip.group import ChipGroup
from chip.linker import Linked
from chip.sram import GROUP
from chip.wire import pack
from cluster.encoders.encoding import embed
from tests.chip.naive import interpret
from tests.chip.programs import on_links
from tests.cluster.model.test_golden import cases_of
from tests.cluster.test_architectures_run import on_chips
from tests.cluster.test_embedding import FOUR, encodings
from tests.cluster.test_pipeline import answered, loaded
from tests.cluster.test_rows import SHORT, made
from tests.cluster.tiny import forced

WIDE = {
    "hidden_size": 1600,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "intermediate_size": 640,
}


def image(chip: Chip) -> npt.NDArray[np.uint8]:
    """The whole SRAM [slices, words, lanes]."""
    spec = chip.spec
    out = np.empty((spec.slices, spec.slice_words, spec.lanes), np.uint8)
    for first in range(0, spec.slices, GROUP):
        out[first : first + GROUP] = chip.sram.group(first).transpose(2, 0, 1)
    return out


def by_both(run, chip: Chip, ready: Linked):
    """Do a launch of which the inputs are written, and the program of a chip by definition."""
    received, sent = {}, {}
    play, before = chip.run, image(chip)

    def watched(segment, packets):
        received.update(packets)
        leaving = play(segment, packets)
        sent.update(leaving)
        return leaving

    chip.run = watched
    found = run()
    del chip.run
    naive = interpret(pack(ready.program), before, on_links(ready.receives, received))
    assert naive.end_cycle == ready.end_cycle
    leaving = {key: vector.tobytes() for key, vector in on_links(ready.sends, sent).items()}
    assert leaving == {key: vector.tobytes() for key, vector in naive.sent.items()}
    for first in range(0, chip.spec.slices, GROUP):
        planes = chip.sram.group(first).transpose(2, 0, 1)
        assert np.array_equal(planes, naive.sram[first : first + GROUP]), f"slices {first}.."
    return found


@pytest.fixture
def witnesses(monkeypatch):
    """Compares chips, {number of the chip: cycles of its programs so far}, whenever they run
    a program for the first time."""
    seen: dict[int, dict[Linked, int]] = {}
    original = ChipGroup.run

    def run(group, name, index, bundles=()):
        again = partial(original, group, name, index, bundles)
        for number in seen:
            ready = group.chips[number].programs.get(name)
            if ready and ready not in seen[number]:
                seen[number][ready] = ready.end_cycle
                again = partial(by_both, again, group.chips[number], ready)
        return again()

    monkeypatch.setattr(ChipGroup, "run", run)
    return seen


@pytest.mark.parametrize(("name", "plan", "weights", "ep"), [
    ("mixtral", "tp 2, layer by layer", "int8", 2),
    ("olmo2", "tp 3, layer by layer", "w8a16", 1),  # ranks whose heads share KV heads
    pytest.param("gpt-oss", "tp 2, layer by layer", "fp16", 1, marks=pytest.mark.soak),
    pytest.param("gemma2", "tp 2, layer by layer", "int8", 1, marks=pytest.mark.soak),
    pytest.param("deepseek-v3", "tp 2, layer by layer", "fp16", 1, marks=pytest.mark.soak),
])  # fmt: skip
def test_layers_of_decoders(witnesses, name, plan, weights, ep):
    _, lowered, machine = on_chips(name, plan, weights, ep=ep)
    number = lowered.placement[1][-1]
    witnesses[number] = {}
    case = cases_of(name)[0]
    forced(lowered, machine, case["prompt_ids"], *case["output_ids"][:1])
    assert len(witnesses[number]) == 3  # of a chunk, of a token, and of waiting for others


@pytest.mark.parametrize("kind", ["fp16", "int8-static"])
def test_layers_of_an_encoder(witnesses, kind):
    lowered, machine = encodings(FOUR, [5, 2, 3, 1], topology="ring:6", kind=kind)
    witnesses[3] = {}
    embed(lowered, machine, [1, 2, 3])
    assert len(witnesses[3]) == 1


def test_rows_that_share_a_launch(witnesses):
    plan = made(2, 2, "ring:4", 5, 4, 320, "int8")
    number = plan.placement[1][0]
    witnesses[number] = {}
    answered(plan, loaded(plan), SHORT[2:])
    assert len(witnesses[number]) >= 4


def test_an_all_reduce_that_goes_past_chips_of_a_waiting_stage(witnesses):
    plan = made(16, 2, "dragonfly:200", 1, 1, 320, "int8", **WIDE)
    (first, second), alone = plan.placement, plan.pipeline.alone[0].members
    passed = sorted({*second} & {*alone})
    witnesses |= {first[0]: {}, passed[0]: {}}
    forced(plan, loaded(plan), [1], 4)
    assert all(witnesses.values())
