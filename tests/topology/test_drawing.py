from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest

from topology import parse
from topology.drawing import draw, layout, routed
from topology.errors import BadFile


@pytest.mark.parametrize(
    "spec", ["node", "rack", "dragonfly:264", "torus:4x4x4", "ring:5", "lpx:32"]
)
def test_no_two_chips_lie_on_each_other(spec):
    places = list(layout(parse(spec)).values())
    assert len({(round(x, 6), round(y, 6)) for x, y in places}) == len(places)


@pytest.mark.parametrize(
    "spec", ["mesh:4x5", "torus:4x5", "torus:5x5", "torus:2x2x2", "fattree:15", "ring:8", "node"]
)
def test_no_wire_covers_another_or_a_chip_that_is_not_its_own(spec):
    graph = parse(spec)
    places = layout(graph)
    chips = np.array([places[chip] for chip in sorted(graph)])
    gaps = np.linalg.norm(chips[:, None] - chips, axis=2)
    room = gaps[gaps > 0].min()
    wires = {ends: dense(points) for ends, points in routed(graph, places).items()}
    for (u, v), points in wires.items():
        others = np.array([places[chip] for chip in graph if chip not in (u, v)])
        near = np.linalg.norm(points[:, None] - others, axis=2).min()
        assert near > 0.05 * room, (u, v)
    for one, other in combinations(wires.values(), 2):
        near = np.linalg.norm(one[:, None] - other, axis=2).min(axis=1) < 0.02 * room
        assert near.mean() < 0.15, "they may cross, and meet at a chip"


def dense(points):
    """Many points along a line of few."""
    x, y = np.array(points).T
    t = np.linspace(0, len(points) - 1, 121)
    return np.stack([np.interp(t, range(len(points)), axis) for axis in (x, y)], axis=1)


def test_pictures_are_written_and_repeatable(tmp_path):
    pytest.importorskip("matplotlib")
    graph = parse("node")
    for name in ("a.svg", "b.svg", "c.png"):
        draw(graph, str(tmp_path / name))
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    text = "".join(ElementTree.parse(tmp_path / "a.svg").getroot().itertext())
    assert "8 chips" in text and "node" in text
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("path", ["x.gif", "x", "/no/such/folder/x.svg"])
def test_what_cannot_be_drawn_is_one_line(path):
    with pytest.raises(BadFile):
        draw(parse("node"), path)
