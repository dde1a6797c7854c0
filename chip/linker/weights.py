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
)
from chip.isa.mxm import ADD, SET
from chip.linker.timeline import Issue
from chip.program import COLUMN_PAIRS
from chip.spec import ChipSpec

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tiles:
    """The tiles one ABC instruction meets, in order.

    `tile` [n] is the tile each activation meets; `loads` [tiles, loads] the (issue id, iteration)
    pairs of the LWs that filled each tile, flattened to an [tiles, loads, 2] array; `first_column`
    [loads] the array column at which each load begins, alike in all tiles.
    """

    tile: Ints
    loads: Ints
    first_column: Ints


@dataclass(frozen=True)
class _Loads:
    cycles: Ints
    owners: Ints
    iterations: Ints
    columns: Ints


def resolve_tiles(issues: list[Issue], spec: ChipSpec) -> dict[int, Tiles]:
    """Tiles of every ABC, by issue id; raises the weight hazards."""
    tiles: dict[int, Tiles] = {}
    for unit in (0, 1):
        mine = [i for i in issues if i.family.startswith("mxm.") and i.unit == unit]
        installs = _installs(mine)
        streams = [i for i in mine if i.op.name == "mxm.abc"]
        _check_rate(streams, spec)
        loads = _loads(mine, spec)
        windows = np.searchsorted(installs[0], loads.cycles, side="right")
        _check_windows(mine, installs, loads, windows)
        for issue in streams:
            tiles[issue.id] = _tiles_of(issue, installs, loads, windows)
    return tiles


def _installs(mine: list[Issue]) -> tuple[Ints, Ints]:
    """(cycles, issue ids) of every IW, by cycle."""
    found = [i for i in mine if i.op.name == "mxm.iw"]
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    cycles = np.concatenate([i.cycles for i in found])
    owners = np.concatenate([np.full(len(i.cycles), i.id) for i in found])
    order = np.argsort(cycles, kind="stable")
    return cycles[order], owners[order]


def _loads(mine: list[Issue], spec: ChipSpec) -> _Loads:
    found = [i for i in mine if i.op.name == "mxm.lw"]
    if not found:
        none = np.zeros(0, np.int64)
        return _Loads(none, none, none, none)
    cycles = np.concatenate([i.cycles for i in found])
    owners = np.concatenate([np.full(len(i.cycles), i.id) for i in found])
    iterations = np.concatenate([np.arange(len(i.cycles)) for i in found])
    columns = np.concatenate([i.steps for i in found])
    for issue in found:
        wrong = (issue.steps % COLUMN_PAIRS != 0) | (issue.steps < 0)
        wrong |= issue.steps + COLUMN_PAIRS > spec.lanes
        if wrong.any():
            column = int(issue.steps[wrong][0])
            detail = f"columns {column}.. of {spec.lanes}, which load in groups of {COLUMN_PAIRS}"
            raise issue.hazard(AddressError, detail, int(issue.cycles[wrong][0]))
    order = np.argsort(cycles, kind="stable")
    return _Loads(cycles[order], owners[order], iterations[order], columns[order])


def _check_rate(streams: list[Issue], spec: ChipSpec) -> None:
    if not streams:
        return
    cycles = np.concatenate([i.cycles for i in streams])
    owners = np.concatenate([np.full(len(i.cycles), i.id) for i in streams])
    order = np.argsort(cycles, kind="stable")
    close = np.flatnonzero(np.diff(cycles[order]) < spec.abc_interval_fp16)
    if len(close):
        issue = next(i for i in streams if i.id == owners[order][close[0] + 1])
        detail = f"a plane pair takes one fp16 vector every {spec.abc_interval_fp16} cycles"
        raise issue.hazard(RateExceeded, detail, int(cycles[order][close[0] + 1]))


def check_accumulators(issues: list[Issue]) -> None:
    """An ACC adds only to what the same launch has set."""
    holding: dict[int, set[int]] = {0: set(), 1: set()}
    for issue in issues:
        if issue.op.name == "mxm.acc":
            slots = set(issue.steps.tolist())
            if issue.arg("mode") not in (SET, ADD):
                raise issue.hazard(Misaligned, f"mode {issue.arg('mode')} neither sets nor adds")
            if issue.arg("mode") == ADD and not slots <= holding[issue.unit]:
                slot = min(slots - holding[issue.unit])
                raise issue.hazard(AccumulatorEmpty, f"accumulator {slot}")
            holding[issue.unit] |= slots


def _check_windows(
    mine: list[Issue], installs: tuple[Ints, Ints], loads: _Loads, windows: Ints
) -> None:
    """Each IW finds exactly its columns in the buffer; no column is loaded twice before it."""
    by_id = {issue.id: issue for issue in mine}
    cycles, owners = installs
    keys = windows * 512 + loads.columns // COLUMN_PAIRS
    order = np.argsort(keys, kind="stable")
    twice = np.flatnonzero(np.diff(keys[order]) == 0)
    if len(twice):
        at = order[twice[0] + 1]
        detail = f"columns {int(loads.columns[at])}.. are in the buffer and not yet installed"
        raise by_id[int(loads.owners[at])].hazard(WeightsInUse, detail, int(loads.cycles[at]))
    count = np.bincount(windows, minlength=len(cycles) + 1)[: len(cycles)] * COLUMN_PAIRS
    wanted = np.array([by_id[int(o)].arg("columns") for o in owners], np.int64)
    wrong = np.flatnonzero(count != wanted)
    if len(wrong):
        at = int(wrong[0])
        detail = f"{int(count[at])} columns are loaded"
        raise by_id[int(owners[at])].hazard(WeightsMissing, detail, int(cycles[at]))


def _tiles_of(issue: Issue, installs: tuple[Ints, Ints], loads: _Loads, windows: Ints) -> Tiles:
    met = np.searchsorted(installs[0], issue.cycles, side="left") - 1
    if (met < 0).any():
        raise issue.hazard(WeightsMissing, "no tile is installed yet")
    together = np.isin(issue.cycles, installs[0])
    if together.any():
        cycle = int(issue.cycles[np.flatnonzero(together)[0]])
        detail = "a tile is installed in the cycle of its activation"
        raise issue.hazard(WeightsInUse, detail, cycle)
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
    return Tiles(tile, np.stack([loads.owners[at], loads.iterations[at]], axis=2), columns[0])
