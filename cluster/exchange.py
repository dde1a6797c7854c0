"""What groups of chips exchange in each launch: their batches, and the lines they need for it."""

from collections.abc import Mapping
from dataclasses import dataclass

from chip.board import Facts, Wiring
from chip.group import Batch, batches
from cluster.lines import Need, Pair, needs
from cluster.loadable import Loadable
from cluster.machine import check_cycles


@dataclass(frozen=True)
class Exchange:
    """Wirings and batches of every launch, by name; lines by (sending, receiving group)."""

    wirings: dict[str, Wiring]
    batches: dict[str, tuple[Batch, ...]]
    lines: dict[Pair, Need]

    def of_group(self, number: int) -> dict[str, tuple[list[Batch], dict[int, int]]]:
        """A group's batches of every launch, and the groups of the batches they talk to."""
        found = {}
        for name, everyone in self.batches.items():
            ours = [batch for batch in everyone if batch.group == number]
            others = {at for batch in ours for at, _ in (*batch.inbox, *batch.outbox)}
            found[name] = ours, {at: everyone[at].group for at in others}
        return found

    def busy(self, name: str) -> list[int]:
        """The groups that take part in a launch."""
        return sorted({batch.group for batch in self.batches[name]})

    def counts(self, name: str) -> dict[str, int]:
        """Segments of a launch, batches they run in, and messages and packets between groups."""
        everyone = self.batches[name]
        bundles = [packets for batch in everyone for _, packets in batch.outbox]
        return {
            "segments": len(self.wirings[name].calls),
            "batches": len(everyone),
            "messages": len(bundles),
            "packets": sum(map(len, bundles)),
        }


def exchange(
    lowered: Loadable, known: Mapping[str, Mapping[int, Facts]], group_of: Mapping[int, int]
) -> Exchange:
    """Wire all launches for such groups; raises ScheduleMismatch, and hazards of the links."""
    wirings = check_cycles(lowered, known)
    found = {name: batches(wiring, group_of) for name, wiring in wirings.items()}
    lanes = lowered.plan.spec.lanes
    packet_bytes = {
        name: {
            (chip, send.issue): len(send.cycles) * lanes
            for chip, facts in launch.items()
            for send in facts.sends
        }
        for name, launch in known.items()
    }
    return Exchange(wirings, found, needs(found, packet_bytes))
