"""`lpu models` and `lpu model`: what is known, and a graph to check against the paper."""

import json
import re

import pytest

from chip.spec import GROQCHIP1
from cluster.cli import main
from cluster.compiler.stages import partition
from cluster.model.describe import spans
from cluster.model.known import known_model, known_models


def output(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def test_models_are_listed_with_parameters_and_chips(capsys):
    found = json.loads(output(capsys, "models", "--json"))["models"]
    assert {row["name"] for row in found} == set(known_models())
    by_name = {row["name"]: row for row in found}
    smollm2 = by_name["smollm2-135m"]
    assert smollm2["parameters"] == 134515008 and smollm2["for"] == ["run", "plan"]
    assert smollm2["chips_at_least"] == {"fp16": 2, "int8": 1}
    uses = {name: by_name[name]["for"] for name in ("mixtral-8x7b", "glm-4.5", "bert-base")}
    assert list(uses.values()) == [["run from files", "plan"], ["plan"], ["embed"]]
    text = output(capsys, "models")
    assert all(name in text for name in known_models()) and "1.03 T" in text
    assert max(map(len, text.splitlines())) <= 80 and " 4,445" in text  # the last column, too


def test_a_graph_is_printed_layer_by_layer(capsys):
    text = output(capsys, "model", "qwen3-8b")
    assert "layers 0-35 each" in text and "8,190,735,360 parameters" in text
    assert "q_norm [heads 32 x head_dim 128] = norm(wq, q_norm [128], eps=1e-06, form=rms)" in text
    two = output(capsys, "model", "gemma-3-4b")
    assert "layers 5, 11, 17, 23, 29 each" in two and "theta=1000000, linear x 8" in two
    assert "note: worst case: all 256 experts" in output(capsys, "model", "minimax-m2.7")


def test_a_graph_is_shown_as_ranks_have_it(capsys):
    text = output(capsys, "model", "smollm2", "--stage", "sharded", "--tp", "3")
    assert "all_reduce(wo, x, sums=fp32)  whole: 576" in text and "split: 3 x 64" in text
    report = json.loads(output(capsys, "model", "smollm2", "--json"))
    assert report["stage"] == "graph" and report["dimensions"]["layers"] == 30
    assert sum(section["parameters"] for section in report["sections"]) > 0


def test_a_memory_map_is_printed_and_adds_up(capsys):
    text = output(capsys, "model", "smollm2", "--stage", "memory")
    assert "layers 0-18 on each chip" in text
    buffers = [line.split() for line in text.splitlines() if re.search(r" \d+-\d+ +\d+-\d+", line)]
    assert {"layer.wk", "layer.K0", "x0", "identity"} <= {row[0] for row in buffers}
    (wk,) = [line for line in text.splitlines() if line.split()[:1] == ["layer.wk"]]
    assert " x 19 " in wk and int(wk.split()[-1]) == 192 * 640 * 2 * 19 // 1024  # of 576 lanes 640
    sums = dict(re.findall(r"^  (\w[\w ]*?) +([\d.]+) MiB(?: of|$)", text, re.MULTILINE))
    plan = partition(known_model("smollm2"), GROQCHIP1, 1, 2)
    kinds = plan.stage(0).memory.bytes_by_kind()
    assert {name.replace(" ", "_"): float(size) for name, size in sums.items()} == {
        name: round(size / 2**20, 2)
        for name, size in (*kinds.items(), ("free", GROQCHIP1.sram_bytes - sum(kinds.values())))
    }


@pytest.mark.parametrize("tp", [1, 2])
def test_the_schedule_of_a_layer_is_that_of_a_plan(tp, capsys):
    text = output(capsys, "model", "tiny", "--stage", "schedule", "--tp", str(tp))
    cycles = int(re.findall(r"^(\d+) cycles;", text, re.MULTILINE)[0])
    found = json.loads(output(capsys, "plan", "tiny", "--tp", str(tp), "--pp", "1", "--json"))
    parts = found["breakdown"]
    layers = len(known_model("tiny").layers)
    in_layers = sum(parts[name] for name in ("attention", "ffn", "all_reduce"))
    assert cycles * layers == in_layers
    events = [line.split(None, 2) for line in text.splitlines() if line.startswith("   ")]
    assert all(0 <= int(start) < int(end) for start, end, _ in events)
    assert {"ffn: silu", "attention: softmax"} <= {label for _, _, label in events}


@pytest.mark.parametrize("arguments", [
    ["minilm", "--stage", "memory"], ["tiny-encoder", "--stage", "schedule"],
    ["tiny-encoder", "--stage", "schedule", "--weights", "int8-static"],
    ["llama-2-70b", "--stage", "schedule", "--tp", "8"],
])  # fmt: skip
def test_encoders_and_what_fits_no_chip_are_shown(arguments, capsys):
    text = output(capsys, "model", *arguments)
    assert "padding" in text or "at best" in text


def test_a_picture_is_drawn_and_is_the_same_each_time(tmp_path, capsys):
    pictures = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for picture in pictures:
        output(capsys, "model", "minilm", "--draw", str(picture))
    first, second = (picture.read_text() for picture in pictures)
    assert first == second and "attention: mixed" in first


@pytest.mark.parametrize(("arguments", "message"), [
    (["model", "smolm2"], "did you mean"),
    (["model", "smollm2", "--stage", "sharded", "--tp", "10"], "--tp 10: must be 1 to 9"),
    (["model", "minilm", "--stage", "memory", "--tp", "2"], "is an encoder"),
    (["model", "llama-2-70b", "--stage", "memory"], "MiB of SRAM"),
    (["model", "smollm2", "--draw", "x.pdf"], "must end in .svg or .png"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1


def test_runs_of_numbers_are_short():
    assert spans([0]) == "0" and spans([0, 1, 2, 5]) == "0-2, 5"
