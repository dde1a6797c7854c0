"""Wrong values for every option of every command, made from what the options say they take.

Each is refused with exit code 2 and one line that names the option or the value, and nothing is
left behind.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

from cluster.cli import COMMANDS, main
from cluster.commands.parameters import ByteCount
from cluster.commands.run import CountOrAuto

HUGE = "9" * 40
# What makes a command complete, and quick if nothing were wrong with it.
BASE = {
    "run": ["tiny", "--prompt", "a", "--max-new-tokens", "1"],
    "serve": ["tiny", "--port", "0"],
    "plan": ["tiny"],
    "sweep": [str(Path(__file__).parents[1] / "scripts/whatif/links.toml")],
    "models": [],
    "model": ["tiny"],
    "fetch": ["minilm"],
    "spec": [],
    "embed": ["tiny-encoder", "--text", "a"],
    "compare": ["tiny"],
    "validate": ["--only", "V10"],
    "energy": [],
    "isa": [],
    "asm": [str(Path(__file__).parents[1] / "scripts/asm/vector_add.lpuasm")],
    "disasm": [str(Path(__file__).parents[1] / "scripts/asm/vector_add.lpuasm")],
    "exec": [str(Path(__file__).parents[1] / "scripts/asm/vector_add.lpuasm")],
    "replay": ["--model", "tiny", "--load", "poisson:9", "--lengths", "8:2", "--requests", "4"],
    "topology": ["node"],
    "collective": ["all_reduce"],
}
NEEDS = {
    "run --concurrency": ["--prompts", "p.txt"],
    "serve --text": ["--timing-of", "tiny"],
    "topology --drift-ppm": ["--clocks"],
}
TEXTS = {
    "--prompt-ids": ["", "x", "1,,2", "-1", HUGE, "1;2", "٣", "1.5", "\x00"],
    "--topology": ["", "nope", "ring:0", "ring:-1", f"ring:{HUGE}", "torus:4x", "file:absent",
                   "\x00"],
    "--profile": ["", "v9", "\x00"],
    "--link": ["", "x", "=1", "latency_cycles=", "latency_cycles=-1", f"latency_cycles={HUGE}",
               "count=0", "latency=3", "cycles_per_vector=1/0", "cycles_per_vector=nan"],
    "--faults": ["x", "chip:", "chip:999", "link:0-0", "links:-1", f"links:{HUGE}", "chips:8:1",
                 "chip:1:2:3", "link:0", "links:1:-1"],
    "--spec": ["", "groqchip9", "absent.toml", "\x00"],
    "--weights": ["", "fp4", "int"],
    "--batches": ["", "x", "2,4", "1,-8", f"1,{HUGE}", "1,0"],
    "--algorithm": ["", "bubble"],
    "--only": ["V999", "x"],
    "--address": ["", "nowhere", "127.0.0.1:1", "http://127.0.0.1:1"],
    "--text": [""],
    "--draft": ["", "ngram", "ngram:", "ngram:0", "ngram:x", f"ngram:{HUGE}", "nope", "minilm"],
    "--host": ["", "no such host", "\x00"],
    "--api-key": ["", "\x00"],
    "--embeddings": ["", "nope", "tiny", "\x00"],
    "--timing-of": ["", "nope", "minilm", "\x00"],
    "--load": ["", "x", "poisson", "poisson:0", "poisson:x", "gamma:1", "closed:1.5", "closed:-1"],
    "--lengths": ["", "8", "8:0", "0:8", "8:8:8", "x:y", f"8:{HUGE}", "trace"],
    "--policy": ["", "x", "budget:", "budget:0", "budget:-1"],
    "--slo": ["", "ttft", "ttft=x", "ttft=0", "tpot=-1", "speed=3", "ttft=1,ttft=2", "ttft=nan"],
}  # fmt: skip
OWN_CASES = [
    ([], ["rnu"], "rnu"),
    (["--hepl"], [], "--hepl"),
    *((["run", text, "--prompt", "a"], [], text or "MODEL") for text in ("", "smolm2", "no.gguf")),
    *((["plan", text], [], text) for text in ("llama", "absent/config.json")),
    *((["topology", text], [], text) for text in ("rings:4", "ring", "mesh:0x1", "lpx:7")),
    *((["collective", text], [], text) for text in ("all_reducee", "sum")),
    *((["isa", text], [], text) for text in ("vxm.ad", "zzz")),
    (["spec", "nope"], [], "nope"),
    (["fetch", "nope"], [], "nope"),
    (["topology", "ring:4", "--faults", "links:4:1", "--clocks"], [], "links:4:1"),
    (["collective", "all_reduce", "--faults", "chips:7:1"], [], "group of 1"),
    (["run", "tiny", "--tp", "2", "--prompt", "a", "--faults", "chips:7:1"], [], "chips:7:1"),
    (["collective", "all_reduce", "--chips", "0-99999999999"], [], "99999999999"),
]
FILES = {"empty": b"", "binary": bytes(range(256)) * 9, "nul": b"\0" * 64, "latin": b"caf\xe9\n"}
READS = {"--prompts", "file"}


def wrong_values(parameter: click.Parameter) -> Iterator[str]:
    kind = parameter.type
    name = parameter.opts[0]
    if name in TEXTS:
        yield from TEXTS[name]
    elif isinstance(kind, click.IntRange | CountOrAuto):
        yield from ("", "x", "-1", "1.5", HUGE, f"-{HUGE}", "½", "\x00", "1e3")
        if not isinstance(kind, click.IntRange) or kind.min:
            yield "0"
    elif isinstance(kind, ByteCount):
        yield from ("", "x", "-1", "0", "1.5", HUGE, "1X", "1iB", "1e6", "nan")
    elif isinstance(kind, click.FloatRange) or kind is click.FLOAT:
        yield from ("", "x", "-1", "nan", "inf", "-inf", "1e999", "½")
    elif isinstance(kind, click.Choice):
        yield from ("", "nothing", "\x00")
    elif isinstance(kind, click.Path):
        yield from ("", "absent/folder/x", "\x00")
        if name in READS:
            yield from ("absent", "binary.txt", "nul.txt", "latin.txt", ".")
            if name == "--prompts":
                yield "empty.txt"


def cases() -> Iterator[tuple[list[str], str, str]]:
    for name, (module, attribute, _) in COMMANDS.items():
        command = getattr(import_module(module), attribute)
        for parameter in command.params:
            option = max(parameter.opts, key=len)
            for value in wrong_values(parameter):
                if isinstance(parameter, click.Option):
                    whole = [*BASE[name], *NEEDS.get(f"{name} {option}", []), f"{option}={value}"]
                    if option in ("--prompt-ids", "--prompts"):
                        whole = [part for part in whole if part not in ("--prompt", "a")]
                    if name == "run" and option in ("--address", "--chips-per-actor"):
                        whole += ["--machine", "ray"]
                    yield [name, *whole], option, value
                else:
                    yield [name, value], option, value
    for before, after, named in OWN_CASES:
        yield [*before, *after], named, named


CASES = list(cases())


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name, content in FILES.items():
        (tmp_path / f"{name}.txt").write_bytes(content)
    (tmp_path / "p.txt").write_text("a\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("arguments", [a for a, *_ in CASES if "\0" not in "".join(a)][5::58])
def test_a_wrong_value_is_one_line_on_the_command_line_too(arguments, place):
    command = [sys.executable, "-m", "cluster", *arguments]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "LC_ALL": "C"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.startswith("lpu: ") and done.stderr.count("\n") == 1


def test_there_are_two_hundred_cases_and_they_reach_every_command() -> None:
    assert len(CASES) >= 200
    assert {arguments[0] for arguments, _, _ in CASES} >= COMMANDS.keys() - {"energy", "doctor"}


@pytest.mark.parametrize(
    ("arguments", "option", "value"), CASES, ids=[" ".join(case[0])[-60:] for case in CASES]
)
def test_a_wrong_value_is_one_line_with_exit_code_2(arguments, option, value, place, capsys):
    before = sorted(os.listdir(place))
    code = main(arguments)
    printed = capsys.readouterr()
    assert code == 2, printed
    assert printed.out == ""
    assert printed.err.count("\n") == 1 and printed.err.startswith("lpu: "), printed.err
    assert "internal" not in printed.err and "Traceback" not in printed.err
    shown = {value.strip("\x00 ")[:30], value.rpartition(":")[2][:30]} - {""}
    names = {option.lstrip("-")} | shown
    assert any(name.lower() in printed.err.lower() for name in names), printed.err
    assert sorted(os.listdir(place)) == before
