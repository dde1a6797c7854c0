from functools import reduce

import numpy as np
import pytest

from topology import all_reduce, collective, execute, parse
from topology.errors import BadCollective


def sums(parts):
    return reduce(np.add, parts)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("name", ["direct", "exchange", "teams", "gates", "agents"])
def test_sums_run_in_the_order_of_ranks_and_all_ranks_get_the_same(name, residual):
    """Of teams: what each is given is the sum of every team, which it adds up in their order."""
    graph = parse("dragonfly:24")
    timed = collective("all_reduce", graph, 9_000, name, unit_vectors=4, residual=residual)
    random = np.random.default_rng(1)
    y = random.standard_normal((24, timed.vectors, 3), np.float32)
    x = np.broadcast_to(random.standard_normal(y.shape[1:], np.float32), y.shape).copy()
    terms = (
        [sums(y[n : n + 8]) for n in (0, 8, 16)]
        if name in ("teams", "gates", "agents")
        else list(y)
    )
    found = execute(timed, y, x if residual else None)
    assert (found == sums([x[0], *terms] if residual else terms)).all()


@pytest.mark.parametrize(("spec", "ranks"), [("dragonfly:576", 16), ("dragonfly:576", 32)])
def test_cables_between_two_teams_carry_alike(spec, ranks):
    timed = all_reduce(parse(spec), 320 * 8 * 16, "teams", chips=range(ranks))
    fabric, carried = timed.fabric, timed.channel_vectors()
    tail, head = fabric.tail[fabric.channel_edge], fabric.head[fabric.channel_edge]
    for a in range(ranks // 8):
        for b in range(ranks // 8):
            loads = carried[(tail // 8 == a) & (head // 8 == b)] if a != b else []
            assert len(loads) == 0 or loads.max() - loads.min() <= 16


def test_other_groups_are_refused():
    with pytest.raises(BadCollective, match="whole teams"):
        all_reduce(parse("dragonfly:16"), 3200, "teams", chips=range(12))
