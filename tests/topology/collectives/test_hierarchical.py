import pytest

from topology import all_reduce, parse
from topology.errors import BadCollective


@pytest.mark.parametrize(
    ("spec", "hops"), [("node", 1), ("full:5", 1), ("dragonfly:24", 3), ("dragonfly:264", 3)]
)
def test_a_small_all_reduce_takes_as_many_hops_as_the_packaging(spec, hops):
    """ISCA'22: local, global, local."""
    timed = all_reduce(parse(spec), 320, "hierarchical")
    assert timed.cycles == hops * 270
    timed.check()


def test_racks_add_a_level(verify):
    timed = all_reduce(parse("dragonfly:272"), 320, "hierarchical")
    assert timed.cycles == 7 * 270
    verify(timed)


@pytest.mark.parametrize("spec", ["ring:5", "torus:4x4", "quadfour:136"])
def test_graphs_without_such_levels_are_refused(spec):
    with pytest.raises(BadCollective):
        all_reduce(parse(spec), 320, "hierarchical")
