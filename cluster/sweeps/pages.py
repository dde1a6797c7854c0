"""The pages of a sweep: report.html with the answer first, and each plot as a file."""

import re
from importlib.resources import files
from pathlib import Path

from cluster.files import write_whole
from cluster.report.page import Block, Page, Section, Table, Text, Verbatim, html
from cluster.report.reproduce import versions
from cluster.sweeps.answers import Said
from cluster.sweeps.companions import companions
from cluster.sweeps.evaluation import FAILED, Row
from cluster.sweeps.figures import FIGURES, number, setting, value_of
from cluster.sweeps.pictures import Picture, pictures
from cluster.sweeps.row_store import source_digest
from cluster.sweeps.sweeping import SweepResult, write_rows

MOST_ROWS = 400  # in the page; the files have all
PLAN = {"tp": "tp_used", "pp": "pp_used", "weights": "weights_used"}  # where no setting says it


def write_results(result: SweepResult, said: Said, folder: Path, command: str) -> Page:
    """Write the rows, the plots as SVG files, and report.html, which says how to get it again.

    Returns the page of report.html.
    """
    write_rows(result, folder)
    drawn = pictures(result, said)
    for one in drawn:
        write_whole(folder / f"{one.name}.svg", standalone(one.drawing.svg).encode())
    made = page(result, said, drawn, command, folder)
    write_whole(folder / "report.html", html(made).encode())
    return made


def standalone(svg: str) -> str:
    """A drawing of a page as a file of its own: on paper, in the light colours of the page."""
    css = files("cluster.report").joinpath("page.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"(--\w+): (#\w+);", css[: css.index("@media")]))
    svg = re.sub(r"var\((--\w+)\)", lambda found: colours[found[1]], svg)
    return svg.replace('style="fill:', f'style="background: {colours["--paper"]}; fill:', 1)


def page(result: SweepResult, said: Said, drawn: list[Picture], command: str, folder: Path) -> Page:
    """What the report says."""
    question = result.question
    facts = (
        f"{len(result.rows):,} points: {result.computed:,} computed now, {result.cached:,} known "
        f"from before, {result.failed:,} without a plan.",
    )
    sections = [
        *([Section("What else the rows say", [Text.of(*said.more)])] if said.more else []),
        *(Section(_capital(one.title), [one.drawing]) for one in drawn),
        Section("All points", [Text.of(*facts), *_tables(result)]),
        *_companions(result),
        *([Section("The question as asked", [Verbatim(question.text)])] if question.text else []),
    ]
    data = {"answer": said.text, **result.counts, "output": str(folder),
            "rows": list(result.rows[:MOST_ROWS])}  # fmt: skip
    made_by = versions() | {"source": source_digest()[:16]}
    return Page(question.question, said.sentence, sections, command, made_by, data)


def _tables(result: SweepResult) -> list[Block]:
    """What all rows have; settings and figures of each row; below it why others have none."""
    rows = result.rows[:MOST_ROWS]
    left = len(result.rows) - len(rows)
    every = list(dict.fromkeys(n for row in rows for n in _settings(row)))
    settings = [n for n in every if len({setting(row, n) for row in rows}) > 1]
    same = ", ".join(f"{n} {setting(rows[0], n)}" for n in every if n not in settings)
    good = [row for row in rows if row["status"] != FAILED]
    shown = [name for name in FIGURES if any(value_of(row, name) is not None for row in good)]
    plan = [n for n in PLAN if n not in every and any(PLAN[n] in row for row in good)]
    cells = [
        [
            *(setting(row, name) if name in row else "" for name in settings),
            *(row.get(PLAN[name], "") for name in plan),
            *(_cell(row, name) for name in shown),
        ]
        for row in good
    ]
    heads = [*settings, *plan, *(FIGURES[name].unit for name in shown)]
    found: list[Block] = [Text.of(f"All have {same}." if same else "")]
    if good:
        found.append(Table(heads, cells, f"{left:,} more are in results.csv" if left else ""))
    reasons = [
        [", ".join(f"{n} {setting(row, n)}" for n in settings if n in row), row["reason"]]
        for row in rows
        if row["status"] == FAILED
    ]
    return [*found, *([Table(("point", "why it has no plan"), reasons)] if reasons else [])]


def _settings(row: Row) -> list[str]:
    """What the point of a row was asked for."""
    names = list(row)
    return names[1 : names.index("status")]


def _cell(row: Row, name: str) -> str:
    value = value_of(row, name)
    return "" if value is None else number(value * FIGURES[name].factor)


def _companions(result: SweepResult) -> list[Section]:
    """GPUs beside the models of the sweep."""
    if result.question.gpus is None:
        return []
    seen: dict[tuple[str, str, str], Row] = {}
    for row in result.good:
        seen.setdefault((row["model"], row["weights_used"], str(row.get("context"))), row)
    rows = [
        (row["model"], row["weights_used"], one.device, one.count, one.users, one.kind,
         number(one.tokens_per_s_per_user), number(one.tokens_per_s),
         "" if one.joules_per_token is None else number(one.joules_per_token))
        for row in seen.values()
        for one in companions(result.question, row)
    ]  # fmt: skip
    head = ("model", "weights", "device", "count", "users", "kind", "tokens/s per user", "tokens/s",
            "J per token")  # fmt: skip
    words = (
        "A roofline is what published rates of memory, arithmetic and links allow; achieved is "
        "what decoders are measured to get of them. Joules are at the devices' TDP."
    )
    return [Section("GPUs and TPUs", [Text.of(words), Table(head, rows)])]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
