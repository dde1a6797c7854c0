"""Routes of groups: what is known of one placement gives no other routes in the next."""

from cluster.compiler.place import Places
from cluster.compiler.wires import Wires
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
