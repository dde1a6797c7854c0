"""One self-contained HTML page: an answer, sections below it, and how to get them again.

It asks nothing of the network and runs no script. Colours are CSS variables, so that one drawing
serves light and dark; what is wider than a phone scrolls by itself.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from importlib.resources import files
from itertools import count
from typing import Any

SHORT = 14  # characters that a column keeps on one line
WORD = 24  # characters of a word that is not cut
NUMBER = re.compile(r"[-+]?[\d,]+(\.\d+)?(e[-+]?\d+)?( ?[%x])?")


@dataclass(frozen=True)
class Text:
    """Paragraphs, as plain text."""

    paragraphs: tuple[str, ...]

    @classmethod
    def of(cls, *paragraphs: str) -> "Text":
        """The paragraphs that are not empty."""
        return cls(tuple(one for one in paragraphs if one))


@dataclass(frozen=True)
class Table:
    """Rows of cells under their headings; columns of numbers are set to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""


@dataclass(frozen=True)
class Drawing:
    """An SVG, what it says to those who do not see it, and the line below it.

    `svg` is a whole <svg> element; its colours may be the CSS variables of the page.
    """

    svg: str
    alternative: str
    caption: str = ""


@dataclass(frozen=True)
class Verbatim:
    """Lines of a file, as they stand."""

    text: str


Block = Text | Table | Drawing | Verbatim


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it; who opens a page unfolds what is `folded`."""

    title: str
    blocks: Sequence[Block]
    folded: bool = False


@dataclass(frozen=True)
class Page:
    """What a page says. `answer` comes first; its first sentence answers what was asked.

    `command` gives the same again, with the `versions` that gave this; `data` is the JSON object
    of the command, kept in the page for programs.
    """

    title: str
    answer: str
    sections: Sequence[Section]
    command: str
    versions: Mapping[str, str]
    data: Mapping[str, Any] | None = field(default=None, repr=False)


def html(page: Page) -> str:
    """The page as one HTML document."""
    numbers = count(1)
    sections = [_section(one, numbers) for one in page.sections]
    again = Section(
        "To get this again",
        (Table(("of", "version"), list(page.versions.items())),),
    )
    command = f"<pre><code>{escape(page.command)}</code></pre>"
    return "".join(
        (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            '<link rel="icon" href="data:,">\n',  # or browsers ask the server for one
            f"<title>{escape(page.title)}</title>\n<style>\n{_style()}</style>\n</head>\n<body>\n",
            f"<main>\n<h1>{escape(page.title)}</h1>\n",
            f'<p class="answer">{escape(page.answer)}</p>\n',
            *sections,
            _section(again, numbers, command),
            "</main>\n",
            _data(page.data),
            "</body>\n</html>\n",
        )
    )


@cache
def _style() -> str:
    return files("cluster.report").joinpath("page.css").read_text(encoding="utf-8")


def _data(data: Mapping[str, Any] | None) -> str:
    """The JSON object, where no text of it can end the element that it is in."""
    if data is None:
        return ""
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="report">{text}</script>\n'


def _section(section: Section, numbers: "count[int]", before: str = "") -> str:
    blocks = before + "".join(_block(block, numbers) for block in section.blocks)
    title = escape(section.title)
    if section.folded:
        blocks = f"<details><summary>Show</summary>\n{blocks}</details>\n"
    return f"<section>\n<h2>{title}</h2>\n{blocks}</section>\n"


def _block(block: Block, numbers: "count[int]") -> str:
    if isinstance(block, Text):
        return "".join(f"<p>{escape(one)}</p>\n" for one in block.paragraphs)
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Verbatim):
        return f"<pre>{escape(block.text.strip())}</pre>\n"
    return _drawing(block, next(numbers))


def _table(table: Table) -> str:
    rows = [[str(cell) for cell in row] for row in table.rows]
    right = [
        bool(rows) and all(NUMBER.fullmatch(row[at]) or not row[at] for row in rows)
        for at in range(len(table.head))
    ]

    kinds = [
        "n" if is_number else _kind([row[at] for row in rows]) for at, is_number in enumerate(right)
    ]

    def line(cells: Sequence[str], tag: str) -> str:
        marks = (f' class="{one}"' if one else "" for one in kinds)
        named = zip(cells, marks, strict=True)
        return "<tr>" + "".join(f"<{tag}{m}>{escape(c)}</{tag}>" for c, m in named) + "</tr>"

    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    body = "\n".join(line(row, "td") for row in rows)
    head = line(list(table.head), "th")
    return (
        f'<div class="wide" tabindex="0"><table>{caption}\n<thead>{head}</thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>\n"
    )


def _kind(cells: Sequence[str]) -> str:
    """How a column of text may be broken: nowhere, between words, or anywhere."""
    if max(map(len, cells), default=0) <= SHORT:
        return "s"
    words = (len(word) for cell in cells for word in cell.split())
    return "w" if max(words, default=0) <= WORD else ""


def _drawing(drawing: Drawing, number: int) -> str:
    """The SVG with identifiers of its own, as a page may hold many, and its alternative."""
    svg = re.sub(r'\bid="', f'id="d{number}-', drawing.svg)
    svg = re.sub(r"url\(#", f"url(#d{number}-", svg)
    svg = re.sub(r'href="#', f'href="#d{number}-', svg)
    said = f'<svg role="img" aria-label="{escape(drawing.alternative)}"'
    svg = svg.replace("<svg", said, 1)
    caption = f"<figcaption>{escape(drawing.caption)}</figcaption>" if drawing.caption else ""
    return f"<figure>{svg}{caption}</figure>\n"
