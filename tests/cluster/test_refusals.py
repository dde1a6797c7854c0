"""When no plan fits, the reason that is given is the true one, and what is said to fit does."""

import json
import re

import pytest

from chip.spec import GROQCHIP1
from cluster.cli import main
from cluster.compiler.choose import PlanRequest
from cluster.compiler.wires import Wires
from cluster.model.load import find_decoder
from cluster.planning.cost_store import CostStore
from cluster.planning.topologies import chosen_topology
from topology import parse

MIXTURE = {
    "model_type": "mixtral", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8,
    "num_key_value_heads": 8, "intermediate_size": 96, "vocab_size": 128, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 512, "num_local_experts": 4, "num_experts_per_tok": 2,
}  # fmt: skip


def refusal(capsys, *arguments: str) -> str:
    assert main(["plan", *arguments]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--topology", "ring:2", "--tp", "3"], "--topology ring:2: has 2 chips, --tp 3 x --pp 1"),
        (["--chips", "2", "--tp", "3"], "--chips 2: has 2 chips, --tp 3 x --pp 1 needs 3"),
        (["--topology", "ring:3", "--pp", "3", "--tp", "2"], "has 3 chips, --tp 2 x --pp 3"),
        (["--concurrency", "2"], "No such option '--concurrency'"),
    ],
)
def test_too_few_chips_are_no_matter_of_sram(arguments, reason, capsys):
    said = refusal(capsys, "tiny", *arguments)
    assert reason in said and "MiB" not in said


def test_caches_are_named_where_they_are_what_has_no_room(capsys):
    said = refusal(capsys, "tiny", "--batch", "1000", "--chips", "1")
    assert "caches of 1,000 sequences of 320 tokens" in said and "concurrency" not in said
    most = int(re.search(r"what fits on 1: --batch (\d+)", said)[1])
    for batch, code in ((most, 0), (most + 1, 2)):
        assert main(["plan", "tiny", "--chips", "1", "--batch", str(batch)]) == code


def test_groups_that_work_side_by_side_keep_to_their_own_chips():
    graph, chips = parse("dragonfly:72"), tuple(range(16))
    assert len(Wires(graph).group(chips).members) > 16
    own = Wires(graph, apart=True).group(chips)
    assert own.members == chips
    told = own.routes.all_reduce("teams", 1, False, "fp32")
    assert {hop.member for hop in own.routes.cables} <= set(range(16)) and told


def test_a_mixture_is_planned_for_several_sequences(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(MIXTURE))
    command = ["plan", str(tmp_path), "--tp", "4", "--pp", "2", "--batch", "2"]
    assert main([*command, "--json"]) == 0
    experts = json.loads(capsys.readouterr().out)["plan"]["experts"]
    assert experts == {"count": 4, "chosen": 2, "per_rank": 1.0, "whole": False, "run": 2, "ep": 1}
    assert main(command) == 0
    assert "a part of all 4 on each rank" in capsys.readouterr().out


def test_weights_are_planned_as_published_unless_asked_for(tmp_path, capsys):
    config = MIXTURE | {
        "head_dim": 16,
        "quantization_config": {"quant_method": "fp8", "fmt": "e4m3"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = {}
    for more in ((), ("--weights", "int8"), ("--weights", "fp16")):
        assert main(["plan", str(tmp_path), "--tp", "4", "--pp", "2", "--json", *more]) == 0
        found[more] = json.loads(capsys.readouterr().out)
    assert [one["plan"]["weights"] for one in found.values()] == ["int8", "int8", "fp16"]
    given, asked, _ = found.values()
    (note,) = (note for note in given["notes"] if note not in asked["notes"])
    assert "published in 8 bits" in note
    assert given | {"notes": []} == asked | {"notes": []}
    assert [find_decoder(name).in_8_bits for name in ("deepseek-r1", "kimi-k2")] == [True, True]
    assert not find_decoder("gpt-oss-120b").in_8_bits


def test_groups_wider_than_a_rack_are_planned_where_all_are_cabled_alike():
    request = PlanRequest(weights="int8")
    topology, (note,) = chosen_topology(
        request, find_decoder("deepseek-v3"), GROQCHIP1, CostStore()
    )
    assert topology == "groups:7808:128" and "wider than a rack" in note
    graph = parse("groups:384:128")
    wires, groups = Wires(graph), [tuple(range(n, n + 128)) for n in (0, 128, 256)]
    assert len({id(wires.group(chips).routes) for chips in groups}) == 1
    for pipeline in (wires.pipeline(groups), Wires(graph, apart=True).pipeline(groups)):
        assert pipeline.alone == pipeline.groups  # too wide for detours


def test_groups_on_a_torus_are_alike_also_where_it_wraps():
    wires, groups = Wires(parse("torus:3x3x8x2")), [range(n, n + 16) for n in range(0, 144, 16)]
    alone = wires.pipeline([tuple(chips) for chips in groups]).alone
    assert len({id(group.routes) for group in alone}) == 1
    for group in alone:
        assert len(group.members) > 16  # past others, who wait
        for hop in group.routes.cables:
            here, there = group.members[hop.member], group.members[hop.to_member]
            assert hop.port in wires.ports[here][there] and hop.to_port in wires.ports[there][here]
