"""Ways between teams, against a walk over all ways in the graph."""

import pytest

from topology import parse
from topology.collectives.trunks import MOST_SHARED, trunks
from topology.fabric import compiled


@pytest.mark.parametrize("spec, chips, size", [
    ("dragonfly:144", 16, 8), ("dragonfly:144", 24, 8), ("torus:4x4x4", 16, 8), ("mesh:6x6", 12, 4),
])  # fmt: skip
def test_trunks_are_the_nearest_ways_past_chips_of_no_team(spec, chips, size):
    graph, group = parse(spec), range(8, 8 + chips)
    fabric, team = compiled(graph), {chip: n // size for n, chip in enumerate(group)}
    near = {chip: sorted(graph[chip]) for chip in graph}
    direct, ways = {}, []
    for a in group:
        for x in near[a]:
            if x in team and team[x] != team[a]:
                direct.setdefault((team[a], team[x]), []).append((x,))
            if x in team:
                continue
            for y in near[x]:
                ends = [(x, y)] if y in team else [(x, y, z) for z in near[y] if z in team]
                ways += [(a, way) for way in ends if team[way[-1]] != team[a]]
    teams = chips // size
    least = teams - 1 if len(direct) == teams * (teams - 1) else 1
    reached = {}
    for a, way in ways:
        reached.setdefault((a, way[0]), set()).add(team[way[-1]])
    expected = {pair: sorted(some) for pair, some in direct.items()}
    for pair in {(team[a], team[way[-1]]) for a, way in ways}:
        some = [
            (len(way), *((chip - group[0]) % len(graph) for chip in way), a, way)
            for a, way in ways
            if (team[a], team[way[-1]]) == pair and len(reached[a, way[0]]) >= least
        ]
        room = max(0, MOST_SHARED - len(expected.get(pair, ())))
        if some:
            expected.setdefault(pair, []).extend(one[-1] for one in sorted(some)[:room])
    found = trunks(fabric, group, size, shared=True)
    heads = fabric.head.tolist()
    assert found.keys() == expected.keys()
    for pair, some in found.items():
        mine = [tuple(heads[edge] for edge in way) for way in some]
        count = len(direct.get(pair, ()))
        assert sorted(mine[:count]) == expected[pair][:count]
        assert mine[count:] == expected[pair][count:]
