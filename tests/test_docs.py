"""The documentation: it builds without a warning, and what it shows can be typed."""

import logging
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

from cluster.cli import main
from cluster.commands.serve import serve_command
from tests.cluster.serving import serving

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
OTHERS = {"tour.md"}  # tests/test_readme.py runs what it shows, on what is smaller
BLOCK = re.compile(r"^(?:<!-- (\w+) -->\n)?```(\w+) ?(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
QUESTION = re.compile(r"^```toml\n(question = .*?)^```$", re.MULTILINE | re.DOTALL)


def shown() -> list:
    """Each line of the shell in each page, with the marks that its block has."""
    found = []
    for page in PAGES:
        if page.name in OTHERS:
            continue
        for note, language, info, text in BLOCK.findall(page.read_text(encoding="utf-8")):
            if language != "sh":
                continue
            if note == "serves":
                continue  # below
            marks = {"slow": [pytest.mark.soak], "ray": [pytest.mark.ray]}.get(note, [])
            for line in text.splitlines():
                expected = 2 if info == "fails" else 0
                name = f"{page.stem}: {line}"
                found.append(pytest.param(page, line, expected, marks=marks, id=name))
    return found


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """A folder that looks like a checkout, but may be written to."""
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("page", "line", "expected"), shown())
def test_what_is_shown_can_be_typed(page, line, expected, clone):
    text = page.read_text(encoding="utf-8")
    for question in QUESTION.finditer(text):
        name = re.search(r"lpu sweep (\w+\.toml)", text[question.end() :])[1]
        (clone / name).write_text(question[1])
    if "disasm softmax.lpu" in line:
        assert main(shlex.split("asm scripts/asm/softmax.lpuasm -o softmax.lpu")) == 0
    name, *arguments = shlex.split(line)
    assert name == "lpu" and main(arguments) == expected


def test_python_that_is_shown_runs(clone):
    for page in PAGES:
        if page.name in OTHERS:
            continue
        for note, language, _, text in BLOCK.findall(page.read_text(encoding="utf-8")):
            if language == "python" and note != "serves":
                environment = os.environ | {"PYTHONPATH": str(ROOT)}
                command = [sys.executable, "-c", text]
                subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def served(language: str) -> list[str]:
    """Blocks that start servers, or ask them."""
    text = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    return [block[3] for block in BLOCK.findall(text) if block[:2] == ("serves", language)]


def test_servers_that_are_shown_can_be_started():
    lines = [block for block in served("sh") if block.startswith("lpu ")]
    assert len(lines) == 2
    for line in lines:
        _, name, *arguments = shlex.split(line)
        assert name == "serve" and serve_command.make_context(name, arguments)


@pytest.mark.soak
def test_clients_that_are_shown_are_answered(clone):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    (curl,) = (block for block in served("sh") if block.startswith("curl "))
    (script,) = served("python")
    with serving() as (url, _):
        for command in (["sh", "-c", curl], [sys.executable, "-c", script]):
            here = command[-1].replace("http://127.0.0.1:8000", url).replace("smollm2", "tiny")
            done = subprocess.run(
                [*command[:-1], here], env=environment, capture_output=True, text=True, check=True
            )
            assert len(done.stdout) > 10 and '"error"' not in done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> tuple[Path, list[str]]:
    """The site, and the warnings of its build."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("mkdocs")
    log.addHandler(handler)
    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder)))
    log.removeHandler(handler)
    return folder, said


def test_the_site_builds_without_a_warning(site):
    folder, said = site
    assert said == []
    reference = (folder / "reference/cli.html").read_text(encoding="utf-8")
    assert "lpu sweep" in reference and "--dry-run" in reference
    keys = (folder / "reference/json.html").read_text(encoding="utf-8")
    assert all(f"<code>{key}</code>" in keys for key in ("cycles_per_token", "computed", "digest"))
    pages = {path.name for path in folder.rglob("*.html")}
    assert {"index.html", "what-if.html", "architecture.html", "extending.html"} <= pages


def test_pages_ask_nothing_of_other_hosts(site):
    """Fonts, scripts and styles are those of the site: it can be read offline."""
    page = (site[0] / "index.html").read_text(encoding="utf-8")
    assert not re.findall(
        r"<(?:script|img)[^>]+src=.?https?:|<link[^>]+stylesheet[^>]+https?:", page
    )
