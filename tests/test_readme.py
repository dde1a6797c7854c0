"""What README.md and docs/tour.md show can be done: commands and Python run, links lead on."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.cli import main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXT = README + (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


BLOCKS = [b for b in blocks("sh") if not re.search("make demo|RAY_AUTH|activate", b)]
# What would take minutes is run on a smaller model, or on fewer chips, of the same kind.
MIXTURE = {
    "model_type": "mixtral", "hidden_size": 1024, "num_hidden_layers": 2, "num_attention_heads": 16,
    "num_key_value_heads": 8, "intermediate_size": 49152, "vocab_size": 1024, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 512, "num_local_experts": 8, "num_experts_per_tok": 2,
}  # fmt: skip
SMALLER = {
    r"run smollm2 ": "run tiny ",
    r"--pp 30": "--pp 3",
    r"--pp 6( .*)": r"--pp 3\1",
    r"torus:9x10": "torus:3x3",
    r"plan mixtral-8x7b --chips 576 --topology dragonfly:576(.*) --batch 8":
        r"plan mixture --chips 72 --topology dragonfly:72\1 --batch 2",
    r"plan llama-2-70b --chips 576 --topology dragonfly:576":
        "plan smollm2 --chips 72 --topology dragonfly:72",
    r"compare llama-\S+": "compare tiny",
    r"embed minilm": "embed tiny-encoder",
    r"validate$": "validate --only V01",
}  # fmt: skip


def run(line: str) -> int:
    """Do what a line of README says, on what is smaller; returns the exit code."""
    for large, small in SMALLER.items():
        line = re.sub(large, small, line)
    name, *arguments = shlex.split(line)
    if name == "lpu":
        return main(arguments)
    line = re.sub("^python ", f"{shlex.quote(sys.executable)} ", line)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(["sh", "-c", line], env=environment, check=False).returncode


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """A folder that looks like a checkout, but may be written to."""
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    (tmp_path / "mixture").mkdir()
    (tmp_path / "mixture" / "config.json").write_text(json.dumps(MIXTURE))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parts(block: str, ray: bool) -> list[str]:
    """The lines of a block that need Ray, or all others."""
    lines = re.sub(r"\\\n", " ", block).splitlines()
    return [line for line in lines if ("--machine ray" in line) == ray]


@pytest.mark.parametrize("block", [b for b in BLOCKS if parts(b, False)], ids=lambda b: b[:40])
def test_what_is_shown_can_be_typed(block, clone):
    for line in parts(block, ray=False):
        assert run(line) == 0, line


@pytest.mark.ray
@pytest.mark.parametrize("line", [line for block in BLOCKS for line in parts(block, True)])
def test_what_is_shown_of_ray_can_be_typed(line, clone):
    assert run(line) == 0


def test_the_command_is_on_the_path_after_what_is_shown():
    shown = "\n".join(blocks("sh"))
    assert shown.index("make demo") < shown.index(". .venv/bin/activate") < shown.index("lpu ")


@pytest.mark.parametrize(
    ("names", "prints"),
    [("topology import Timetable", r"\S3, .*200\S \w+ \d+ \d+\n\d+\n"),
     ("import cluster", r"\((\d+, ){3}\d+\) 4\n.*\n\d+\n")],
)  # fmt: skip
def test_python_example_runs(names, prints, capsys):
    (code,) = [block for block in blocks("python") if names in block]
    exec(compile(code, "docs/tour.md", "exec"), {})
    assert re.match(prints, capsys.readouterr().out)


def test_it_is_one_page_of_a_picture_two_commands_and_five_links():
    (picture, *links) = re.findall(r"\]\(([^)]+)\)", README)
    assert picture == "images/chip.svg" and len(links) == 5 and README.count("\n") <= 80
    assert all((ROOT / target).exists() for target in (picture, *links))
    assert README.index("make demo") < README.index("make test") < README.index("$ lpu plan")


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [
        line.split()[1] for b in blocks("sh") for line in b.splitlines() if line[:5] == "make "
    ]
    assert targets and all(f"\n{target}:" in makefile for target in targets)
