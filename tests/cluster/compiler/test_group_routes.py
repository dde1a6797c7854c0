"""Routes of groups: what is known of one placement gives no other routes in the next."""

import pytest

from cluster.compiler.place import Places
from cluster.compiler.wires import Wires
from cluster.planning.cost_store import CostStore
from topology import parse


def test_groups_among_placed_chips_are_routed_as_by_wires_that_know_no_others():
    graph = parse("dragonfly:144")
    known = Wires(graph)
    for pp in (2, 4, 5, 7):
        placement = Places(graph).place(16, pp).placement
        mine, fresh = (wires.pipeline(placement) for wires in (known, Wires(graph)))
        assert mine.links == fresh.links
        assert any(len(group.members) > 16 for group in mine.alone)  # past chips of others
        for one, other in zip(mine.alone, fresh.alone, strict=True):
            assert one.members == other.members and one.routes.digest == other.routes.digest


@pytest.mark.parametrize("spec, tp, pp", [("dragonfly:144", 16, 5), ("ring:6", 2, 3)])
def test_a_pipeline_from_the_disk_is_the_one_that_was_routed(spec, tp, pp, tmp_path, monkeypatch):
    graph, store = parse(spec), CostStore(tmp_path)
    placement = Places(graph).place(tp, pp).placement
    routed = Wires(graph, store=store).pipeline(placement)
    with monkeypatch.context() as unrouted:
        unrouted.setattr(Wires, "_route", None)
        kept = Wires(graph, store=store).pipeline(placement)
        assert kept == routed and kept.used == routed.used and kept.apart == routed.apart
    for one, other in zip(
        (*kept.groups, *kept.alone), (*routed.groups, *routed.alone), strict=True
    ):
        assert dict(one.routes) == dict(other.routes)
        assert (one.routes.cables, one.routes.reach) == (other.routes.cables, other.routes.reach)
    for link, was in zip(kept.links, routed.links, strict=True):
        assert [*link.paths] == [*was.paths] and [*link.onward] == [*was.onward]


def test_a_pipeline_of_other_chips_or_cables_is_not_taken_from_the_disk(tmp_path):
    store, placement = CostStore(tmp_path), ((0, 1), (2, 3))
    for spec in ("ring:6", "mesh:1x6", "node"):
        graph = parse(spec)
        for apart in (False, True):
            kept, fresh = (Wires(graph, apart, store=some) for some in (store, None))
            assert kept.pipeline(placement) == fresh.pipeline(placement)


def test_routes_do_not_depend_on_what_was_routed_before():
    graph = parse("dragonfly:144")
    forth = tuple(tuple(range(16 * n, 16 * n + 16)) for n in range(6))
    orders = [forth, forth[::-1], forth[2:], forth[:3]]
    known = Wires(graph)
    for placement in (*orders, *orders[::-1]):
        assert known.pipeline(placement) == Wires(graph).pipeline(placement)
