"""A chip of one's own: a TOML file that says how it differs from a known one.

    name = "half"
    base = "groqchip1"
    slice_words = 4096
    [d_func_cycles]
    "mem.read" = 6

A program carries its chip: `identity` is what stands in `Program.spec`, the name of a known chip
or, for any other, all that differs from GroqChip 1. So every machine that gets the program has the
chip as well, and a changed chip changes the digest.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from chip.errors import SpecError, UnknownChip
from chip.spec import GROQCHIP1, SPECS, ChipSpec

FIELDS = tuple(f.name for f in fields(ChipSpec) if f.name not in ("name", "notes", "conventions"))


def identity(spec: ChipSpec) -> str:
    """The text that stands for a chip in programs: a known name, or its differences as JSON."""
    if SPECS.get(spec.name) == spec:
        return spec.name
    changed = {name: _plain(getattr(spec, name)) for name in FIELDS}
    base = {name: _plain(getattr(GROQCHIP1, name)) for name in FIELDS}
    differ = {name: value for name, value in changed.items() if value != base[name]}
    if "d_func_cycles" in differ:
        table, normal = differ["d_func_cycles"], base["d_func_cycles"]
        differ["d_func_cycles"] = {k: v for k, v in table.items() if v != normal[k]}
    return json.dumps({"name": spec.name, **differ}, sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


@lru_cache(maxsize=64)
def chip_of(text: str) -> ChipSpec:
    """The chip of an `identity`; raises SpecError or UnknownChip."""
    if not isinstance(text, str) or not text.startswith("{"):
        return known(text)
    try:
        body = json.loads(text)
    except ValueError as error:
        raise SpecError("of the program", "text", text[:40], f"is not JSON: {error}") from None
    return _replaced(GROQCHIP1, str(body.pop("name", "")), body, {})


def known(name: str) -> ChipSpec:
    """The chip generation of that name; raises UnknownChip."""
    if name in SPECS:
        return SPECS[name]
    raise UnknownChip(str(name), tuple(SPECS))


def find(name: str) -> ChipSpec:
    """The chip of a name or of an `identity`, or of a TOML file where it ends in `.toml`."""
    return read_toml(Path(name)) if name.endswith(".toml") else chip_of(name)


def changed(base: ChipSpec, changes: Mapping[str, Any]) -> ChipSpec:
    """The same chip with other fields, named after its base; raises SpecError for what cannot be.

    >>> changed(GROQCHIP1, {"clock_hz": 1_000_000_000}).name
    'groqchip1.changed'
    """
    body = dict(changes)
    return _replaced(base, f"{base.name}.changed", body, dict.fromkeys(body, "a what-if"))


def read_toml(path: Path) -> ChipSpec:
    """The chip that a TOML file describes; raises SpecError, or OSError without such a file."""
    try:
        body = tomllib.loads(path.read_bytes().decode())
    except ValueError as error:  # TOMLDecodeError says the line and column; or it is not UTF-8
        raise SpecError(str(path), "file", path.name, f"is not TOML: {error}") from None
    base = body.pop("base", GROQCHIP1.name)
    name = body.pop("name", _name_of(path))
    if not isinstance(base, str) or base not in SPECS:
        raise SpecError(str(path), "base", base, f"must be one of {', '.join(SPECS)}")
    if isinstance(name, str) and name in SPECS:
        raise SpecError(str(path), "name", name, "is a known chip; give yours another name")
    try:
        return _replaced(SPECS[base], name, body, dict.fromkeys(body, f"{path.name}"))
    except SpecError as error:
        raise SpecError(str(path), error.field, error.value, error.rule) from None


def _name_of(path: Path) -> str:
    """A name for the chip in a file that gives it none.

    >>> _name_of(Path("7.toml")), _name_of(Path("my chip.toml"))
    ('7', 'my_chip')
    """
    return re.sub(r"[^\w.-]+", "_", path.stem, flags=re.ASCII)[:64]


def _replaced(
    base: ChipSpec, name: str, body: dict[str, Any], notes: Mapping[str, str]
) -> ChipSpec:
    for key in body:
        if key not in FIELDS:
            near = get_close_matches(key, FIELDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(FIELDS)}"
            raise SpecError(name, key, body[key], f"is no field of a chip; {hint}")
    delays = body.pop("d_func_cycles", {})
    if not isinstance(delays, Mapping):
        raise SpecError(name, "d_func_cycles", delays, 'must be a table such as "mem.read" = 6')
    if isinstance(body.get("mxm_types"), list):
        body["mxm_types"] = tuple(body["mxm_types"])
    table = {**base.d_func_cycles, **delays} if delays else base.d_func_cycles
    return replace(base, name=name, d_func_cycles=table, notes={**base.notes, **notes}, **body)
