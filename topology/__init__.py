"""Graphs of LPU chips and links, their routes, timetables, clocks, collectives and faults."""

from topology.building import ports
from topology.errors import TopologyError
from topology.graphs import full, node, random, ring
from topology.lattices import hypercube, hyperx, mesh, torus
from topology.links import PROFILES, Link, Profile, profile
from topology.registry import FAMILIES, parse
from topology.routes import route
from topology.timetable import Run, Timetable

__all__ = [
    "FAMILIES",
    "PROFILES",
    "Link",
    "Profile",
    "Run",
    "Timetable",
    "TopologyError",
    "full",
    "hypercube",
    "hyperx",
    "mesh",
    "node",
    "parse",
    "ports",
    "profile",
    "random",
    "ring",
    "route",
    "torus",
]
