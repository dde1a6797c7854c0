"""Pages of commands: whole in one file, readable by all, and saying how to get them again."""

import json
import re
import shlex
import shutil
from collections import Counter
from html.parser import HTMLParser
from itertools import product
from pathlib import Path

import pytest

from cluster.cli import main
from cluster.report import Drawing, Page, Section, Table, Text, html
from cluster.report.plots import Line, Span, bars, heat_map, lines, spans

CHROMIUM = shutil.which("chromium")
VOID = {"meta", "link", "br", "img"}
COMMANDS = {
    "plan": ["plan", "tiny", "--tp", "2", "--pp", "2", "--topology", "ring:4"],
    "run": ["run", "tiny", "--prompt", "hello", "--tp", "2", "--max-new-tokens", "3"],
    "compare": ["compare", "tiny", "--batches", "1,8"],
    "validate": ["validate", "--only", "V39"],
    "replay": ["replay", "--model", "tiny", "--pp", "2", "--load", "poisson:9000", "--requests",
               "40", "--lengths", "~16:~8", "--slo", "ttft=0.0001"],
    "sweep": ["sweep", "question.toml", "--workers", "1"],
}  # fmt: skip
QUESTION = """\
question = "Which width is fastest for tiny?"
model = "tiny"
gpus = { devices = ["H100"] }
[grid]
tp = [1, 2]
link = { latency_cycles = ["x1", "x9"] }
"""
ANSWERS = {
    "plan": r"^tiny gives [\d,]+ tokens/s to each user on 4 chips of ring:4,",
    "run": r"^tiny gives [\d,]+ tokens/s on 2 emulated chips of node,",
    "compare": r"^Ten times the speed at a tenth of the energy\? (Yes|No|Only)",
    "validate": r"^\d+ of \d+ published numbers that we claim to meet hold\.",
    "replay": r"^tiny on 2 chips of node keeps \d+ of 40 requests of poisson:9000 within ttft",
    "sweep": r"^Tp \d is best with [\d,]+ tokens/s per user \(",
}


class Reader(HTMLParser):
    """Elements with their attributes, the text of some, and whether all are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text: dict[str, list[str]] = {}
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.text.setdefault(self.open[-1], []).append(data)


def check_page(text: str) -> Reader:
    """It asks for nothing outside, every drawing has a text, and no identifier is there twice."""
    found = Reader(text)
    assert not re.search(r"(src|href)=\"(?!#|data:,)", text) and "@import" not in text
    ids = Counter(attrs["id"] for _, attrs in found.elements if "id" in attrs)
    assert not [name for name, times in ids.items() if times > 1]
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', text)
    assert set(used) <= set(ids)
    for tag, attrs in found.elements:
        if tag == "svg":
            assert attrs["role"] == "img" and len(attrs["aria-label"]) >= 15
            assert "width" not in attrs and "viewbox" in attrs
    assert "#0101" not in text and "#0501" not in text  # colours are variables
    assert any(attrs.get("name") == "viewport" for _, attrs in found.elements)
    return found


def answer(found: Reader) -> str:
    return "".join(found.text["p"]).strip()


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with a question to sweep in it, to work in."""
    (tmp_path / "question.toml").write_text(QUESTION)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_a_page_answers_first_and_can_be_had_again(command, folder, capsys):
    page = folder / "page.html"
    assert main([*COMMANDS[command], "--report", str(page), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    text = page.read_text()
    found = check_page(text)
    assert re.search(ANSWERS[command], answer(found))
    kept = json.loads("".join(found.text["script"]))
    assert {key: kept[key] for key in printed} == printed
    shown = shlex.split("".join(found.text["code"]))
    assert shown[0] == "lpu" and sorted(shown[1:]) == sorted(
        [*COMMANDS[command], "--report", str(page), "--json"]
    )
    drawings = [one for one in found.elements if one[0] == "svg"]
    least = {"plan": 4, "run": 4, "compare": 2, "validate": 1, "replay": 5, "sweep": 5}
    assert len(drawings) >= least[command]


def test_what_people_write_cannot_end_an_element():
    bad = '</script><img src="http://x">&'
    drawn = Drawing('<svg viewBox="0 0 1 1"></svg>', f'a drawing of {bad} "quoted"')
    sections = [Section(bad, (Text.of(bad), Table((bad,), [(bad,)], bad), drawn), folded=True)]
    text = html(Page(bad, bad, sections, bad, {bad: bad}, {"said": bad}))
    found = Reader(text)
    assert "img" not in {tag for tag, _ in found.elements}
    assert json.loads("".join(found.text["script"])) == {"said": bad}


def test_plots_say_their_numbers():
    drawn = [
        lines([Line("a", [1, 2], [3, 5000])], "chips", "tokens/s", log="xy"),
        bars({"b": [7, 8]}, ["x", "y"], "MiB", limit=(9, "there is")),
        heat_map([[1.0, float("nan")], [3.0, 5000]], [1, 2], ["p", "q"], ("x", "y", "tokens/s")),
        spans([Span("op", 3, 5000, "k")], "cycle", bound=(7, "bound")),
    ]
    for one in drawn:
        assert "5,000" in one.alternative or "7" in one.alternative
        assert re.search(r"var\(--c0\)|var\(--h5\)", one.svg)
    check_page(html(Page("t", "a", [Section("s", drawn)], "c", {})))


@pytest.mark.soak
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: install chromium")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_browser_has_no_complaint_and_nothing_to_scroll_sideways(command, folder):
    """On a phone and a desk, in light and dark; every drawing is as wide as it can be read."""
    sync = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    page = folder / "page.html"
    assert main([*COMMANDS[command], "--report", str(page)]) == 0
    with sync.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        papers = set()
        for width, scheme in product((390, 1280), ("light", "dark")):
            look = {"width": width, "height": 900}
            context = browser.new_context(viewport=look, color_scheme=scheme, offline=True)
            tab, said = context.new_page(), []
            tab.on("console", lambda message: said.append(message.text))  # noqa: B023
            tab.on("pageerror", lambda error: said.append(str(error)))  # noqa: B023
            tab.goto(page.as_uri())
            assert tab.evaluate("document.documentElement.scrollWidth") == width and not said
            papers.add(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
            boxes = [one.bounding_box() for one in tab.query_selector_all("figure svg")]
            assert all(width / 3 < box["width"] <= width for box in boxes)
            context.close()
        assert len(papers) == 2, "light and dark look alike"
        browser.close()
