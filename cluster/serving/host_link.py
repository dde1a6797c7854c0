"""The host link of a chip: when inputs have come and results have gone."""

from collections.abc import Callable
from dataclasses import dataclass

from chip.spec import ChipSpec
from cluster.compiler.launch import LaunchKind


@dataclass(frozen=True)
class HostLink:
    """The link between a chip and its host; unless `beside`, it and the chips wait in turns."""

    spec: ChipSpec
    bytes: Callable[[LaunchKind, bool], tuple[int, int]]  # with x or without -> in, out
    beside: bool

    def in_s(self, kind: LaunchKind) -> float:
        """Seconds until the inputs of a launch are there."""
        return self.spec.host_latency_s + self.moving_s(kind)[0]

    def ways_s(self, kind: LaunchKind) -> tuple[float, float, float]:
        """Seconds of a work by the ways of `core.columns`: INTO, OUT, FURTHER."""
        return *self.moving_s(kind), self.moving_s(kind, with_x=False)[0]

    def out_s(self, kind: LaunchKind) -> float:
        """Seconds until the results of a launch are at the host."""
        return self.spec.host_latency_s + self.moving_s(kind)[1]

    def waits_s(self, kind: LaunchKind, with_x: bool = True) -> float:
        """Seconds that chips wait for inputs and results of a launch, unless the link is beside."""
        into_s, out_s = self.moving_s(kind, with_x)[0], self.moving_s(kind)[1]
        return (self.spec.host_latency_s + into_s) + (self.spec.host_latency_s + out_s)

    def moving_s(self, kind: LaunchKind, with_x: bool = True) -> tuple[float, float]:
        """Seconds in which the inputs of a launch, and its results, cross the link.

        In steps in which the first stage has no work nobody takes x.
        """
        into, out = self.bytes(kind, with_x)
        return into / self.spec.host_bytes_per_s, out / self.spec.host_bytes_per_s
