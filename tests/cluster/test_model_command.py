"""`lpu models` and `lpu model`: what is known, and a graph to check against the paper."""

import json

import pytest

from cluster.cli import main
from cluster.model.describe import spans
from cluster.model.known import known_models


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
    assert by_name["mixtral-8x7b"]["for"] == ["plan"] and by_name["bert-base"]["for"] == ["embed"]
    text = output(capsys, "models")
    assert all(name in text for name in known_models()) and "1.03 T" in text


def test_a_graph_is_printed_layer_by_layer(capsys):
    text = output(capsys, "model", "qwen3-8b")
    assert "layers 0-35 each" in text and "8,190,735,360 parameters" in text
    assert "q_norm [heads 32 x head_dim 128] = norm(wq, q_norm [128], eps=1e-06, form=rms)" in text
    two = output(capsys, "model", "gemma-3-4b")
    assert "layers 5, 11, 17, 23, 29 each" in two and "theta=1000000, linear x 8" in two
    assert "note: worst case: all 8 experts" in output(capsys, "model", "mixtral-8x7b")


def test_a_graph_is_shown_as_ranks_have_it(capsys):
    text = output(capsys, "model", "smollm2", "--stage", "sharded", "--tp", "3")
    assert "all_reduce(wo, x)  whole: 576" in text and "split: 3 x 64" in text
    report = json.loads(output(capsys, "model", "smollm2", "--json"))
    assert report["stage"] == "graph" and report["dimensions"]["layers"] == 30
    assert sum(section["parameters"] for section in report["sections"]) > 0


def test_a_picture_is_drawn_and_is_the_same_each_time(tmp_path, capsys):
    pictures = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for picture in pictures:
        output(capsys, "model", "minilm", "--draw", str(picture))
    first, second = (picture.read_text() for picture in pictures)
    assert first == second and "attention: mixed" in first


@pytest.mark.parametrize(("arguments", "message"), [
    (["model", "smolm2"], "did you mean"),
    (["model", "smollm2", "--stage", "sharded", "--tp", "10"], "--tp 10: must be 1 to 9"),
    (["model", "smollm2", "--draw", "x.pdf"], "must end in .svg or .png"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1


def test_runs_of_numbers_are_short():
    assert spans([0]) == "0" and spans([0, 1, 2, 5]) == "0-2, 5"
