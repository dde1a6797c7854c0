"""All-reduce between tensor-parallel ranks: every way gives the same bits on every member."""

import numpy as np
import pytest

from chip.kernels.allreduce import AllReduce, gathers, team_of
from chip.kernels.collective import batches
from chip.kernels.collective_items import Message, in_order, urgent_first
from chip.kernels.transfer import Hop
from chip.spec import GROQCHIP1
from cluster.compiler.lower import lower
from cluster.compiler.place import place
from cluster.compiler.stages import partition
from cluster.compiler.wires import Wires
from cluster.machines.machine import LocalMachine
from cluster.model.reference import Reference
from cluster.model.weights.synthetic import SyntheticWeights
from tests.cluster.tiny import forced, rounded_between_nodes, tiny_weights
from topology import parse
from topology.clocks import ClockSpec
from topology.collectives import SUM_FORMATS

WIDE = {"num_hidden_layers": 1, "hidden_size": 1600}  # five blocks: too many to gather at tp 4
PROMPT = [1, 5, 9, 20, 3]


def test_no_cable_is_twice_in_a_batch():
    def route(*ports: int) -> tuple[Hop, ...]:
        return tuple(Hop(n, port, n + 1, 0, 270, 27) for n, port in enumerate(ports))

    routes = dict(enumerate([route(0), route(1), route(0, 3), route(1, 4), route(2)]))
    found = batches(routes)
    assert sorted(map(len, found)) == [2, 3]
    for batch in found:
        cables = [(hop.member, hop.port) for number in batch for hop in routes[number]]
        assert len(set(cables)) == len(cables)


@pytest.mark.parametrize("tp, topology", [(2, "node"), (4, "node"), (4, "ring:5"), (3, "mesh:2x2")])
def test_a_wide_model_computes_what_the_reference_does(tp, topology):
    weights, graph = tiny_weights(**WIDE), parse(topology)
    plan = partition(weights.model, GROQCHIP1, tp, 1)
    assert gathers(5, tp) == (tp < 4)
    lowered = lower(plan, place(plan, graph, topology), graph, weights)
    machine = LocalMachine()
    machine.load(lowered, lambda *_: None)
    reference = Reference(weights, context=16)
    for ours, ids in zip(forced(lowered, machine, PROMPT, 4), (PROMPT, [4]), strict=True):
        assert np.abs(ours - reference.forward(ids)).max() < 0.01


@pytest.mark.parametrize("members, team", [(1, 1), (7, 7), (8, 8), (9, 9), (16, 8), (24, 8)])
def test_only_several_whole_teams_work_as_teams(members, team):
    assert team_of(members) == team


@pytest.mark.parametrize("name", [None, "homes"])
def test_two_teams_compute_what_the_int8_reference_does(monkeypatch, name):
    """Sums of teams are rounded otherwise than one sum of all: equal bits prove the order.

    One cable joins two teams, so that some rows go through chips of a stage that waits. As wider
    groups do, these two may have `homes` for their rows.
    """
    if name:
        monkeypatch.setattr(AllReduce, "_algorithms", lambda *_: (name,))
    sizes = {"num_attention_heads": 16, "num_key_value_heads": 16, "intermediate_size": 640}
    weights = tiny_weights(num_hidden_layers=2, hidden_size=1600, **sizes)
    graph = parse("dragonfly:200")
    plan = partition(weights.model, GROQCHIP1, 16, 2, weights="int8")
    lowered = lower(plan, place(plan, graph, "dragonfly:200"), graph, weights)
    told = [group.routes.all_reduce("gates", 5, True, "fp32") for group in lowered.pipeline.alone]
    hops = {hop for items in told for one in items if isinstance(one, Message) for hop in one.hops}
    assert any(hop.to_member >= 16 for hop in hops)
    machine = LocalMachine()
    machine.load(lowered, lambda *_: None)
    reference = Reference(weights, 16, tp=16, exact=True)
    for ours, ids in zip(forced(lowered, machine, PROMPT, 4), (PROMPT, [4]), strict=True):
        assert (ours == reference.forward(ids)).all()


def test_what_is_urgent_is_placed_sooner_and_never_before_what_it_waits_for():
    items = Wires(parse("dragonfly:16")).group(tuple(range(16))).routes.all_reduce(
        "agents", 5, True, "fp32"
    )  # fmt: skip
    hurried, place = urgent_first(items), {}
    for turn, number in enumerate(in_order(hurried)):
        place[number] = turn
        assert all(place[other] < turn for other in items[number].after)
    earlier = [a.start_cycle - b.start_cycle for a, b in zip(items, hurried, strict=True)]
    firsts = [e for e, item in zip(earlier, items, strict=True) if not item.after]
    assert min(firsts) == max(earlier) > 0 <= min(earlier)


def test_sums_that_travel_as_fp16_are_those_of_the_reference():
    """And not those that travel as fp32, but not far from them."""
    lowered, machine = rounded_between_nodes(), LocalMachine()
    machine.load(lowered, lambda *_: None)
    references = []
    for sums in SUM_FORMATS:
        weights = SyntheticWeights(lowered.plan.model.with_sums(sums))
        references.append(Reference(weights, 16, tp=16, exact=True))
    for ours, ids in zip(forced(lowered, machine, PROMPT, 4), (PROMPT, [4]), strict=True):
        whole, rounded = (reference.forward(ids) for reference in references)
        assert (ours == rounded).all() and 0 < np.abs(ours - whole).max() < 0.1


def test_a_long_all_reduce_goes_in_parts_between_two_deskews():
    weights, graph = tiny_weights(**WIDE, intermediate_size=320), parse("node")
    plan = partition(weights.model, GROQCHIP1, 4, 1, weights="int8")
    placement = place(plan, graph, "node")
    lowered = lower(plan, placement, graph, weights, ClockSpec(drift_ppm=1150))
    routes = Wires(graph).group(placement[0]).routes
    limit = lowered.clocking.pace(0).limit_cycles
    whole = [s.what for s in plan.stage(0).steps(plan.chunk, 1, routes)]
    steps = list(plan.stage(0).steps(plan.chunk, 1, routes, limit))
    assert [s.what for s in steps].count("all-reduce") == 2 * whole.count("all-reduce")
    assert all(step.cycles <= limit for step in steps)
    machine = LocalMachine()
    machine.load(lowered, lambda *_: None)
    ids = list(range(1, 40))
    (ours,) = forced(lowered, machine, ids)
    assert (ours == Reference(weights, 64, tp=4, exact=True).forward(ids)).all()
