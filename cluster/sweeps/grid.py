"""From a question to its points: every combination, each resolved to what is computed.

What a file can get wrong is refused here, with its line, before anything is computed: names,
fields of chips and links, sizes of topologies. What has no room or no plan is a row with a reason.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from itertools import product
from math import ceil
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from chip.errors import ChipError
from chip.own_spec import changed, find, identity
from chip.spec import ChipSpec
from cluster.compiler.choose import LINK_PROFILES
from cluster.errors import ClusterError, UnknownName
from cluster.model.known import known_names
from cluster.sweeps.question import BadSweep, Question
from cluster.sweeps.settings import (
    FACTOR,
    NESTED,
    NOT_REPLAYED,
    ONLY,
    REPLAY,
    TEMPLATE,
    Settings,
)
from topology.errors import TopologyError
from topology.links import Link
from topology.links import profile as resolve_profile
from topology.registry import FAMILIES

MOST_POINTS = 1_000_000
MATTERS = {
    "spec", "chip", "profile", "link", "topology", "model", "prefill_on", "afd", "between",
    *ONLY[REPLAY],
}  # fmt: skip
BANDWIDTH = "bandwidth"  # of a link, as a factor: fewer or more cycles for each vector


@dataclass(frozen=True)
class Point:
    """One point: its settings as the file has them, and what they mean.

    `model` is a name or an absolute path, `links` are `field=value` pairs, `spec` is the identity
    of a chip. A topology and a trace from files come with their bytes, as a host of a cluster may
    not have the files.
    """

    number: int
    settings: Mapping[str, Any]
    do: str
    model: str
    spec: str
    profile: str | None
    links: tuple[str, ...]
    graph_file: bytes | None = field(default=None, repr=False)
    trace_file: bytes | None = field(default=None, repr=False)

    def get(self, name: str, otherwise: Any = None) -> Any:
        """A setting, or what holds where the file has none."""
        return self.settings.get(name, otherwise)


def count(question: Question) -> int:
    """How many points there are; nothing is resolved."""
    combinations = 1
    for values in question.axes.values():
        combinations *= len(values)
    return combinations * len(question.parts)


def points(question: Question) -> list[Point]:
    """All points, the last axis of the file fastest; raises BadSweep."""
    total = count(question)
    if total > MOST_POINTS:
        raise question.error(("grid",), f"makes {total:,} points; at most {MOST_POINTS:,}")
    return list(_points(question))


def _points(question: Question) -> Iterator[Point]:
    resolve = cache(_Resolver(question).of)
    number = 0
    for part, inner in enumerate(question.parts):
        for values in product(*question.axes.values()):
            chosen = dict(zip(question.axes, values, strict=True))
            found = _filled(question, part, {**question.common, **inner, **chosen})
            what = tuple((k, _hashable(v)) for k, v in found.items() if _matters(k))
            yield Point(number, found, question.do, *resolve(part, what))
            number += 1


def _matters(key: str) -> bool:
    """Whether a setting says which chip, cables, graph, model, traffic or GPUs there are."""
    return key.partition(".")[0] in MATTERS


def _hashable(value: Any) -> Any:
    return tuple(sorted(value.items())) if isinstance(value, dict) else value


def _filled(question: Question, part: int, settings: dict[str, Any]) -> dict[str, Any]:
    """The same with templates filled in, checked again; settings in the order of their class."""
    for key, value in settings.items():
        if isinstance(value, str) and TEMPLATE.search(value):
            settings = settings | {key: _text(question, part, key, settings)}
    for do, names in ONLY.items():
        if question.do != do and (wrong := [name for name in names if name in settings]):
            where = question.where(wrong[0], part)
            raise question.error(where, f'means something with do = "{do}"')
    if question.do == REPLAY and (wrong := [name for name in NOT_REPLAYED if name in settings]):
        where = question.where(wrong[0], part)
        raise question.error(where, f'means nothing with do = "{REPLAY}"')
    if "model" not in settings:
        raise question.error((), 'no point has a model; give model = "llama-2-70b" or another')
    order = [*Settings.model_fields, *settings]
    return dict(sorted(settings.items(), key=lambda one: order.index(_head(one[0]))))


def _head(key: str) -> str:
    return key.partition(".")[0]


def _text(question: Question, part: int, key: str, settings: Mapping[str, Any]) -> Any:
    """A text with the settings it names; a number where that is all it is."""
    where = question.where(key, part)
    wanted = TEMPLATE.findall(settings[key])
    for name in wanted:
        if name not in settings or name == key:
            raise question.error(where, f"{{{name}}} is no setting of this point")
    text = TEMPLATE.sub(lambda found: str(settings[found[1]]), settings[key])
    value: Any = int(text) if text.isascii() and text.isdecimal() else text
    if _head(key) not in NESTED:
        try:
            Settings.model_validate({key: value})
        except ValidationError as errors:
            said = errors.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            raise question.error(where, f"{settings[key]!r} {said}") from None
    return value


class _Resolver:
    """What names in a file mean: chips, profiles, topologies, models."""

    def __init__(self, question: Question) -> None:
        self.question, self.folder = question, question.file.absolute().parent

    def of(
        self, part: int, given: tuple[tuple[str, Any], ...]
    ) -> tuple[str, str, str | None, tuple[str, ...], bytes | None, bytes | None]:
        """Model, chip, profile, link fields, graph file and trace; raises BadSweep."""
        settings = dict(given)
        base, spec = self._chip(part, settings)
        topology, graph_file = self._topology(part, settings)
        model = self._model(part, settings)
        profile = settings.get("profile") or LINK_PROFILES.get(base.name)
        links = self._links(part, settings, spec, profile, topology)
        self._gpus(part, settings)
        trace_file = self._traffic(part, settings) if self.question.do == REPLAY else None
        return model, identity(spec), profile, links, graph_file, trace_file

    def _error(self, part: int, key: str, problem: object) -> BadSweep:
        return self.question.error(self.question.where(key, part), str(problem))

    def _chip(self, part: int, settings: Mapping[str, Any]) -> tuple[ChipSpec, ChipSpec]:
        """The chip that `spec` names, and that with the fields of `chip`."""
        name = settings.get("spec", "groqchip1")
        try:
            base = find(str(self.folder / name) if Path(name).suffix == ".toml" else name)
        except (ChipError, OSError) as error:
            raise self._error(part, "spec", error) from None
        changes: dict[str, Any] = {}
        for key, value in settings.items():
            head, _, name = key.partition(".")
            if head == "chip":
                normal: Any = getattr(base, name, None)
                known = isinstance(normal, int | float) and not isinstance(normal, bool)
                value = dict(value) if isinstance(value, tuple) else value
                if known and isinstance(value, str) and (factor := FACTOR.fullmatch(value)):
                    scaled = normal * Fraction(factor[1])
                    value = round(scaled) if isinstance(normal, int) else float(scaled)
                changes[name] = value
                try:
                    changed(base, changes)
                except ChipError as error:
                    raise self._error(part, key, error) from None
        return base, changed(base, changes) if changes else base

    def _topology(self, part: int, settings: Mapping[str, Any]) -> tuple[str | None, bytes | None]:
        """The SPEC, checked as far as that is quick, and the bytes of a file it names."""
        text: str | None = settings.get("topology")
        if text is None:
            return None, None
        name, _, rest = text.partition(":")
        family = FAMILIES.get(name)
        if family is None:
            usages = ", ".join(sorted(one.usage for one in FAMILIES.values()))
            raise self._error(part, "topology", f"unknown topology '{name}'; use one of {usages}")
        try:
            family.read(text, rest.split(":") if rest else [])
        except ValueError as error:
            hint = f"use {family.usage}, e.g. {family.example}"
            raise self._error(part, "topology", f"{text}: {error}; {hint}") from None
        if name != "file":
            return text, None
        try:
            return text, (self.folder / rest).read_bytes()
        except OSError as error:
            raise self._error(part, "topology", f"{text}: {error.strerror}") from None

    def _model(self, part: int, settings: Mapping[str, Any]) -> str:
        """A name that is known, or the path of a file or folder."""
        name: str = settings["model"]
        if name.lower() in known_names():
            return name.lower()
        path = self.folder / name
        if not path.exists():
            raise self._error(part, "model", UnknownName("model", name, tuple(known_names())))
        return str(path)

    def _gpus(self, part: int, settings: Mapping[str, Any]) -> None:
        """Names of GPUs and of what joins them to LPUs are known."""
        for key in ("prefill_on", "afd", "between"):
            text = settings.get(key)
            if text is None:
                continue
            from cluster.hybrid.between import between
            from cluster.hybrid.gpus import gpus_of

            try:
                between(text.split(",")) if key == "between" else gpus_of(key, text)
            except ClusterError as error:
                raise self._error(part, key, error) from None
        if "between" in settings and not ({"prefill_on", "afd"} & settings.keys()):
            raise self._error(part, "between", "joins LPUs to GPUs; give prefill_on or afd, too")

    def _traffic(self, part: int, settings: Mapping[str, Any]) -> bytes | None:
        """The bytes of a trace, where there is one; traffic, order and bounds can be read."""
        from cluster.serving.replays import given_traffic
        from cluster.sweeps.replaying import traffic_options

        path = self.folder / settings["trace"] if "trace" in settings else None
        if path is None and "load" not in settings:
            said = 'a replay needs load = "poisson:50" and lengths = "256:64", or a trace'
            raise self._error(part, "load", said)
        options = traffic_options(settings, path)
        checks: dict[str, Callable[[], object]] = {
            "slo": options.bounds,
            "policy": options.order,
            "load" if path is None else "trace": lambda: given_traffic(options),
        }
        for key, check in checks.items():
            try:
                check()
            except ClusterError as error:
                raise self._error(part, key, error) from None
        return path.read_bytes() if path else None

    def _links(
        self, part: int, settings: Mapping[str, Any], spec: ChipSpec, profile: str | None,
        topology: str | None,
    ) -> tuple[str, ...]:  # fmt: skip
        """`field=value` of each field of a link that is given."""
        family = FAMILIES[(topology or "node").partition(":")[0]]
        base = resolve_profile(profile or family.profile).at_clock(spec.clock_hz)
        found: dict[str, object] = {}
        for key, value in settings.items():
            head, _, name = key.partition(".")
            if head != "link":
                continue
            try:
                field_name, value = _link_field(name, value, base.link)
                found[field_name] = value
                resolve_profile(base, found)
            except (TopologyError, ClusterError, ValueError) as error:
                raise self._error(part, key, error) from None
        return tuple(f"{name}={value}" for name, value in found.items())


def _link_field(name: str, value: Any, normal: Link) -> tuple[str, object]:
    """A field of a link and its value, where a factor multiplies the normal one."""
    factor = FACTOR.fullmatch(value) if isinstance(value, str) else None
    if name == BANDWIDTH:
        if factor is None or not Fraction(factor[1]):
            raise ValueError('must be a factor such as "x2"; cycles_per_vector is a number')
        return "cycles_per_vector", normal.cycles_per_vector / Fraction(factor[1])
    if factor is None:
        return name, value
    base = getattr(normal, name, None)
    if not isinstance(base, int | Fraction):
        raise ValueError("is no number of a link that a factor could multiply")
    scaled = base * Fraction(factor[1])
    return name, ceil(scaled) if isinstance(base, int) else scaled
