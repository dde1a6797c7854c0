"""A sweep from its question to rows in a folder: what is known is recalled, the rest computed."""

import csv
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import BadValue
from cluster.files import naming, write_whole
from cluster.machines.ray.addresses import place
from cluster.sweeps import grid
from cluster.sweeps.evaluation import FAILED, Evaluator, Finding, Row
from cluster.sweeps.grid import Point
from cluster.sweeps.local_pool import LocalPool, here
from cluster.sweeps.question import Question
from cluster.sweeps.row_store import RowStore, key
from cluster.sweeps.settings import RUN

Progress = Callable[[int, int], None]  # points done, points in all
STORE = "sweeps.sqlite"  # in the cache folder


@dataclass(frozen=True)
class SweepResult:
    """All rows of a sweep, in the order of its points, and how many had to be computed."""

    question: Question
    rows: tuple[Row, ...]
    computed: int
    cached: int

    @property
    def failed(self) -> int:
        """Points without figures; their rows say why."""
        return sum(row["status"] == FAILED for row in self.rows)

    @property
    def counts(self) -> dict[str, int]:
        """Points, and how many of them were computed, known from before, without figures."""
        return {
            "points": len(self.rows), "computed": self.computed, "cached": self.cached,
            "failed": self.failed,
        }  # fmt: skip

    @property
    def good(self) -> list[Row]:
        """Rows with figures."""
        return [row for row in self.rows if row["status"] != FAILED]


def sweep(
    question: Question,
    cache: Path,
    *,
    workers: int | None = None,
    address: str | None = None,
    fresh: bool = False,
    progress: Progress = lambda _done, _total: None,
) -> SweepResult:
    """Compute what is not known yet: on the Ray at `address` or around us, else on processes here.

    `workers` is how many (default: one for each core), `fresh` computes all anew. Rows are on disk
    soon after they are known. Raises BadSweep, BadValue, or OSError for a disk that is full.
    """
    if there := place(address, os.environ):
        there.listens()  # now, not once there is something to compute
    points = grid.points(question)
    keys = [key(point) for point in points]
    with RowStore(cache / STORE) as store:
        known = {} if fresh else store.known(list(dict.fromkeys(keys)))
        cached = sum(one in known for one in keys)
        first: dict[str, Point] = {}  # points that differ in nothing are computed once
        for point, name in zip(points, keys, strict=True):
            if name not in known:
                first.setdefault(name, point)
        done = len(points) - len(first)
        progress(done, len(points))
        names = {point.number: name for name, point in first.items()}
        for findings in _computed(_grouped(first.values()), cache, workers, address):
            store.keep([(names[one.number], one.row) for one in findings if one.kept])
            known |= {names[one.number]: one.row for one in findings}
            done += len(findings)
            progress(done, len(points))
    rows = tuple(
        {"point": point.number, **point.settings, **known[name]}
        for point, name in zip(points, keys, strict=True)
    )
    return SweepResult(question, rows, len(points) - cached, cached)


def _grouped(points: Any) -> list[Point]:
    """Points that have a graph and a chip in common beside each other."""

    def alike(point: Point) -> tuple[str, ...]:
        shared = ("weights", "topology", "faults", "context", "batch")
        settings = (str(point.get(name)) for name in shared)
        return (point.do, point.model, point.spec, str(point.profile), *point.links, *settings)

    return sorted(points, key=lambda point: (alike(point), point.number))


def _computed(
    points: Sequence[Point], cache: Path, workers: int | None, address: str | None
) -> Iterator[list[Finding]]:
    """Findings as they come, wherever they are computed."""
    if not points:
        return
    if points[0].do == RUN:  # a run has the host to itself, and its own way to Ray
        yield from here(points, Evaluator(cache, address))
        return
    if place(address, os.environ):
        from cluster.machines.ray.task_pool import RayPool

        with RayPool(address) as pool:
            yield from pool.results(points)
        return
    wanted = min(workers or os.cpu_count() or 1, len(points))
    if wanted == 1:
        yield from here(points, Evaluator(cache))
        return
    with LocalPool(wanted, cache) as pool:
        yield from pool.results(points)


# --- in a folder ----------------------------------------------------------------------------------
@contextmanager
def output_folder(option: str, folder: Path) -> Iterator[None]:
    """Make sure now, not after the work, that a folder can be made and written to."""
    new = not folder.exists()
    if not new and not folder.is_dir():
        raise BadValue(option, folder, "is a file")
    with naming(folder):
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as trial:
            trial.write(b"\0" * 4096)
    try:
        yield
    finally:
        if new and not any(folder.iterdir()):
            folder.rmdir()


def write_rows(result: SweepResult, folder: Path) -> None:
    """results.jsonl and results.csv: a row for each point, in order."""
    lines = "".join(json.dumps(row) + "\n" for row in result.rows)
    write_whole(folder / "results.jsonl", lines.encode())
    write_whole(folder / "results.csv", table(result.rows).encode())


def table(rows: Sequence[Row]) -> str:
    """The rows as CSV; a column for every key, in the order of their first rows."""
    columns = _columns(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_plain(row) for row in rows)
    return text.getvalue()


def _columns(rows: Sequence[Row]) -> list[str]:
    """Settings, then the status, then figures, each where it first appears."""
    before: dict[str, None] = {}
    after: dict[str, None] = {}
    for row in rows:
        names = list(row)
        cut = names.index("status")
        before |= dict.fromkeys(names[:cut])
        after |= dict.fromkeys(names[cut:])
    return [*before, *after]


def _plain(row: Row) -> Mapping[str, Any]:
    return {k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in row.items()}
