from xml.etree import ElementTree

import pytest

from topology import parse
from topology.drawing import draw, layout
from topology.errors import BadFile


@pytest.mark.parametrize(
    "spec", ["node", "rack", "dragonfly:264", "torus:4x4x4", "ring:5", "lpx:32"]
)
def test_no_two_chips_lie_on_each_other(spec):
    places = list(layout(parse(spec)).values())
    assert len({(round(x, 6), round(y, 6)) for x, y in places}) == len(places)


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
