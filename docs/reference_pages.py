"""Pages and pictures of the documentation that are made of the program itself, while mkdocs builds.

The reference of commands, files and results is read from what parses and prints them; architecture
and extending come from ARCHITECTURE.md and CONTRIBUTING.md; pictures are drawn by our commands.
"""

import inspect
import io
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import click

import cluster
from chip.spec import ChipSpec
from cluster.cli import COMMANDS, HELP, loudness_options, main
from cluster.sweeps.question import Answer, Gpus, SweepFile
from cluster.sweeps.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
ADDING = re.compile(r"^## (To add .*?)$(.*?)(?=^## )", re.MULTILINE | re.DOTALL)
# Commands whose JSON is listed: quick ones, on models that are here without a download.
SHOWN = {
    "lpu run": "run tiny --prompt hello --max-new-tokens 2 --tp 2 --pp 2 --logprobs 1 --json",
    "lpu plan": "plan tiny --tp 2 --pp 2 --json",
    "lpu collective": "collective all_reduce --topology node --bytes 32Ki --execute --json",
    "lpu topology": "topology node --json",
    "lpu models": "models --json",
    "lpu sweep": "sweep q.toml --workers 1 --json",
    "lpu doctor": "doctor --json",
}
QUESTION = 'model = "tiny"\n[grid]\ntp = [1, 2]\ntopology = ["node", "ring:6"]\n'
PICTURES = {
    "node.svg": "topology node --draw {}",
    "dragonfly.svg": "topology dragonfly:72 --draw {}",
    "layer.svg": "model smollm2 --draw {}",
}


def on_config(config: Any) -> Any:
    """Put pages that the navigation does not name at the end of it."""
    named = re.findall(r"[\w/-]+\.md", json.dumps(config.nav))
    others = sorted(path.name for path in Path(config.docs_dir).glob("*.md"))
    more = [name for name in others if name not in named]
    config.nav = [*config.nav, *([{"More": more}] if more else [])]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add what is generated to the files of the site."""
    from mkdocs.structure.files import File

    for name, content in generated():
        files.append(File.generated(config, name, content=content))
    return files


def generated() -> Iterator[tuple[str, str | bytes]]:
    """(file, content) of every generated page and picture."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    yield "architecture.md", text.replace("](docs/", "](")
    yield "extending.md", extending()
    yield "reference/cli.md", command_line()
    yield "reference/toml.md", toml()
    yield "reference/python.md", python()
    yield "images/chip.svg", (ROOT / "images" / "chip.svg").read_bytes()
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            Path("q.toml").write_text(QUESTION, encoding="utf-8")
            yield "reference/json.md", results()
            for name, line in PICTURES.items():
                _said(line.format(name))
                yield f"images/{name}", Path(name).read_bytes()
            yield "images/breakdown.svg", Path("q/breakdown.svg").read_bytes()
        finally:
            os.chdir(before)


def extending() -> str:
    """What CONTRIBUTING says of adding things."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    parts = [f"## {title}\n{body}" for title, body in ADDING.findall(text)]
    return "# Add an instruction, a topology, an architecture\n\n" + "".join(parts)


# --- the reference --------------------------------------------------------------------------------
def command_line() -> str:
    """Every command with its help, as `-h` prints it."""
    said = (
        "`lpu COMMAND -h` prints the same. Exit codes: 0 is well, 1 a result that fails its own "
        "check, 2 bad input, in one line on stderr."
    )
    lines = ["# Command line", "", said, ""]
    for name, (module, attribute, about) in COMMANDS.items():
        command: click.Command = getattr(import_module(module), attribute)
        command.context_settings.update(HELP)
        loudness_options(command)
        parent = click.Context(click.Group("lpu"), info_name="lpu")
        with click.Context(command, info_name=name, parent=parent, terminal_width=96) as context:
            shown = command.get_help(context)
        lines += [f"## lpu {name}", "", about, "", "```text", shown.strip(), "```", ""]
    return "\n".join(lines)


def toml() -> str:
    """The keys of the files that people write."""
    lines = ["# TOML files", "", "## A sweep", "", (SweepFile.__doc__ or "").strip(), ""]
    others = {name: SweepFile.model_fields[name] for name in SweepFile.model_fields
              if name not in Settings.model_fields}  # fmt: skip
    lines += _keys("At the top", others)
    lines += [
        "Settings stand at the top for all points, as lists in `[grid]`, or in a `[[points]]`. "
        "Numbers of `link` and `chip` may be factors of what they would be, such as `x0.5`.",
        "",
    ]
    lines += _keys("Settings", Settings.model_fields)
    lines += _keys("`[answer]`", Answer.model_fields)
    lines += _keys("`[gpus]`", Gpus.model_fields)
    said = "`base` is a known chip, `name` that of yours; other keys are fields that differ."
    lines += ["## A chip", "", said, "", "| key | of GroqChip 1 | source |", "|---|---|---|"]
    chip = ChipSpec()
    for one in fields(ChipSpec):
        if one.name in chip.sources:
            value = getattr(chip, one.name)
            shown = "a table" if one.name == "d_func_cycles" else f"`{value}`"
            lines.append(f"| `{one.name}` | {shown} | {chip.sources[one.name]} |")
    return "\n".join([*lines, ""])


def _keys(title: str, found: Any) -> list[str]:
    lines = [f"### {title}", "", "| key | is |", "|---|---|"]
    lines += [f"| `{name}` | {info.description} |" for name, info in found.items()]
    return [*lines, ""]


def python() -> str:
    """What `import cluster` offers: signatures and docstrings."""
    lines = ["# Python", "", "```python", inspect.cleandoc(_example()), "```", ""]
    for name in cluster.__all__:
        thing = getattr(cluster, name)
        lines += _described(name, thing)
        if inspect.isclass(thing):
            for inner, method in vars(thing).items():
                if not inner.startswith("_") and (callable(method) or isinstance(method, property)):
                    lines += _described(f"{name}.{inner}", getattr(method, "fget", method))
    return "\n".join(lines)


def _example() -> str:
    text = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return next(block for block in blocks if "cluster.load" in block)


def _described(name: str, thing: Any) -> list[str]:
    signature = str(inspect.signature(thing)) if callable(thing) else ""
    about = inspect.getdoc(thing) or ""
    return [f"## `{name}`", "", "```python", f"{name}{signature}", "```", "", about, ""]


def results() -> str:
    """The keys of the JSON objects, with their types, as commands print them now."""
    lines = ["# JSON", "", "`--json` prints one object on stdout and nothing else there. Keys as "
             "these commands print them; `[]` is each of a list.", ""]  # fmt: skip
    for name, line in SHOWN.items():
        found = json.loads(_said(line))
        lines += [f"## {name}", "", f"`lpu {line}`", "", "| key | type |", "|---|---|"]
        lines += [f"| `{key}` | {kind} |" for key, kind in dict(_leaves(found)).items()]
        lines.append("")
    return "\n".join(lines)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every key of an object with its type, the first of a list standing for all."""
    if isinstance(value, dict) and value and not all(key.isdecimal() for key in value):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield from _leaves(value[0], f"{path}[]")
    else:
        names = {dict: "object", list: "list", str: "text", bool: "true or false", int: "integer",
                 float: "number", type(None): "null or a value"}  # fmt: skip
        yield path, names[type(value)]


def _said(line: str) -> str:
    """What a command prints; raises RuntimeError if it fails."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(line.split())
    if code:
        raise RuntimeError(f"lpu {line}: exit code {code}: {err.getvalue()}")
    return out.getvalue()
