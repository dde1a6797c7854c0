"""Is a torus of nodes, a graph of one's own, better for Llama-2-70B than a dragonfly?

python scripts/whatif/own_topology.py
"""

import sys
from itertools import combinations
from pathlib import Path

import networkx as nx

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # from a checkout, not installed
import cluster

ROWS, COLUMNS, NODE = 8, 9, 8  # a torus of nodes of eight chips, each cabled to all others
graph = nx.Graph()
for node in range(ROWS * COLUMNS):
    row, column = divmod(node, COLUMNS)
    graph.add_edges_from((NODE * node + a, NODE * node + b) for a, b in combinations(range(8), 2))
    right, below = row * COLUMNS + (column + 1) % COLUMNS, (row + 1) % ROWS * COLUMNS + column
    for chip, other in ((0, right), (1, right), (4, below), (5, below)):
        graph.add_edge(NODE * node + chip, NODE * other + chip + 2)
path = Path(__file__).with_name("own.graphml")
nx.write_graphml(graph, path)
topologies = [f"file:{path}", "dragonfly:576", "torus:8x8x9"]
question = {"model": "llama-2-70b", "weights": "int8", "grid": {"topology": topologies}}
print(cluster.sweep(question, output="own_topology"))
