"""The file of a sweep: read, checked, and refused in one line that says where and what is allowed.

    question = "How many chips does smollm2 need for 20,000 tokens/s?"
    model = "smollm2"

    [grid]
    chips = [2, 4, 8, 16]

Keys outside of [grid] hold for all points, [grid] is every combination of its lists, and each
[[points]] is a set of settings to combine with the grid.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from cluster.compare.devices import BY_NAME
from cluster.errors import ClusterError
from cluster.sweeps.locating import Where, line_of, spelled
from cluster.sweeps.settings import NESTED, Count, Do, Grid, Settings, Table

if TYPE_CHECKING:
    Device = str
else:
    Device = Literal[tuple(BY_NAME)]
Setting = str | int | float | bool | list[Any] | dict[str, Any]


class BadSweep(ClusterError):
    """A file that asks for no sweep: `where` in it, the problem, and what is allowed."""

    def __init__(self, file: str, line: int, key: str, problem: str) -> None:
        super().__init__(file, line, key, problem)
        self.file, self.line, self.key, self.problem = file, line, key, problem

    def message(self) -> str:
        """Return `file, line N: key: problem`."""
        line = f", line {self.line}" if self.line else ""
        key = f"{self.key}: " if self.key else ""
        return f"{self.file}{line}: {key}{self.problem}"


class Answer(Table):
    """What is to be said first: the best along an axis, the fewest for a floor, or changes."""

    kind: Literal["best", "fewest", "change", "scaling", "claim"] = Field(
        "best", description="what is said of the rows"
    )
    along: str | None = Field(None, description="the setting that the answer names")
    by: str = Field("tokens_per_s_per_user", description="the figure that decides")
    at_least: float | int | None = Field(None, description="`fewest`: the floor of that figure")
    baseline: dict[str, Any] | None = Field(
        None, description="`change`: settings of the rows that others are compared with"
    )


class Gpus(Table):
    """Devices to set beside the LPUs, by their rooflines and by what such devices achieve."""

    devices: list[Device] = Field(min_length=1, description="names of `lpu compare`")
    counts: list[Count] | None = Field(None, description="of devices (default: of each its own)")
    batches: list[Count] = Field([1], min_length=1, description="users")


class SweepFile(Settings):
    """Everything that a file may hold."""

    question: str | None = Field(None, description="what the sweep is to answer")
    do: Do = Field("plan", description="what is done at each point")
    grid: Grid | None = Field(None, description="lists of settings: every combination")
    points: list[Settings] | None = Field(None, min_length=1, description="sets of settings")
    answer: Answer | None = Field(None, description="how rows become a sentence")
    gpus: Gpus | None = Field(None, description="companions of the LPUs")


@dataclass(frozen=True)
class Question:
    """A sweep as asked for: settings of all points, axes in the order of the file, and the rest.

    Keys of `link` and `chip` are settings of their own: "link.latency_cycles". `parts` are the
    [[points]], or one empty part.
    """

    file: Path
    text: str = field(repr=False)
    question: str
    do: str
    common: Mapping[str, Setting]
    axes: Mapping[str, Sequence[Setting]]
    parts: Sequence[Mapping[str, Setting]]
    answer: Answer | None
    gpus: Gpus | None

    def error(self, where: Where, problem: str) -> BadSweep:
        """The error to raise about a key of the file."""
        return BadSweep(str(self.file), line_of(self.text, where), spelled(where), problem)

    def where(self, key: str, part: int = 0) -> Where:
        """Where a setting of a point was given."""
        keys = tuple(key.split(".", 1))
        if key in self.axes:
            return ("grid", *keys)
        return ("points", part, *keys) if key in self.parts[part] else keys


def read(path: Path) -> Question:
    """The question in a file; raises BadSweep, or OSError where there is none."""
    try:
        text = path.read_bytes().decode()
        raw = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError says the line; or it is not UTF-8
        raise BadSweep(str(path), 0, "", f"is not TOML: {error}") from None
    return asked(raw, path, text)


def asked(raw: Mapping[str, Any], path: Path, text: str = "") -> Question:
    """The question that the tables of a file ask; raises BadSweep."""
    try:
        found = SweepFile.model_validate(raw)
    except ValidationError as errors:
        first = errors.errors(include_url=False)[0]
        where = _where(first)
        problem = _problem(first, where)
        raise BadSweep(str(path), line_of(text, where), spelled(where), problem) from None
    common = {k: raw[k] for k in Settings.model_fields if k in raw}
    question = found.question or f"What do the points of {path.name} give?"
    made = Question(
        path, text, question, found.do, _flat(common), _flat(raw.get("grid", {})),
        [_flat(one) for one in raw.get("points", [{}])], found.answer, found.gpus,
    )  # fmt: skip
    for number, part in enumerate(made.parts):
        if twice := sorted(made.axes.keys() & (part.keys() | made.common.keys())):
            raise made.error(
                made.where(twice[0], number), "is outside of [grid], too; give it once"
            )
    if not (made.axes or made.parts[0] or "model" in made.common):
        raise BadSweep(str(path), 0, "", "asks for no points; give [grid], such as chips = [2, 4]")
    return made


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """The same with `link` and `chip` as settings of their own, in the order of the file."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        inner = value if key in NESTED else {"": value}
        found |= {f"{key}.{name}" if name else key: one for name, one in inner.items()}
    return found


# --- what pydantic says, in our words -------------------------------------------------------------
_WORDS = {
    "a valid string": "text", "a valid dictionary": "a table", "a valid number": "a number",
    **{f" or instance of {one}": "" for one in ("Answer", "Gpus", "Grid", "Settings")},
}  # fmt: skip


def _where(error: ErrorDetails) -> Where:
    """The keys that lead to an error; parts of unions in its place are no keys."""
    known = set(SweepFile.model_fields) | set(Answer.model_fields) | set(Gpus.model_fields)
    found: list[str | int] = []
    for part in error["loc"]:
        inside = bool(found) and found[-1] in NESTED
        extra = error["type"] == "extra_forbidden" and part == error["loc"][-1]
        if isinstance(part, int) or part in known or inside or extra:
            found.append(part)
    return tuple(found)


def _problem(error: ErrorDetails, where: Where) -> str:
    if error["type"] == "extra_forbidden":
        known = list(_fields_at(where[:-1]))
        near = get_close_matches(str(where[-1]), known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
        return f"unknown key; {hint}"
    given = error["input"]
    if error["type"] == "too_short":
        return "is an empty list; give at least one value"
    if error["type"] == "list_type":
        return f"must be a list, such as [{given!r}]"
    if isinstance(given, list) and where[:1] != ("grid",) and "list" not in error["type"]:
        return "must be one value; lists of values to try belong in [grid]"
    text = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    for theirs, ours in _WORDS.items():
        text = text.replace(theirs, ours)
    return text if "not " in text else f"{text}, not {given!r}"


def _fields_at(where: Where) -> Iterator[str]:
    """The keys that a table of the file may have."""
    tables: dict[str, type[Table]] = {
        "grid": Settings, "points": Settings, "answer": Answer, "gpus": Gpus,
    }  # fmt: skip
    yield from (
        tables.get(str(where[0]), SweepFile).model_fields if where else SweepFile.model_fields
    )
