"""Graphs of LPU chips and links, their routes, timetables, clocks, collectives and faults."""

from topology.building import ports
from topology.collectives import (
    Collective,
    Transfer,
    all_reduce,
    collective,
    execute,
    point_to_point,
)
from topology.errors import TopologyError
from topology.facts import Facts, facts
from topology.families.dragonflies import dragonfly, rack
from topology.families.fattree import fattree
from topology.families.files import file
from topology.families.graphs import full, node, random, ring
from topology.families.groups import groups
from topology.families.lattices import hypercube, hyperx, mesh, torus
from topology.families.lpx import lpx
from topology.families.quadfour import quadfour
from topology.links import PROFILES, Link, Profile, profile
from topology.registry import FAMILIES, parse
from topology.routes import route
from topology.spreading import crossover_bytes, disjoint_paths, spread
from topology.timetable import Run, Timetable

__all__ = [
    "FAMILIES",
    "PROFILES",
    "Collective",
    "Facts",
    "Link",
    "Profile",
    "Run",
    "Timetable",
    "TopologyError",
    "Transfer",
    "all_reduce",
    "collective",
    "crossover_bytes",
    "disjoint_paths",
    "dragonfly",
    "execute",
    "facts",
    "fattree",
    "file",
    "full",
    "groups",
    "hypercube",
    "hyperx",
    "lpx",
    "mesh",
    "node",
    "parse",
    "point_to_point",
    "ports",
    "profile",
    "quadfour",
    "rack",
    "random",
    "ring",
    "route",
    "spread",
    "torus",
]
