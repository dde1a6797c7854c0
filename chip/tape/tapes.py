"""Tapes as the player takes them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chip.isa import NUMPY_TYPES
from chip.sram import Places

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shape:
    """Rows and element type of a node's value; `size` bytes if it is no plain array."""

    rows: int
    element: str
    size: int = 0

    def bytes(self, lanes: int) -> int:
        """Bytes the value takes."""
        return self.size or self.rows * lanes * NUMPY_TYPES[self.element].itemsize


@dataclass(frozen=True)
class Tape:
    """Records [n] and the node each belongs to."""

    records: npt.NDArray[np.void]
    owners: tuple[int, ...]


@dataclass(frozen=True)
class Encoded:
    """Per group its tapes, and between them the nodes that run their Python step.

    `views` are values of tapes that steps need, `imports` values of steps that tapes need: slots
    and shapes by node. `weights` are first SRAM groups of resting weights, `places` those of
    weights in quads apart; `log_bytes` is room for the addresses of appended rows, after how many
    there are of each append.
    """

    groups: tuple[tuple[Tape | int, ...], ...]
    tables: Integers
    constants: npt.NDArray[np.uint8]
    arena_bytes: int
    scratch_bytes: int
    log_bytes: int
    views: dict[int, tuple[int, Shape]]
    imports: dict[int, tuple[int, Shape]]
    weights: frozenset[int]
    places: tuple[Places, ...]
    appends: tuple[tuple[int, int, int], ...]  # group, slice, place in the log
