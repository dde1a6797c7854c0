"""What a machine can be given: programs per chip and launch, cables, and constants."""

from collections.abc import Container, Iterator, Mapping
from typing import Protocol

from chip.board import Cable
from chip.core import Array
from chip.program import Region
from chip.spec import ChipSpec
from cluster.compiler.clocking import Clocking
from cluster.compiler.launch import Launch


class HasSpec(Protocol):
    """A plan, as far as a machine is concerned."""

    @property
    def spec(self) -> ChipSpec:
        """Return the chip generation."""


class Loadable(Protocol):
    """A lowered decoder, or another lowered model: what machines load and run."""

    @property
    def plan(self) -> HasSpec:
        """Return the plan behind the programs."""

    @property
    def placement(self) -> tuple[tuple[int, ...], ...]:
        """Return the chips of each stage, by rank."""

    @property
    def launches(self) -> Mapping[str, Launch]:
        """Return the programs of every launch by name."""

    @property
    def cables(self) -> tuple[Cable, ...]:
        """Return every cable of the graph."""

    @property
    def chips(self) -> tuple[int, ...]:
        """Return the chips that hold a part of the model."""

    def sram_bytes(self, stage: int) -> int:
        """Return the bytes of SRAM that each chip of a stage uses."""

    @property
    def transit_chips(self) -> tuple[int, ...]:
        """Return the chips that only pass vectors on."""

    @property
    def clocking(self) -> Clocking | None:
        """Return the clocks of the chips in use; None for one chip."""

    def constants(
        self, wanted: Container[int] | None = None
    ) -> Iterator[tuple[int, Region, Array]]:
        """Yield (chip, region, values) of all that rests in SRAM before the first launch.

        Stages without any of the `wanted` chips are left out.
        """
