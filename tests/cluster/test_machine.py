"""The local machine on several plans, and the same launches cut into groups of chips."""

import copy
import queue
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from chip import jit
from chip.board import facts
from chip.errors import ChipError, ProgramError
from chip.group import Batch, batches
from chip.linker import cuts, reuse
from chip.linker.reuse import Linker
from chip.spec import GROQCHIP1
from chip.wire import pack_value
from cluster.compiler.lower import lower
from cluster.compiler.place import place
from cluster.compiler.stages import partition
from cluster.machines.machine import Inputs, LocalMachine, Result, ScheduleMismatch
from cluster.machines.ray.channels import MESSAGE_BYTES, Need, needs, unpack_packets
from cluster.machines.ray.chip_host import ChipHost, Wanted
from cluster.machines.ray.exchange import exchange
from cluster.machines.ray.grouping import actor_name, grouped, pack_inputs
from cluster.program_store import ProgramStore
from tests.cluster.tiny import (
    local_outcome,
    lowered,
    no_progress,
    outcome,
    reference_tokens,
    tiny_weights,
)
from topology import parse

PLANS = [(1, 1, "node"), (2, 1, "node"), (1, 2, "ring:4"), (2, 2, "ring:4"), (4, 2, "torus:3x3")]
THROUGH = (2, 1, "ring:6", ((0, 3),))  # chips 0 and 3 talk through others


class QueueSlot:
    """A slot in this process; Ray has them in shared memory."""

    def __init__(self) -> None:
        self.queue, self.closed = queue.Queue(1), False

    def write(self, value, timeout=None) -> None:
        self.queue.put(value, timeout=20)

    def read(self, timeout=None):
        while not self.closed:
            with suppress(queue.Empty):
                return self.queue.get(timeout=0.05)
        raise ConnectionError("closed")

    def close(self) -> None:
        self.closed = True


class HostMachine:
    """Chip hosts called as Ray calls them, but on threads."""

    name, actors = "hosts", 0

    def __init__(self, pack: int) -> None:
        self.pack = pack

    def load(self, plan, _progress) -> None:
        self.members = grouped(plan, self.pack)
        self.group_of = {chip: n for n, group in enumerate(self.members) for chip in group}
        self.plan = plan
        spec = plan.plan.spec.name
        self.hosts = [ChipHost(actor_name(plan, group), group, spec) for group in self.members]
        known = {name: {} for name in plan.launches}
        for name, launch in plan.launches.items():
            for chip, data in launch.programs.items():
                (known[name][chip],) = self.host(chip).load([(name, chip, data)])
        self.exchange = exchange(plan, known, self.group_of)
        for number, host in enumerate(self.hosts):
            host.prepare(self.exchange.of_group(number))
        for constant in plan.constants():
            self.host(constant[0]).write([constant])
        for host in self.hosts:
            host.ready()
        self.open_channels()

    def open_channels(self) -> None:
        for (sender, receiver), need in self.exchange.channels.items():
            wanted = [Wanted(receiver, None, "here", need.slots, need.message_bytes)]
            node = "here" if sender < receiver else "there"  # a ring, or slots of a channel
            line = self.hosts[sender].open_channels(lambda *_: QueueSlot(), None, node, wanted)
            self.hosts[receiver].take_channel(sender, copy.copy(line))

    def join(self, name: str, parts) -> None:
        self.exchange = self.exchange.joined(self.plan, name, parts)
        for number, host in enumerate(self.hosts):
            host.prepare(self.exchange.of_group(number, (name,)))
        for host in self.hosts:
            host.close_channels()
        self.open_channels()

    def host(self, chip: int) -> ChipHost:
        return self.hosts[self.group_of[chip]]

    def launch(self, name: str, inputs: Inputs) -> Result:
        data, outputs, digests = pack_inputs(inputs), {}, {}
        busy = self.exchange.busy(name)
        with ThreadPoolExecutor(len(busy)) as pool:
            calls = [pool.submit(self.hosts[number].launch, name, data) for number in busy]
            if any(call.exception() for call in wait(calls, None, FIRST_EXCEPTION).done):
                for host in self.hosts:
                    host.close_channels()
        for call in calls:
            outputs |= call.result().outputs
            digests |= call.result().digests
        return Result(outputs, self.exchange.wirings[name].end_cycle, digests)


@pytest.fixture
def keep_backend():
    """Chip hosts choose NumPy for their process, which here is that of the other tests, too."""
    before = jit._chosen
    yield
    jit.set_backend(before)


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_tokens_are_those_of_the_reference(plan):
    assert local_outcome(*plan).tokens == reference_tokens()


def test_chips_that_only_pass_vectors_on_have_programs_of_their_own():
    assert lowered(*THROUGH).transit_chips
    assert local_outcome(*THROUGH).tokens == reference_tokens()
    assert local_outcome(*THROUGH).cycles[-1] > local_outcome(2, 1, "node").cycles[-1]


@pytest.mark.parametrize("plan, pack", [(PLANS[3], 1), (PLANS[3], 3), (THROUGH, 2)], ids=str)
def test_groups_of_chips_give_equal_bits_and_cycles(plan, pack, keep_backend):
    machine = HostMachine(pack)
    machine.load(lowered(*plan), no_progress)
    assert outcome(lowered(*plan), machine) == local_outcome(*plan)


def test_executed_cycles_are_compared_with_the_schedule():
    plan = lowered(1, 1, "node")
    launches = dict(plan.launches)
    decode = launches["rows1.logits1@320"]
    launches["rows1.logits1@320"] = replace(
        decode, end_cycles={c: e + 1 for c, e in decode.end_cycles.items()}
    )
    with pytest.raises(ScheduleMismatch, match=r"launch rows1\.logits1@320: chip 0 was scheduled"):
        LocalMachine().load(replace(plan, launches=launches), no_progress)


def test_a_group_that_fails_lets_the_others_end_and_all_go_on_with_new_channels(keep_backend):
    machine = HostMachine(1)
    plan = lowered(2, 2, "ring:4")
    machine.load(plan, no_progress)
    wrong = {0: {"x0": np.zeros((9, 7), np.float32)}}
    for _ in range(2):
        with pytest.raises(ChipError, match="does not fill"):
            machine.launch("rows1.logits1@320", wrong)
        machine.open_channels()
    assert outcome(plan, machine) == local_outcome(2, 2, "ring:4")


@pytest.mark.parametrize(
    "message", [b"\xc1", pack_value([1, 2]), pack_value(["a", 2, []]), pack_value([1, 2, [3]])]
)
def test_what_is_no_message_of_packets_is_refused(message):
    with pytest.raises(ProgramError, match=r"corrupt|does not consist"):
        unpack_packets(message)


def test_lines_have_the_slots_that_the_order_of_batches_needs():
    def batch(index, group, inbox=(), outbox=()):
        packets = ((0, 0),)
        pairs = tuple((at, packets) for at in inbox), tuple((at, packets) for at in outbox)
        return Batch(index, group, (), *pairs)

    order = [
        batch(0, 0, outbox=[3]),
        batch(1, 0, outbox=[2, 3]),
        batch(2, 1, [1]),
        batch(3, 1, [0, 1]),
    ]
    found = needs({"a": order}, {"a": {(0, 0): 320}})
    assert found == {(0, 1): Need(3, 320 + 2 * MESSAGE_BYTES)}


def test_one_group_needs_one_batch_and_a_group_a_chip_sends_in_bundles():
    machine = LocalMachine()
    machine.load(lowered(2, 2, "ring:4"), no_progress)
    wiring = machine.wirings["rows1.logits1@320"]
    (whole,) = batches(wiring, dict.fromkeys(range(4), 0))
    assert whole.calls == wiring.calls and not whole.inbox and not whole.outbox
    cut = batches(wiring, {chip: chip for chip in range(4)})
    assert {call for batch in cut for call in batch.calls} == set(wiring.calls)
    assert all(source < batch.index for batch in cut for source, _ in batch.inbox)


def test_programs_link_alike_alone_and_beside_equal_ones_and_as_they_are_kept():
    """A chip has an actor of its own or shares a process: the digest must not tell."""
    weights = tiny_weights(num_hidden_layers=4)
    graph, plan = parse("ring:4"), partition(weights.model, GROQCHIP1, 1, 4)
    deep = lower(plan, place(plan, graph, "ring:4"), graph, weights)
    together = Linker()
    for launch in deep.launches.values():
        for data in launch.programs.values():
            alone, beside = Linker()(data), together(data)
            assert alone.segment_end_cycles == beside.segment_end_cycles
            assert (facts(alone), alone.written) == (facts(beside), beside.written)
    kept = Linker()
    kept.take(together.pack())
    for launch in deep.launches.values():
        for data in launch.programs.values():
            found, linked = kept(data), together(data)
            assert found.program == linked.program
            assert (facts(found), found.written) == (facts(linked), linked.written)
    assert kept.pack() == together.pack()


def test_what_is_kept_is_not_linked_again_and_gives_equal_bits(tmp_path, monkeypatch):
    plan, store = lowered(2, 2, "ring:4"), ProgramStore(tmp_path)
    expected = local_outcome(2, 2, "ring:4")
    LocalMachine(store).load(plan, no_progress)
    monkeypatch.setattr(reuse, "link", None)
    machine = LocalMachine(store)
    machine.load(plan, no_progress)
    assert outcome(plan, machine) == expected


def test_what_follows_a_prelude_keeps_its_segments(monkeypatch):
    """The segments that the digest knows are those of a stretch that begins with its prelude."""
    launches = lowered(1, 2, "ring:4").launches.values()
    programs = [data for launch in launches for data in launch.programs.values()]
    ready = [*map(Linker(), programs)]
    monkeypatch.setattr(cuts, "_prelude", lambda *_: [])
    whole = [*map(Linker(), programs)]
    for one, other in zip(ready, whole, strict=True):
        assert one.segment_end_cycles == other.segment_end_cycles
        assert (one.sends, one.receives) == (other.sends, other.receives)
    starts = {block.first for one in ready for blocks in one.segments for block in blocks}
    assert any(map(cuts.is_after_prelude, starts))
