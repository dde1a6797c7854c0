"""What the options leave open is chosen; what cannot be is an error."""

import pytest

from chip.errors import UnknownChip
from chip.spec import GROQCHIP1
from cluster.compiler.choose import PlanRequest, choose, default_topology
from cluster.compiler.launch import decode_kind
from cluster.compiler.place import place
from cluster.compiler.sizes import Sizes
from cluster.errors import BadValue, DoesNotFit
from cluster.model.known import changed_model, known_model
from cluster.planning.search import Search
from topology import TopologyError, parse

SMOLLM2, TINY = known_model("smollm2"), known_model("tiny")


def chosen(model, **options) -> tuple[int, int, str]:
    found = choose(model, PlanRequest(**options))
    return found.plan.tp, found.plan.pp, found.topology


def test_without_options_the_fewest_chips_that_fit_are_taken():
    assert chosen(TINY) == (1, 1, "node")
    assert chosen(SMOLLM2) == (1, 2, "node")
    assert chosen(SMOLLM2, tp=3) == (3, 1, "node")


def test_chips_are_spread_as_asked():
    assert chosen(SMOLLM2, chips=6) == (1, 6, "node")
    assert chosen(SMOLLM2, chips=6, tp=3) == (3, 2, "node")
    assert chosen(SMOLLM2, chips=90) == (3, 30, "torus:9x10")
    assert chosen(SMOLLM2, chips=90, pp=30) == (3, 30, "torus:9x10")
    assert chosen(SMOLLM2, pp=1) == (3, 1, "node")
    assert chosen(SMOLLM2, tp=3, pp=2, topology="ring:9") == (3, 2, "ring:9")


def test_the_default_topology_has_exactly_the_chips_of_the_plan():
    assert default_topology(1) == default_topology(8) == "node"
    assert default_topology(9, 3) == "torus:3x3"
    assert default_topology(11) == "ring:11"
    assert default_topology(270, 9) == "torus:15x18"


@pytest.mark.parametrize("options", [{"chips": 1}, {"tp": 1, "pp": 1}])
def test_what_would_fit_is_said(options):
    with pytest.raises(DoesNotFit, match=r"stage 0 needs .* what fits: --tp 1 --pp 2 \(2 chips\)"):
        choose(SMOLLM2, PlanRequest(**options))


def test_a_model_that_fits_nowhere_is_said_to():
    huge = changed_model("tiny", intermediate_size=5_000_000)
    with pytest.raises(DoesNotFit, match="no plan of tiny fits chip groqchip1"):
        choose(huge, PlanRequest())


def test_links_can_be_changed():
    found = choose(TINY, PlanRequest(tp=2, links=("latency_cycles=300",), profile="isca22"))
    assert found.graph.edges[0, 1]["link"].latency_cycles == 300


@pytest.mark.parametrize(
    "options, message",
    [
        ({"chips": 31}, "try 30"),
        ({"tp": 10}, "must be 1 to 9, the heads"),
        ({"chips": 5, "pp": 2}, "multiple of --pp 2"),
        ({"topology": "full:1"}, "full:1"),
        ({"context": 8193}, "8192"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises((BadValue, TopologyError), match=message):
        choose(SMOLLM2, PlanRequest(**options))


def test_an_unknown_chip_is_refused():
    with pytest.raises(UnknownChip, match="unknown chip 'tpu'"):
        choose(TINY, PlanRequest(spec="tpu"))


@pytest.mark.parametrize("faults, dead", [("chip:0", {0}), ("link:0-1", set())])
def test_a_plan_goes_around_dead_parts(faults, dead):
    choice = choose(TINY, PlanRequest(tp=2, pp=1, topology="ring:8", faults=faults))
    assert set(range(8)) - set(choice.graph) == dead
    placement = place(choice.plan, choice.graph, choice.topology)
    assert not dead & {chip for group in placement for chip in group}


def test_too_few_chips_left_says_so():
    with pytest.raises(BadValue, match=r"ring:4 with faults chip:1: has 3 chips"):
        choose(TINY, PlanRequest(tp=2, pp=2, topology="ring:4", faults="chip:1"))


def test_a_stage_is_not_laid_out_where_the_words_of_its_own_layers_do_not_fit():
    """Three dense layers have room where one of the mixtures behind them has not."""
    sizes = Sizes(known_model("deepseek-v3"), GROQCHIP1, 2048, "int8")
    assert sizes.room(128, False) == 1 and sizes.least_stages(128) == 61
    assert sizes.room(64, False) == 0 and sizes.least_stages(64) is None


@pytest.mark.parametrize("topology, tp, pp", [("torus:4x4", 3, 5), ("mesh:1x5", 2, 2)])
def test_with_all_stages_at_work_the_longest_says_the_interval(topology, tp, pp):
    timed = Search(SMOLLM2, GROQCHIP1, parse(topology)).timed(tp, pp)
    kind, own = decode_kind(320), set(timed.work.beside)
    ends = [timed.costs.stage_timing(one, kind, None).end_cycle for one in own]
    links = [timed.work.crossing(n, kind, None) for n in range(pp - 1)]
    crossing = max(sum(part.end_cycle for part in link) for link in links)
    assert timed.interval_cycles(320) == max(ends) + crossing and len(set(ends)) > 1
