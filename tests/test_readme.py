"""What README.md shows can be done: commands parse, Python runs, links lead somewhere."""

import re
import shlex
from pathlib import Path

import click
import pytest

from cluster.cli import lpu

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


COMMANDS = [
    line.split(" -- ")[-1].replace("python -m cluster", "lpu")
    for block in blocks("sh")
    for line in block.splitlines()
    if "lpu " in line or "-m cluster" in line
]


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_understood(command):
    name, *arguments = shlex.split(command)[1:]
    with click.Context(lpu) as context:
        subcommand = lpu.get_command(context, name)
        assert subcommand is not None
        subcommand.make_context(name, arguments)


@pytest.mark.parametrize(
    ("names", "prints"),
    [("topology import Timetable", r"\S3, .*200\S \w+ \d+ \d+\n\d+\n"),
     ("import cluster", r"\((\d+, ){3}\d+\) 4\n.*\n\d+\n")],
)  # fmt: skip
def test_python_example_runs(names, prints, capsys):
    (code,) = [block for block in blocks("python") if names in block]
    exec(compile(code, "README.md", "exec"), {})
    assert re.match(prints, capsys.readouterr().out)


def test_links_lead_to_files():
    targets = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert targets and all((ROOT / target).exists() for target in targets)


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [
        line.split()[1] for b in blocks("sh") for line in b.splitlines() if line[:5] == "make "
    ]
    assert targets and all(f"\n{target}:" in makefile for target in targets)
