"""Third pass: which columns each installed tile holds, and which tile each activation meets."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chip.errors import (
    AccumulatorEmpty,
    AddressError,
    Misaligned,
    RateExceeded,
    WeightsInUse,
    WeightsMissing,
    WeightsMistyped,
)
from chip.isa import FORMATS, SUMS
from chip.isa.mxm import ADD, PLANES, SET
from chip.linker.timeline import Issue
from chip.program import word_columns
from chip.spec import ChipSpec

Ints = npt.NDArray[np.int64]
F16 = FORMATS.index("f16")
MXM_TYPE_OF = {"f16": "f16", "i8": "i8", "e4m3": "f8", "e5m2": "f8"}  # as a chip's spec has them


@dataclass(frozen=True)
class Tiles:
    """The tiles one ABC instruction meets, in order.

    `tile` [n] is the tile each activation meets; `loads` [tiles, loads] the (issue id, iteration)
    pairs of the LWs that filled each tile, flattened to an [tiles, loads, 2] array; `first_column`
    [loads] the array column at which each load begins, alike in all tiles. `format` is their type.
    """

    tile: Ints
    loads: Ints
    first_column: Ints
    format: str


@dataclass(frozen=True)
class _Events:
    """Iterations of the LWs or IWs of a plane, by cycle; `columns` is the first a load fills."""

    cycles: Ints
    owners: Ints
    iterations: Ints
    columns: Ints
    formats: Ints


@dataclass(frozen=True)
class _Plane:
    """What happens on a plane; an fp16 instruction happens on both planes of its side.

    `windows` counts, for each load, the installs that come before it.
    """

    issues: dict[int, Issue]
    loads: _Events
    installs: _Events
    windows: Ints


def resolve_tiles(issues: list[Issue], spec: ChipSpec) -> dict[int, Tiles]:
    """Tiles of every ABC, by issue id; raises the weight hazards."""
    tiles: dict[int, Tiles] = {}
    for side in (0, 1):
        mine = [i for i in issues if i.family.startswith("mxm.") and i.unit % 2 == side]
        for issue in mine:
            _check_format(issue, spec)
        streams = [i for i in mine if i.op.role == "products"]
        _check_rate(streams, spec)
        paired = all(issue.arg("format") == F16 for issue in mine)
        planes = [_plane(mine, half, spec) for half in range(1 if paired else PLANES)]
        for plane in planes:
            _check_types(plane)
            _check_windows(plane)
        for issue in streams:
            used = planes if issue.arg("format") == F16 else [planes[issue.unit // 2]]
            tiles[issue.id], *_ = [_tiles_of(issue, plane) for plane in used]
    return tiles


def planes_of(issue: Issue, spec: ChipSpec) -> list[int]:
    """Planes of its side that an LW or IW fills or installs in some iteration."""
    if issue.arg("format") == F16:
        return [*range(PLANES)]
    return sorted({int(turn) for turn in _turns(issue, spec)})


def _turns(issue: Issue, spec: ChipSpec) -> Ints:
    """Plane of each iteration of an LW or IW in an 8-bit format."""
    turns = issue.steps // spec.lanes if issue.op.role == "loads" else issue.steps
    return turns % PLANES


def _check_format(issue: Issue, spec: ChipSpec) -> None:
    name = FORMATS[issue.arg("format")]
    if MXM_TYPE_OF[name] not in spec.mxm_types:
        known = ", ".join(spec.mxm_types)
        raise issue.hazard(Misaligned, f"chip {spec.name} has no {name}, it has {known}")
    if name == "f16":
        second = issue.unit >= 2 or (issue.op.role == "installs" and issue.steps.any())
        if second:
            raise issue.hazard(Misaligned, "an fp16 tile has the queues of the first plane")
    if issue.op.role == "loads":
        _check_columns(issue, name, spec)


def _check_columns(issue: Issue, name: str, spec: ChipSpec) -> None:
    group, limit = word_columns(name), spec.lanes * (1 if name == "f16" else PLANES)
    beyond = issue.steps if name == "f16" else issue.arg("column")  # in 8 bits they go round
    wrong = (issue.steps % group != 0) | (issue.steps < 0) | (beyond + group > limit)
    if wrong.any():
        column = int(issue.steps[wrong][0])
        detail = f"columns {column}.. of {limit}, which load in groups of {group}"
        raise issue.hazard(AddressError, detail, int(issue.cycles[wrong][0]))


def _plane(mine: list[Issue], half: int, spec: ChipSpec) -> _Plane:
    found = []
    for op in ("mxm.lw", "mxm.iw"):
        parts = [_on_plane(i, half, spec) for i in mine if i.op.name == op]
        table = np.concatenate([np.zeros((5, 0), np.int64), *parts], axis=1)
        found.append(_Events(*table[:, np.argsort(table[0], kind="stable")]))
    loads, installs = found
    windows = np.searchsorted(installs.cycles, loads.cycles, side="right")
    return _Plane({i.id: i for i in mine}, loads, installs, windows)


def _on_plane(issue: Issue, half: int, spec: ChipSpec) -> Ints:
    """Rows of `_Events`: the iterations of an LW or IW that concern a plane."""
    count, format = len(issue.cycles), issue.arg("format")
    at = np.arange(count)
    if format != F16:
        at = np.flatnonzero(_turns(issue, spec) == half)
    constant = (np.full(len(at), issue.id), at, issue.steps[at] % spec.lanes)
    return np.stack([issue.cycles[at], *constant, np.full(len(at), format)])


def _check_rate(streams: list[Issue], spec: ChipSpec) -> None:
    """An fp16 vector takes both planes for as many cycles as its two halves need."""
    if all(issue.arg("format") != F16 for issue in streams):
        return
    cycles = np.concatenate([i.cycles for i in streams])
    owners = np.concatenate([np.full(len(i.cycles), i.id) for i in streams])
    bytewise = np.concatenate([np.full(len(i.cycles), i.arg("format") != F16) for i in streams])
    order = np.lexsort((bytewise, cycles))
    near = np.diff(cycles[order]) < spec.abc_interval_fp16
    close = np.flatnonzero(near & ~bytewise[order][:-1])
    if len(close):
        issue = next(i for i in streams if i.id == owners[order][close[0] + 1])
        detail = f"a plane pair takes one fp16 vector every {spec.abc_interval_fp16} cycles"
        raise issue.hazard(RateExceeded, detail, int(cycles[order][close[0] + 1]))


def check_accumulators(issues: list[Issue]) -> None:
    """An ACC adds only to what the same launch has set, in the same type."""
    holding: dict[tuple[int, str], set[int]] = {}
    for issue in issues:
        if issue.op.role != "sums":
            continue
        mode, slots = issue.arg("mode"), set(issue.steps.tolist())
        kind = SUMS[FORMATS[issue.arg("format")]]
        mine = holding.setdefault((issue.unit, kind), set())
        if mode not in (SET, ADD):
            raise issue.hazard(Misaligned, f"mode {mode} neither sets nor adds")
        if mode == ADD and not slots <= mine:
            slot = min(slots - mine)
            raise issue.hazard(AccumulatorEmpty, f"accumulator {slot} holds no {kind} sum")
        mine |= slots
        for (unit, other), theirs in holding.items():
            if unit == issue.unit and other != kind:
                theirs -= slots


def _check_types(plane: _Plane) -> None:
    """What is in a buffer, and what is installed from it, is of one format."""
    loads, installs, windows = plane.loads, plane.installs, plane.windows
    mixed = np.diff(loads.formats) != 0
    mixed = np.flatnonzero(mixed & (np.diff(windows) == 0))
    if len(mixed):
        at = mixed[0] + 1
        detail = f"the buffer holds columns of {FORMATS[loads.formats[at - 1]]}"
        issue = plane.issues[int(loads.owners[at])]
        raise issue.hazard(WeightsMistyped, detail, int(loads.cycles[at]))
    taken = windows < len(installs.cycles)
    wrong = np.flatnonzero(installs.formats[windows[taken]] != loads.formats[taken])
    if len(wrong):
        at = int(windows[taken][wrong[0]])
        detail = f"the buffer holds columns of {FORMATS[loads.formats[taken][wrong[0]]]}"
        issue = plane.issues[int(installs.owners[at])]
        raise issue.hazard(WeightsMistyped, detail, int(installs.cycles[at]))


def _check_windows(plane: _Plane) -> None:
    """Each IW finds exactly its columns in the buffer; no column is loaded twice before it."""
    loads, installs = plane.loads, plane.installs
    keys = plane.windows * 1024 + loads.columns
    order = np.argsort(keys, kind="stable")
    twice = np.flatnonzero(np.diff(keys[order]) == 0)
    if len(twice):
        at = order[twice[0] + 1]
        detail = f"columns {int(loads.columns[at])}.. are in the buffer and not yet installed"
        issue = plane.issues[int(loads.owners[at])]
        raise issue.hazard(WeightsInUse, detail, int(loads.cycles[at]))
    sizes = np.array([word_columns(name) for name in FORMATS])[loads.formats]
    count = np.bincount(plane.windows, sizes, minlength=len(installs.cycles) + 1)
    wanted = [plane.issues[int(owner)].arg("columns") for owner in installs.owners]
    wrong = np.flatnonzero(count[: len(wanted)] != wanted)
    if len(wrong):
        at = int(wrong[0])
        issue, detail = (
            plane.issues[int(installs.owners[at])],
            f"{int(count[at])} columns are loaded",
        )
        raise issue.hazard(WeightsMissing, detail, int(installs.cycles[at]))


def _tiles_of(issue: Issue, plane: _Plane) -> Tiles:
    loads, installs, windows = plane.loads, plane.installs, plane.windows
    met = np.searchsorted(installs.cycles, issue.cycles, side="left") - 1
    if (met < 0).any():
        raise issue.hazard(WeightsMissing, "no tile is installed yet")
    together = np.isin(issue.cycles, installs.cycles)
    if together.any():
        cycle = int(issue.cycles[np.flatnonzero(together)[0]])
        detail = "a tile is installed in the cycle of its activation"
        raise issue.hazard(WeightsInUse, detail, cycle)
    other = np.flatnonzero(installs.formats[met] != issue.arg("format"))
    if len(other):
        detail = f"the tile that is installed is of {FORMATS[installs.formats[met[other[0]]]]}"
        raise issue.hazard(WeightsMistyped, detail, int(issue.cycles[other[0]]))
    events, tile = np.unique(met, return_inverse=True)
    low = np.searchsorted(windows, events, side="left")
    high = np.searchsorted(windows, events, side="right")
    sizes = high - low
    if (sizes != sizes[0]).any() or sizes[0] == 0:
        raise issue.hazard(WeightsMissing, "the tiles of one instruction differ in size")
    at = low[:, None] + np.arange(sizes[0])[None, :]
    columns = loads.columns[at]
    if (columns != columns[0]).any():
        raise issue.hazard(WeightsMissing, "the tiles of one instruction differ in columns")
    found = np.stack([loads.owners[at], loads.iterations[at]], axis=2)
    return Tiles(tile, found, columns[0], FORMATS[issue.arg("format")])
