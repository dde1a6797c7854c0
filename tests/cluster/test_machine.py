"""The local machine on several plans, and the same launches cut into groups of chips."""

from dataclasses import replace

import pytest

from chip.errors import ChipError
from chip.group import batches
from chip.numerics import backend
from cluster.chip_host import ChipHost, replies
from cluster.machine import Inputs, LocalMachine, Result, ScheduleMismatch, check_cycles
from tests.cluster.tiny import (
    local_outcome,
    lowered,
    no_progress,
    outcome,
    reference_tokens,
)

PLANS = [(1, 1, "node"), (2, 1, "node"), (1, 2, "ring:4"), (2, 2, "ring:4"), (4, 2, "torus:3x3")]
THROUGH = (2, 1, "ring:6", ((0, 3),))  # chips 0 and 3 talk through others


class HostMachine:
    """Chip hosts called as Ray calls them, without Ray."""

    name, actors = "hosts", 0

    def __init__(self, pack: int) -> None:
        self.pack = pack

    def load(self, plan, _progress) -> None:
        chips = [*plan.chips, *plan.transit_chips]
        self.group_of = {chip: n // self.pack for n, chip in enumerate(chips)}
        self.members = [chips[n : n + self.pack] for n in range(0, len(chips), self.pack)]
        self.hosts = [ChipHost(group, plan.plan.spec.name) for group in self.members]
        known = {name: {} for name in plan.launches}
        for name, launch in plan.launches.items():
            for chip, data in launch.programs.items():
                (known[name][chip],) = self.host(chip).load([(name, chip, data)])
        self.wirings = check_cycles(plan, known)
        self.batches = {name: batches(w, self.group_of) for name, w in self.wirings.items()}
        for number, host in enumerate(self.hosts):
            mine = {n: [b for b in all_ if b.group == number] for n, all_ in self.batches.items()}
            host.prepare(mine)
        for constant in plan.constants():
            self.host(constant[0]).write([constant])

    def host(self, chip: int) -> ChipHost:
        return self.hosts[self.group_of[chip]]

    def launch(self, name: str, inputs: Inputs) -> Result:
        flying, begun, outputs, digests = {}, set(), {}, {}
        for batch in self.batches[name]:
            mine = None if batch.group in begun else inputs
            if mine is not None:
                begun.add(batch.group)
                mine = {c: inputs[c] for c in self.members[batch.group] if c in inputs}
            bundles = [flying.pop((source, batch.index)) for source, _ in batch.inbox]
            reply = self.hosts[batch.group].run(name, batch.index, mine, *bundles)
            returned = reply if replies(batch) > 1 else [reply]
            assert len(returned) == replies(batch)
            for (target, _), bundle in zip(batch.outbox, returned, strict=False):
                flying[batch.index, target] = bundle
            if batch.last:
                outputs |= returned[-1].outputs
                digests |= returned[-1].digests
        assert not flying
        return Result(outputs, self.wirings[name].end_cycle, digests)


@pytest.fixture
def keep_backend():
    """Chip hosts choose NumPy for their process, which here is that of the other tests, too."""
    before = backend._chosen
    yield
    backend.set_backend(before)


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_tokens_are_those_of_the_reference(plan):
    assert local_outcome(*plan).tokens == reference_tokens()


def test_chips_that_only_pass_vectors_on_have_programs_of_their_own():
    assert lowered(*THROUGH).transit_chips
    assert local_outcome(*THROUGH).tokens == reference_tokens()
    assert local_outcome(*THROUGH).decode_cycles > local_outcome(2, 1, "node").decode_cycles


@pytest.mark.parametrize("plan, pack", [(PLANS[3], 1), (PLANS[3], 3), (THROUGH, 2)], ids=str)
def test_groups_of_chips_give_equal_bits_and_cycles(plan, pack, keep_backend):
    machine = HostMachine(pack)
    machine.load(lowered(*plan), no_progress)
    assert outcome(lowered(*plan), machine) == local_outcome(*plan)


def test_executed_cycles_are_compared_with_the_schedule():
    plan = lowered(1, 1, "node")
    launches = dict(plan.launches)
    decode = launches["decode@320"]
    launches["decode@320"] = replace(
        decode, end_cycles={c: e + 1 for c, e in decode.end_cycles.items()}
    )
    with pytest.raises(ScheduleMismatch, match="launch decode@320: chip 0 was scheduled"):
        LocalMachine().load(replace(plan, launches=launches), no_progress)


def test_a_batch_that_failed_fails_the_rest_of_its_launch(keep_backend):
    machine = HostMachine(4)
    plan = lowered(2, 2, "ring:4")
    machine.load(plan, no_progress)
    (host,) = machine.hosts
    for _ in range(2):
        with pytest.raises(ChipError, match="does not fill"):
            host.run("decode@320", 0, {0: {"x0": host._group.chips[0].accumulators[0]}})
    with pytest.raises(ChipError, match="does not fill"):
        host.run("decode@320", 0, None)


def test_one_group_needs_one_batch_and_a_group_a_chip_sends_in_bundles():
    machine = LocalMachine()
    machine.load(lowered(2, 2, "ring:4"), no_progress)
    wiring = machine._wirings["decode@320"]
    (whole,) = batches(wiring, dict.fromkeys(range(4), 0))
    assert whole.last and whole.calls == wiring.calls and not whole.inbox and not whole.outbox
    cut = batches(wiring, {chip: chip for chip in range(4)})
    assert {call for batch in cut for call in batch.calls} == set(wiring.calls)
    assert all(source < batch.index for batch in cut for source, _ in batch.inbox)
    assert sum(batch.last for batch in cut) == 4
