"""What people type: help, near misses, sizes, lists, plurals, and Ctrl-C."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from cluster.cli import COMMANDS, main
from cluster.commands.energy import energy_command
from cluster.commands.plan import _chip_ranges
from cluster.planning.bottleneck import bottleneck
from cluster.planning.candidates import Candidate
from topology.registry import FAMILIES

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_h_is_help_everywhere(command, capsys):
    assert main([*command.split(), "-h"]) == 0
    assert "-h, --help" in capsys.readouterr().out


def test_a_misspelt_command_or_option_says_what_there_is_and_where_to_look(capsys):
    assert main(["rnu"]) == 2
    said = capsys.readouterr().err
    assert "Did you mean 'run'?" in said and all(name in said for name in COMMANDS)
    assert "Try 'lpu --help'." in said
    assert main(["run", "tiny", "--promt", "x"]) == 2
    assert "'--prompt'" in (said := capsys.readouterr().err) and "Try 'lpu run --help'." in said


@pytest.mark.parametrize(
    ("text", "vectors"),
    [("1M", 3125), ("1MB", 3125), ("1MiB", 3277), ("64k", 200), ("0.32 kB", 1), ("1000", 4)],
)
def test_sizes_are_written_as_people_write_them(text, vectors, capsys):
    assert main(["collective", "all_gather", "--bytes", text, "--topology", "ring:2"]) == 0
    assert re.search(rf"vectors  {vectors:,}\n", capsys.readouterr().out)


@pytest.mark.parametrize("command", [["topology", "list"], ["plan", "tiny", "--topology", "list"]])
def test_topology_list_lists_every_family(command, capsys):
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(f.usage for f in FAMILIES.values())


def test_one_is_singular_and_values_have_their_units(capsys):
    assert main(["topology", "ring:2"]) == 0
    assert " 1 hop\n" in capsys.readouterr().out
    assert main(["topology", "node", "--faults", "chip:0", "--clocks"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"lost  74.67 GB/s", out) and not re.search(r"[a-z]_[a-z]|e[+]\d\d", out)
    assert main(["asm", str(ROOT / "scripts/asm/vector_add.lpuasm")]) == 0
    assert "for 1 chip " in capsys.readouterr().out


SHOWN = {  # commands that print tables, with what is theirs
    "topology torus:3x3 --clocks --faults chip:0": "An epoch is 252 cycles",
    "collective all_reduce --topology ring:3": " lower bound",
    "plan tiny --chips 8 --topology node --tp 2": "share",
    "spec": "SRAM rate",
    "models": "family",
    "isa": "",
    "energy": "watts",
    "run tiny --prompt a --tp 2 --max-new-tokens 1": "vectors over links",
}
PRIVATE = r"\b(beats?|rests? in|weighted|pipeline full|pass vectors on|frugal|cells?)\b"


@pytest.mark.parametrize("command", SHOWN)
def test_tables_look_alike_and_are_in_words_that_people_know(command, capsys):
    """Two styles: lines with a label, and columns under a rule; no raw keys."""
    assert main(command.split()) == 0
    assert SHOWN[command] in (out := capsys.readouterr().out)
    assert not re.search("[│┃┏┌═━]", out)
    assert not re.search(PRIVATE, out) and not re.search(r"(?<![\d,.])1 [a-z]+s\b", out)
    if not command.startswith(("isa", "energy", "models")):
        assert not re.search(r"\b[a-z]+_[a-z]+_?[a-z]*\b", out.replace("all_reduce", ""))


def test_a_bottleneck_advises_nothing_that_the_plans_beside_it_show_to_be_slower():
    def plan(tp, pp):
        return Candidate(tp, pp, 32, 100, 100)

    attention, links = {"attention": 60, "all_reduce": 40}, {"attention": 40, "all_reduce": 60}
    assert "wider tensor groups share" in bottleneck(attention, [plan(4, 2), plan(2, 4)], [])
    assert "wider tensor groups are slower" in bottleneck(attention, [plan(2, 4), plan(4, 2)], [])
    assert "narrower tensor groups need" in bottleneck(links, [plan(2, 4), plan(4, 2)], [])
    assert "narrower tensor groups are slower" in bottleneck(links, [plan(4, 2), plan(2, 4)], [])
    assert "narrower tensor groups are slower" in bottleneck(links, [plan(4, 2)], [[2, 4]])


def test_chips_of_a_stage_are_told_as_ranges_only_where_they_are():
    assert _chip_ranges([3, 1, 2]) == "1-3" and _chip_ranges([0, 2, 3, 9]) == "0, 2-3, 9"


def test_energy_prints_one_fit(capsys):
    assert energy_command.main([], standalone_mode=False) is None
    out = capsys.readouterr().out
    scale = re.search(r"pJ at 45 nm x (\S+)", out)[1]
    assert set(re.findall(r"scale (\S+)", out)) == {scale}
    assert len(re.findall(r"^ +idle .* (\S+)$", out, re.MULTILINE)) == 1


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_has_a_help_and_does_nothing_else_then(script, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in (ROOT / "images").iterdir()}
    command = [sys.executable, str(script), "--help"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.lower().startswith("usage: ") and "--help" in done.stdout
    assert not list(tmp_path.iterdir())
    assert before == {path: path.stat().st_mtime_ns for path in (ROOT / "images").iterdir()}


@pytest.mark.parametrize("command", ["plan tiny", "compare tiny --batches 1"])
def test_on_a_terminal_no_planning_is_silent(command):
    screen, terminal = os.openpty()
    run = [sys.executable, "-m", "cluster", *command.split()]
    process = subprocess.Popen(
        run,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
        cwd=ROOT,
        env=os.environ | {"TERM": "vt100"},
    )
    os.close(terminal)
    said = b""
    with suppress(OSError):  # how Linux says that the other end is closed
        while piece := os.read(screen, 4096):
            said += piece
    os.close(screen)
    assert process.wait() == 0 and b"timing what is not known yet" in said


COMPILED_CODE = """
import sys
import numpy as np
from cluster import cli
def work(*_, **__):
    matrix = np.ones((6000, 6000))
    print("ready", flush=True)
    while True:
        try:
            np.linalg.eigh(matrix)  # minutes in compiled code, which sees no exception
        except KeyboardInterrupt:
            pass
cli.lpu.main = work
sys.exit(cli.main())
"""


@pytest.mark.parametrize("command", ["plan", "compare", "validate", "topology"])
def test_ctrl_c_ends_a_plan_within_a_second(command):
    process = subprocess.Popen(
        [sys.executable, "-c", COMPILED_CODE, command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=50)
    assert time.monotonic() - start < 1.0
    assert (process.returncode, err) == (130, "lpu: interrupted\n")


def test_ctrl_c_while_a_module_is_imported_is_130_too():
    """An interrupt in code made from text, as dataclasses are, would make it a signal's end."""
    program = (
        "import os, signal, sys; from cluster import cli\n"
        "cli.lpu.main = lambda *_, **__: exec('import os, signal; os.kill(os.getpid(), 2)')\n"
        "sys.exit(cli.main())"
    )
    for command in ("run", "plan"):
        run = [sys.executable, "-c", program, command]
        done = subprocess.run(run, capture_output=True, text=True, check=False, cwd=ROOT)
        assert (done.returncode, done.stderr) == (130, "lpu: interrupted\n")
