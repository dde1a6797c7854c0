"""The host link of a chip: when inputs have come and results have gone."""

from collections.abc import Callable
from dataclasses import dataclass

from chip.spec import ChipSpec
from cluster.compiler.launch import LaunchKind


@dataclass(frozen=True)
class HostLink:
    """The link between a chip and its host; unless `beside`, it and the chips wait in turns."""

    spec: ChipSpec
    bytes: Callable[[LaunchKind], tuple[int, int]]  # in, out
    beside: bool

    def in_s(self, kind: LaunchKind) -> float:
        """Seconds until the inputs of a launch are there."""
        return self.spec.host_latency_s + self.moving_s(kind)[0]

    def out_s(self, kind: LaunchKind) -> float:
        """Seconds until the results of a launch are at the host."""
        return self.spec.host_latency_s + self.moving_s(kind)[1]

    def moving_s(self, kind: LaunchKind) -> tuple[float, float]:
        """Seconds in which the inputs of a launch, and its results, cross the link."""
        into, out = self.bytes(kind)
        return into / self.spec.host_bytes_per_s, out / self.spec.host_bytes_per_s
