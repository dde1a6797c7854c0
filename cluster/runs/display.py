"""What a person watches during a run: progress bars on stderr, text as it comes on stdout."""

import sys
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import click

from cluster.loudness import QUIET, VERBOSE, loudness

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


LINE_S = 5.0  # between lines of progress
PIPED_COLUMNS = 80  # of a table that goes to a file or a pipe
LABELS = {
    "fetch": "fetching the model",
    "lower": "scheduling",
    "plan": "timing what is not known yet",
    "start": "starting actors",
    "link": "linking programs",
    "weights": "loading weights",
    "kernels": "loading kernels (compiled once)",
    "prefill": "reading the prompt",
    "decode": "generating",
    "tables": "timing launches",
    "replay": "serving",
    "validate": "computing rows",
    "trace": "writing the timeline",
    "report": "drawing the report",
    "sweep": "computing points",
}


def counted(number: int, what: str) -> str:
    """A number with its noun, in the plural where it needs it."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


class Stopwatch:
    """Seconds by part. A part ends where the next begins."""

    def __init__(self, start: float) -> None:
        self.parts: dict[str, float] = {}
        self._from = start

    def lap(self, part: str) -> None:
        """Count the time since the last lap to `part`."""
        now = time.perf_counter()
        self.parts[part] = self.parts.get(part, 0.0) + now - self._from
        self._from = now


class Bars:
    """Progress bars, if stderr is a terminal; rich is not even imported otherwise.

    With `--verbose` there are lines in their place, with `--quiet` nothing.
    """

    def __init__(self) -> None:
        self._lines: ProgressLines | None = None
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Bars":
        if loudness() == VERBOSE:
            self._lines = ProgressLines()
        elif sys.stderr.isatty() and loudness() != QUIET:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                ProgressColumn,
                Task,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )
            from rich.text import Text

            class Rate(ProgressColumn):
                def render(self, task: Task) -> Text:
                    speed = task.finished_speed or task.speed
                    return Text(f"{speed:,.3g}/s" if speed and task.total else "")

            times = TimeElapsedColumn(), Rate(), "left", TimeRemainingColumn()
            columns = ("{task.description}", BarColumn(20), MofNCompleteColumn(), *times)
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._progress.start()
        return self

    def step(self, what: str, done: int, total: int) -> None:
        """Show `done` of `total` (0 is unknown) of the part `what`."""
        if self._lines is not None:
            self._lines.step(what, done, total)
        if self._progress is None:
            return
        if what not in self._tasks:
            for before in self._progress.tasks:
                if before.total is None:  # its length was not known; now it is over
                    self._progress.update(before.id, total=1, completed=1)
            self._tasks[what] = self._progress.add_task(LABELS[what], total=total or None)
        self._progress.update(self._tasks[what], completed=done, total=total or None)

    def stop(self) -> None:
        """Take the bars off the screen."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class ProgressLines:
    """Progress as lines, a few for each part: what, how much of it, the rate and the time left."""

    def __init__(self) -> None:
        self._what = ""
        self._begun = self._said = 0.0
        self._first = 0  # done when the part began

    def step(self, what: str, done: int, total: int) -> None:
        """Write a line where a part begins or ends, and every few seconds."""
        now = time.perf_counter()
        if what != self._what:
            self._what, self._begun, self._first = what, now, done
        elif done != total and now - self._said < LINE_S:
            return
        self._said = now
        rate = (done - self._first) / (now - self._begun) if now > self._begun else 0.0
        of = f" {done:,} of {total:,}" if total else ""
        left = f", {rate:,.3g}/s, {(total - done) / rate:,.0f} s left" if total and rate else ""
        click.echo(f"lpu: {LABELS[what]}{of}{left}", err=True)


def show_text(piece: str) -> None:
    """Write a piece of the generated text at once; what stdout cannot spell becomes a `?`."""
    encoding = sys.stdout.encoding or "utf-8"
    click.echo(piece.encode(encoding, "replace").decode(encoding), nl=False)
    sys.stdout.flush()


def show_note(text: str) -> None:
    """Write a line on stderr that is no error; none with `--quiet`."""
    if loudness() != QUIET:
        click.echo(f"lpu: {text}", err=True)


def show_table(rows: dict[str, str]) -> None:
    """Write labelled lines, the labels dimmed on a terminal."""
    width = max(map(len, rows))
    for label, text in rows.items():
        click.echo(f"{click.style(label.rjust(width), dim=True)}  {text}")


def print_rows(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table of text on stdout; long cells are folded, on a terminal to its width."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for number, title in enumerate(head):
        widest = max(map(len, title.split()), default=0)  # no word of a heading is cut
        table.add_column(title, overflow="fold", no_wrap=number == 0, min_width=widest)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    width = None if sys.stdout.isatty() else PIPED_COLUMNS
    Console(width=width, highlight=False).print(table)
