import pytest

from topology import FAMILIES, TopologyError, parse
from topology.errors import BadSpec, PortsExceeded

DESIGN_SPECS = [
    *("node", "ring:16", "torus:8x8x8", "mesh:4x4", "hypercube:6", "dragonfly:264", "quadfour:72"),
    *("lpx:256", "full:16", "hyperx:4x4x4", "fattree:64", "random:64:6:seed", "rack"),
    "groups:384:128",
]


@pytest.mark.parametrize("spec", DESIGN_SPECS)
def test_specs_of_the_design_parse_with_the_chips_they_name(spec):
    graph = parse(spec)
    named = {"node": 8, "rack": 72, "torus:8x8x8": 512, "mesh:4x4": 16}
    named |= {"hypercube:6": 64, "hyperx:4x4x4": 64}
    assert len(graph) == named.get(spec) or len(graph) == int(spec.split(":")[1])
    assert sorted(graph) == list(range(len(graph)))


@pytest.mark.parametrize(
    "spec",
    [
        *(
            "",
            "ring",
            "ring:",
            "ring:x",
            "ring:1",
            "ring:3:4",
            "ring:-5",
            "ring:10000000",
            "node:8",
        ),
        *("torus:0x4", "torus:4x", "torus:axb", "torus:1", "torus", "mesh:1x1", "hypercube:17"),
        *("dragonfly:265", "dragonfly:8", "dragonfly:10448", "quadfour:64", "quadfour:73"),
        *("groups:384", "groups:384:100", "groups:384:136", "groups:128:128"),
        *("lpx:8", "lpx:300", "lpx:1280", "fattree:1", "random:5:3", "random:4:4", "random:4"),
        *("full:18", "ring:\u0663", "file:", "file:/no/such.graphml", "hyperx:0"),
    ],
)
def test_bad_specs_give_one_line_that_names_them(spec):
    with pytest.raises(TopologyError) as caught:
        parse(spec)
    text = str(caught.value)
    assert "\n" not in text and (spec.removeprefix("file:") in text)


def test_an_unknown_topology_lists_the_known_ones():
    with pytest.raises(BadSpec) as caught:
        parse("klein-bottle:4")
    assert all(family.usage in str(caught.value) for family in FAMILIES.values())


def test_the_port_limit_is_that_of_the_profile_and_can_be_lifted():
    with pytest.raises(PortsExceeded) as caught:
        parse("full:18")
    assert (caught.value.needed, caught.value.limit) == (17, 16)
    assert len(parse("full:18", overrides={"links_per_chip": 17})) == 18
    with pytest.raises(PortsExceeded):
        parse("node", overrides={"ports_per_chip": 6})


def test_a_family_has_its_own_default_profile():
    assert parse("lpx:256").graph["profile"].name == "lp30"
    assert parse("ring:4").graph["profile"].name == "ship"
    with pytest.raises(PortsExceeded):
        parse("lpx:256", "ship")
