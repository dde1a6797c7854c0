"""The answer to a question, as a sentence made from the rows, and what else is to be said.

Every kind of answer is a function of the rows in `KINDS`; whatever it names is in the table of
results.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from typing import Any

from cluster.compare.verdict import TEN
from cluster.sweeps.evaluation import FAILED, Row
from cluster.sweeps.figures import (
    CHIPS,
    FIGURES,
    GOODPUT,
    Figure,
    figure,
    number,
    setting,
    value_of,
)
from cluster.sweeps.question import Answer, Question
from cluster.sweeps.settings import REPLAY, TEMPLATE
from cluster.sweeps.sweeping import SweepResult

REASON_SHOWN = 160
FEW = 3  # comparisons that one sentence holds
NAMED = {"faults": "{} dead", "prefill_on": "prompts on {}", "afd": "attention on {}"}
CASE, MACHINES = "case", ("machine", "chips_per_actor")


@dataclass(frozen=True)
class Said:
    """The answer: `sentence` first, then more of them; the axis and the figure it goes by."""

    sentence: str
    more: tuple[str, ...]
    along: str
    by: str

    @property
    def text(self) -> str:
        """All sentences."""
        return " ".join((self.sentence, *self.more))


def answer(result: SweepResult) -> Said:
    """What the rows of a sweep say to its question; raises BadSweep where it asks for no figure."""
    question, asked = result.question, result.question.answer or Answer()
    if question.do == REPLAY and "by" not in asked.model_fields_set:
        asked = asked.model_copy(update={"by": GOODPUT})
    along = asked.along or next(iter(question.axes), "") or _first_varied(question)
    _check(question, asked, along, result.good)
    if not result.good:
        reason = str(result.rows[0]["reason"])
        sentence = f"Nothing here can be: of {len(result.rows):,} points none has a plan; {reason}."
        return Said(sentence, (), along, asked.by)
    sentence, *more = KINDS[asked.kind](result, asked, along)
    return Said(sentence, (*more, *_without(result, along)), along, asked.by)


def _first_varied(question: Question) -> str:
    """Of [[points]], the first setting in which they differ."""
    for name in {name: None for part in question.parts for name in part}:
        if len({str(part.get(name)) for part in question.parts}) > 1:
            return name
    return "model"


def _check(question: Question, asked: Answer, along: str, good: Sequence[Row]) -> None:
    varied = {*question.axes, *(name for part in question.parts for name in part), "model"}
    if along not in varied:
        known = ", ".join(sorted(varied))
        raise question.error(("answer", "along"), f"'{along}' is no setting of [grid]; use {known}")
    if good and all(value_of(row, asked.by) is None for row in good):
        known = ", ".join(sorted({*FIGURES} & {name for row in good for name in row}))
        problem = f"'{asked.by}' is no figure of these rows; use one of {known}"
        raise question.error(("answer", "by"), problem)


# --- the kinds ------------------------------------------------------------------------------------
def best(result: SweepResult, asked: Answer, along: str) -> list[str]:
    """Which value of the axis is best, and by how much."""
    what, groups = figure(asked.by), _best_by(result.good, along, asked.by)
    ranked = sorted(groups.items(), key=lambda one: _rank(one[1], asked.by))
    name, row = ranked[0]
    value = _value(row, asked.by)
    equal = [other for other, mine in ranked[1:] if isclose(_value(mine, asked.by), value)]
    sentence = (
        f"{_capital(named(along, name))} is best with {what.said(value)}{_others(row, along)}"
    )
    if equal:
        sentence += f", as is {', '.join(equal)}"
    rest = [one for one in ranked[1:] if one[0] not in equal]
    if rest:
        listed = ", ".join(f"{n} with {number(_value(r, asked.by) * what.factor)}" for n, r in rest)
        sentence += f"; then {listed}"
    return [f"{sentence}.", *_by_others(result, asked, along)]


def fewest(result: SweepResult, asked: Answer, along: str) -> list[str]:
    """The least value of the axis that reaches a floor."""
    what, floor = figure(asked.by), asked.at_least
    if floor is None:
        raise result.question.error(("answer",), "kind 'fewest' needs at_least, a number")
    reached = [
        row for row in result.good
        if (value := value_of(row, asked.by)) is not None
        and (value >= floor if what.more else value <= floor)
    ]  # fmt: skip
    top = min(result.good, key=lambda row: _rank(row, asked.by))
    if not reached:
        sentence = (
            f"None of them reaches {what.said(floor / what.factor)}: the best is "
            f"{what.said(_value(top, asked.by))} with {named(along, setting(top, along))}."
        )
        return [sentence]
    row = min(reached, key=lambda one: (_size(one, along), _rank(one, asked.by)))
    below = [
        one for one in result.good if one not in reached and _size(one, along) < _size(row, along)
    ]
    nearest = min(below, key=lambda one: _rank(one, asked.by), default=None)
    sentence = (
        f"{_capital(named(along, setting(row, along)))} is the least that reaches "
        f"{what.said(floor / what.factor)}: it gives {what.said(_value(row, asked.by))}"
        f"{_others(row, along)}"
    )
    if nearest is not None:
        sentence += (
            f"; {named(along, setting(nearest, along))} gives "
            f"{number(_value(nearest, asked.by) * what.factor)}"
        )
    return [f"{sentence}."]


def change(result: SweepResult, asked: Answer, along: str) -> list[str]:
    """What each value of the axis changes against the baseline, all else being equal.

    A baseline that says all that varies is one row, and every other is compared with it.
    """
    what, several = figure(asked.by), varied(result)
    wanted = asked.baseline or {along: result.rows[0].get(along)}
    if len(several) > 1 and set(several) <= wanted.keys():
        sentences = _against_one(result, wanted, what, asked.by, several)
    else:
        base = {along: wanted.get(along), **wanted}
        sentences = []
        for others, rows in _alike(result, along).items():
            first = next((row for row in rows if _matches(row, base)), None)
            if first is None or first["status"] == FAILED:
                continue
            start = _value(first, asked.by)
            parts = _changes(rows, first, asked.by, lambda row: _shown_of(row, along))
            where = f"With {', '.join(others)}: " if others else ""
            same = f"{what.said(start)} with {_shown_of(first, along)}"
            sentences.append(f"{where}{', '.join(parts) or 'nothing to compare'}, against {same}.")
        if 1 < len(sentences) <= FEW:
            joined = (one[:1].lower() + one[1:].rstrip(".") for one in sentences)
            sentences = [f"{'; '.join(joined)}."]
    if not sentences:
        raise result.question.error(("answer", "baseline"), "no row with a plan has these settings")
    name = what.name[:1].upper() + what.name[1:]
    sentences[0] = f"{name} changes: {sentences[0][:1].lower()}{sentences[0][1:]}"
    return sentences


def _against_one(
    result: SweepResult, base: Mapping[str, Any], what: Figure, by: str, several: Sequence[str]
) -> list[str]:
    """Every row against one: first those that differ in one setting, then all others."""
    first = next((row for row in result.good if _matches(row, base)), None)
    if first is None:
        return []

    def differs(row: Row) -> list[str]:
        return [name for name in several if setting(row, name) != setting(first, name)]

    def called(row: Row) -> str:
        return " and ".join(_shown_of(row, name) for name in differs(row))

    one = [row for name in several for row in result.good if differs(row) == [name]]
    more = [row for row in result.good if len(differs(row)) > 1]
    same = ", ".join(_shown_of(first, name) for name in several)
    said = f"{', '.join(_changes(one, first, by, called)) or 'nothing to compare'}, against "
    sentences = [f"{said}{what.said(_value(first, by))} with {same}."]
    if together := _changes(more, first, by, called):
        sentences.append(f"Together: {', '.join(together)}.")
    return sentences


def _changes(rows: Sequence[Row], first: Row, by: str, called: Callable[[Row], str]) -> list[str]:
    """By how much each row is above or below the first, with its name."""
    start, found = _value(first, by), []
    for row in rows:
        value = value_of(row, by)
        if row is not first and value is not None:
            text = f"{value / start - 1:+.1%}"
            found.append(f"{called(row)} {text if float(text[1:-1]) else '0.0%'}")
    return found


def scaling(result: SweepResult, asked: Answer, along: str) -> list[str]:
    """How much of an ideal speed-up is left from the fewest chips to the most."""
    sentences = []
    for others, rows in _alike(result, along).items():
        good = sorted(
            (row for row in rows if row["status"] != FAILED), key=lambda r: _size(r, along)
        )
        if len(good) < 2:
            continue
        low, high = good[0], good[-1]
        gain = _value(high, asked.by) / _value(low, asked.by)
        more = _size(high, along) / _size(low, along)
        work = (value_of(high, "layers") or 1.0) / (value_of(low, "layers") or 1.0)
        where = f"{', '.join(others)}: " if others else ""
        grown = f" of {number(work)} times the layers" if work != 1 else ""
        sentences.append(
            f"{where}{number(more)} times the {along} ({setting(low, along)} to "
            f"{setting(high, along)}) make {figure(asked.by).name}{grown} {number(gain)} times as "
            f"high, a parallel efficiency of {gain * work / more:.0%}"
        )
    if not sentences:
        return ["There are not two sizes to compare."]
    said = "; ".join(sentences)
    return [f"{said[:1].upper()}{said[1:]}."]


def claim(result: SweepResult, asked: Answer, along: str) -> list[str]:
    """Ten times the speed, a tenth of the energy? Where that holds against the companions."""
    from cluster.sweeps.companions import companions, shares

    found = [one for row in result.good for one in shares(row, companions(result.question, row))]
    if not found:
        raise result.question.error(
            ("answer", "kind"), "kind 'claim' needs [gpus] that hold the model"
        )
    both = [
        one
        for one in found
        if one.speed >= TEN and one.energy is not None and one.energy <= 1 / TEN
    ]
    fast = [one for one in found if one.speed >= TEN]
    frugal = [one for one in found if one.energy is not None and one.energy <= 1 / TEN]
    metered = [one for one in found if one.energy is not None]
    sentence = (
        f"Ten times the speed at a tenth of the energy is true in {len(both)} of {len(found)} "
        f"comparisons: ten times the speed in {len(fast)}, a tenth of the energy in {len(frugal)} "
        f"of the {len(metered)} whose power is known."
    )
    quick, slow = max(found, key=lambda one: one.speed), min(found, key=lambda one: one.speed)
    more = [f"Most for speed: {quick.text}.", f"Least for speed: {slow.text}."]
    if metered:
        least = min(metered, key=lambda one: one.energy or 0.0)
        most = max(metered, key=lambda one: one.energy or 0.0)
        more += [f"Most for energy: {least.text}.", f"Least for energy: {most.text}."]
    return [sentence, *more]


KINDS: Mapping[str, Callable[[SweepResult, Answer, str], list[str]]] = {
    "best": best, "fewest": fewest, "change": change, "scaling": scaling, "claim": claim,
}  # fmt: skip


# --- words ----------------------------------------------------------------------------------------
def _best_by(rows: Sequence[Row], along: str, by: str) -> dict[str, Row]:
    """The best row of each value of an axis."""
    found: dict[str, Row] = {}
    for row in rows:
        if value_of(row, by) is None:
            continue
        name = setting(row, along)
        if name not in found or _rank(row, by) < _rank(found[name], by):
            found[name] = row
    return found


def _by_others(result: SweepResult, asked: Answer, along: str) -> list[str]:
    """The best for each combination of the other axes, where it is not the same for all."""
    winners: dict[tuple[str, ...], tuple[str, float]] = {}
    for others, rows in _alike(result, along).items():
        good = [r for r in rows if r["status"] != FAILED and value_of(r, asked.by) is not None]
        if others and good:
            row = min(good, key=lambda one: _rank(one, asked.by))
            winners[others] = setting(row, along), _value(row, asked.by)
    if len(winners) < 2:
        return []
    what = figure(asked.by)
    listed = (
        f"with {', '.join(o)} {name} ({number(v * what.factor)})"
        for o, (name, v) in winners.items()
    )
    return [f"Best for each: {'; '.join(listed)}."]


def _alike(result: SweepResult, along: str) -> dict[tuple[str, ...], list[Row]]:
    """Rows that differ in the axis alone, by what else they have of axes."""
    names = [name for name in varied(result) if name != along]
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in result.rows:
        key = tuple(named(name, setting(row, name)) for name in names)
        found.setdefault(key, []).append(row)
    return found


def varied(result: SweepResult) -> list[str]:
    """Settings with more than one value, axes first.

    Not those that follow from another by a template, nor those of parts that a `case` names.
    """
    question = result.question
    named = any(CASE in part for part in question.parts)
    along = question.answer.along if question.answer else None
    beside = [CASE, *([along] if along else []), "chips", *MACHINES]
    parts: list[str] = [name for part in question.parts for name in (beside if named else part)]
    given: list[Any] = [question.common, *question.parts]
    every: dict[str, None] = dict.fromkeys([*question.axes, *parts])
    names = [
        name
        for name in every
        if not any(TEMPLATE.search(str(table.get(name, ""))) for table in given)
    ]
    return [name for name in names if len({setting(row, name) for row in result.rows}) > 1]


def _without(result: SweepResult, along: str) -> list[str]:
    """What has no plan, and why."""
    reasons: dict[str, list[str]] = {}
    for row in result.rows:
        if row["status"] == FAILED:
            names = reasons.setdefault(str(row["reason"]), [])
            if setting(row, along) not in names:
                names.append(setting(row, along))
    said = []
    for reason, names in reasons.items():
        short = reason if len(reason) <= REASON_SHOWN else f"{reason[:REASON_SHOWN]} ..."
        said.append(f"No plan for {along} {', '.join(names)}: {short}.")
    return said


def _matches(row: Row, wanted: Mapping[str, Any]) -> bool:
    """Whether a row has these settings; None is one that nobody has set."""
    texts = {name: setting({} if v is None else {name: v}, name) for name, v in wanted.items()}
    return all(setting(row, name) == text for name, text in texts.items())


def _shown_of(row: Row, along: str) -> str:
    return named(along, setting(row, along))


def _others(row: Row, along: str) -> str:
    """The plan behind a figure, in brackets."""
    if row.get("tp_used") is None:
        return ""
    chips = f"{row[CHIPS]:,} chips" if row[CHIPS] != 1 else "one chip"
    return f" ({chips}, tp {row['tp_used']} x pp {row['pp_used']}, {row['weights_used']})"


def named(along: str, name: str) -> str:
    """A value of an axis, with the axis where the value alone says nothing."""
    if along in ("topology", "model", "spec", "machine", "case"):
        return name
    if along == "faults" and name == "none":
        return "nothing dead"
    if along == "chips":
        return "one chip" if name == "1" else f"{name} chips"
    field = along.removeprefix("link.").removeprefix("chip.")
    return NAMED.get(along, f"{field} {{}}").format(name)


def _size(row: Row, along: str) -> float:
    found = value_of(row, along)
    return found if found is not None else float(row.get(CHIPS) or 0)


def _value(row: Row, by: str) -> float:
    found = value_of(row, by)
    assert found is not None
    return found


def _rank(row: Row, by: str) -> float:
    """Smaller is better."""
    found = value_of(row, by)
    if found is None:
        return float("inf")
    return -found if figure(by).more else found


def _capital(text: str) -> str:
    """A sentence begins with a capital, but for names in small letters with a colon."""
    return text[:1].upper() + text[1:] if " " in text.partition(":")[0] else text
