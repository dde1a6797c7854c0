import json

import pytest
from click.testing import CliRunner

from cluster.cli import lpu
from topology import TopologyError
from topology.registry import FAMILIES


def call(command, *args):
    result = CliRunner().invoke(lpu, [command, *args], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_topology_prints_the_contract_as_one_json_object():
    report = json.loads(call("topology", "dragonfly:264", "--json", "--clocks"))
    assert report["chips"] == 264 and report["diameter_hops"] == 3 and report["links"] == 1452
    for key in ("mean_hops", "bisection_bytes_per_s", "sram_bytes", "max_latency_s", "clocks"):
        assert report[key]


def test_collective_prints_the_contract_as_one_json_object():
    args = ("all-reduce", "--topology", "torus:4x4", "--bytes", "100000", "--json")
    report = json.loads(call("collective", *args))
    for key in ("cycles", "seconds", "algorithm", "algbw_bytes_per_s", "busbw_bytes_per_s"):
        assert report[key]
    assert 0 < report["link_utilisation"]["max"] <= 1
    assert report["cycles"] >= report["lower_bound_cycles"]


def test_links_profiles_faults_groups_and_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "x.svg"
    report = json.loads(
        call("topology", "quadfour:136", "--faults", "node:3", "--profile", "isca22",
             "--link", "latency_cycles=300", "--draw", str(picture), "--json")
    )  # fmt: skip
    assert report["faults"]["dead_chips"] == list(range(24, 32)) and picture.exists()
    assert report["link"]["latency_cycles"] == 300
    args = ("broadcast", "--chips", "0,2-4", "--root", "3", "--topology", "ring:6", "--json")
    assert json.loads(call("collective", *args))["chips"] == 4
    assert "cycles" in call("collective", "point_to_point", "--topology", "ring:6")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_asked_for(family, user_graph):
    spec = f"file:{user_graph}" if family == "file" else FAMILIES[family].example
    assert "diameter" in call("topology", spec)


@pytest.mark.parametrize(
    ("command", "args"),
    [
        ("topology", ["torus:0x4"]),
        ("topology", ["node", "--link", "latency_cycles"]),
        ("topology", ["node", "--link", "latency_cycles=x"]),
        ("topology", ["node", "--profile", "v9"]),
        ("topology", ["node", "--faults", "chip:77"]),
        ("topology", ["node", "--clocks", "--drift-ppm", "400"]),
        ("collective", ["all_reduce", "--chips", "a-b"]),
        ("collective", ["all_reduce", "--chips", "0"]),
        ("collective", ["all_reduce", "--chips", "0,99"]),
        ("collective", ["all_reduce", "--algorithm", "magic"]),
        ("collective", ["broadcast", "--root", "12"]),
        ("collective", ["gossip"]),
    ],
)
def test_bad_input_is_a_topology_error_of_one_line(command, args):
    with pytest.raises(TopologyError) as caught:
        CliRunner().invoke(lpu, [command, *args], catch_exceptions=False)
    assert "\n" not in str(caught.value)
