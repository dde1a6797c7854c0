"""Orders in which the chips of a graph may be cut into tensor groups, one group after another."""

from collections.abc import Iterator

import networkx as nx


def chip_orders(graph: nx.Graph, tp: int) -> Iterator[list[int]]:
    """Orders in which groups of `tp` chips may be taken, by promise.

    By nodes and racks, no group in two nodes or racks unless it needs more than one, which
    leaves spare chips, first without nodes that have lost chips; by number; breadth first; in
    grids boustrophedon, in strips as wide as a group.
    """
    nodes: dict[tuple[int, int], list[int]] = {}
    racks = nx.get_node_attributes(graph, "rack")
    for chip, node in sorted(nx.get_node_attributes(graph, "node").items()):
        nodes.setdefault((racks.get(chip, 0), node), []).append(chip)
    if nodes and len(nodes) < len(graph):
        full = max(map(len, nodes.values()))
        whole = {node: chips for node, chips in nodes.items() if len(chips) == full}
        if len(whole) < len(nodes):
            yield _by_nodes(whole, tp)
        yield _by_nodes(nodes, tp)
    yield sorted(graph)
    yield list(nx.bfs_tree(graph, min(graph)))
    spots = nx.get_node_attributes(graph, "coordinates")
    if len(spots) == len(graph) and len({len(c) for c in spots.values()}) == 1:
        for axis in range(len(next(iter(spots.values())))):
            yield _strips(spots, axis, tp)


def _by_nodes(nodes: dict[tuple[int, int], list[int]], tp: int) -> list[int]:
    """Groups inside nodes, or of neighbouring nodes of a rack; then groups of what is left over."""
    size = min(map(len, nodes.values()))
    if tp <= size:
        whole = size // tp * tp
        first = [chip for node in nodes.values() for chip in node[:whole]]
        return first + [chip for node in nodes.values() for chip in node[whole:]]
    each = -(-tp // size)  # nodes of a group
    racks: dict[int, list[list[int]]] = {}
    for (number, _), chips in nodes.items():
        racks.setdefault(number, []).append(chips)
    found: list[int] = []
    left: list[list[int]] = []
    for rack in racks.values():
        end = len(rack) // each * each
        left += rack[end:]
        for start in range(0, end, each):
            found += [chip for node in rack[start : start + each] for chip in node][:tp]
    for start in range(0, len(left) - each + 1, each):
        found += [chip for node in left[start : start + each] for chip in node][:tp]
    return found


def _strips(spots: dict[int, tuple[int, ...]], axis: int, tp: int) -> list[int]:
    """Strips of `tp` chips along `axis`, gone up and down in the other dimensions in turn."""
    at = {spot: chip for chip, spot in spots.items()}
    extent = [1 + max(spot[d] for spot in at) for d in range(len(next(iter(at))))]
    others = [d for d in range(len(extent)) if d != axis]
    order = []
    up = True
    for start in range(0, extent[axis], tp):
        strip = range(start, min(start + tp, extent[axis]))
        rows = list(_snake([extent[d] for d in others]))
        for row in rows if up else reversed(rows):
            for along in strip:
                spot = [0] * len(extent)
                spot[axis] = along
                for d, value in zip(others, row, strict=True):
                    spot[d] = value
                if tuple(spot) in at:
                    order.append(at[tuple(spot)])
        up = not up
    return order


def _snake(extent: list[int]) -> Iterator[tuple[int, ...]]:
    """All points of a grid, each one step from the one before."""
    if not extent:
        yield ()
        return
    for first in range(extent[0]):
        rest = list(_snake(extent[1:]))
        for tail in rest if first % 2 == 0 else reversed(rest):
            yield (first, *tail)
