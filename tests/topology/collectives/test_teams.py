from functools import reduce

import numpy as np
import pytest

from topology import all_reduce, collective, execute, parse
from topology.errors import BadCollective

TEAMS = ("teams", "gates", "homes", "agents", "relays")


def sums(parts):
    return reduce(np.add, parts)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("name", ["direct", "exchange", *TEAMS])
def test_sums_run_in_the_order_of_ranks_and_all_ranks_get_the_same(name, residual):
    """Of teams: what each is given is the sum of every team, which it adds up in their order."""
    graph = parse("dragonfly:24")
    timed = collective("all_reduce", graph, 9_000, name, unit_vectors=4, residual=residual)
    random = np.random.default_rng(1)
    y = random.standard_normal((24, timed.vectors, 3), np.float32)
    x = np.broadcast_to(random.standard_normal(y.shape[1:], np.float32), y.shape).copy()
    terms = [sums(y[n : n + 8]) for n in (0, 8, 16)] if name in TEAMS else list(y)
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


@pytest.mark.parametrize("ranks", [16, 24, 32])
def test_relays_send_each_sum_to_each_other_team_once_over_cables_that_share_them(ranks):
    rows = 13
    timed = collective(
        *("all_reduce", parse("dragonfly:576"), rows * 4 * 320, "relays", range(ranks)),
        chunks=2, unit_vectors=4,
    )  # fmt: skip
    fabric, carried = timed.fabric, timed.channel_vectors()
    tail, head = fabric.tail[fabric.channel_edge], fabric.head[fabric.channel_edge]
    for a in range(ranks // 8):
        for b in range(ranks // 8):
            loads = carried[(tail // 8 == a) & (head // 8 == b)] if a != b else []
            if len(loads):
                assert loads.sum() == 4 * rows and (
                    len(loads) == 1 or 3 * loads.max() <= 2 * 4 * rows
                )


@pytest.mark.parametrize("name", ["teams", "gates", "homes", "hierarchical"])
@pytest.mark.parametrize("profile", ["ship", "isca22"])
@pytest.mark.parametrize("unit", [1, 4])
def test_sums_between_nodes_are_rounded_once_and_half_as_long(name, profile, unit):
    """Those that stay, too. `execute` checks that every vector is there before it is sent."""
    graph = parse("dragonfly:24", profile)
    wide, narrow = (
        collective("all_reduce", graph, 9_000, name, unit_vectors=unit, sums_between=sums)
        for sums in ("fp32", "fp16")
    )
    y = np.random.default_rng(1).standard_normal((24, narrow.vectors, 3), np.float32)
    found = execute(narrow, y)
    narrow.check()
    terms = [sums(y[n : n + 8]) for n in (0, 8, 16)]
    bound = sum(np.abs(term) for term in terms) / 2048 + 1e-5  # the latter of fp32
    assert (np.abs(found - sums(terms)) <= bound).all() and (found != execute(wide, y)).any()
    if name != "hierarchical":  # which adds as things come
        assert (found == sums([one.astype(np.float16).astype(np.float32) for one in terms])).all()
    fabric, ends = narrow.fabric, []
    for timed in (wide, narrow):
        tail, head = fabric.tail[fabric.channel_edge], fabric.head[fabric.channel_edge]
        ends.append(timed.channel_vectors()[tail // 8 != head // 8].sum())
    assert ends[0] > ends[1] >= ends[0] / 2


def test_sums_too_large_for_fp16_are_infinite():
    timed = all_reduce_in_fp16(parse("dragonfly:16"), "teams")
    y = np.full((16, timed.vectors, 1), 8189.0, np.float32)  # of eight: 65,512, nearer to 65,504
    y[8:, 1] = 8190.0  # 65,520 is as near to 65,536
    found = execute(timed, y)
    assert (found[:, 0] == 2 * 65504).all() and (found[:, 1] == np.inf).all()


def all_reduce_in_fp16(graph, name, **more):
    return collective("all_reduce", graph, 1280, name, sums_between="fp16", **more)


def test_who_sends_no_sums_of_nodes_is_refused():
    with pytest.raises(BadCollective, match=r"'ring' has no sums.* use .*teams, gates"):
        all_reduce_in_fp16(parse("dragonfly:16"), "ring")
    with pytest.raises(BadCollective, match=r"broadcast.*leave them fp32"):
        collective("broadcast", parse("dragonfly:16"), 1280, sums_between="fp16")
    with pytest.raises(BadCollective, match="no chips of one node add up"):
        all_reduce_in_fp16(parse("node"), "auto")
    with pytest.raises(BadCollective, match="use one of fp32, fp16"):
        collective("all_reduce", parse("node"), 1280, sums_between="fp8")
    assert all_reduce_in_fp16(parse("dragonfly:16"), "auto").algorithm in (
        "teams",
        "gates",
        "agents",
    )


def test_other_groups_are_refused():
    with pytest.raises(BadCollective, match="whole teams"):
        all_reduce(parse("dragonfly:16"), 3200, "teams", chips=range(12))
