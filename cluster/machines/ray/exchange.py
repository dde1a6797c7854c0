"""What groups of chips exchange in each launch: their batches, and the channels for them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from chip.board import Facts, Wiring
from chip.group import Batch, Packet, batches
from cluster.machines.loadable import Loadable
from cluster.machines.machine import Known, Parts, check_cycles, wire_parts
from cluster.machines.ray.channels import Need, Pair, merged, needs

Prepared = tuple[list[Batch], dict[int, int], Parts]


@dataclass(frozen=True)
class Exchange:
    """Wirings and batches of every launch, by name; channels by (sending, receiving group).

    `parts` are those of launches that were joined; `known` the facts of all programs.
    """

    wirings: dict[str, Wiring]
    batches: dict[str, tuple[Batch, ...]]
    channels: dict[Pair, Need]
    group_of: Mapping[int, int]
    known: Known = field(repr=False)
    parts: dict[str, Parts] = field(default_factory=dict)

    def of_group(self, number: int, names: Iterable[str] | None = None) -> dict[str, Prepared]:
        """A group's batches of launches (default: of all), the groups of the batches they talk to,
        and the parts of those that are joined.
        """
        found: dict[str, Prepared] = {}
        for name in names or self.batches:
            everyone = self.batches[name]
            ours = [batch for batch in everyone if batch.group == number]
            others = {at for batch in ours for at, _ in (*batch.inbox, *batch.outbox)}
            parts = {
                c: p for c, p in self.parts.get(name, {}).items() if self.group_of[c] == number
            }
            found[name] = ours, {at: everyone[at].group for at in others}, parts
        return found

    def joined(self, lowered: Loadable, name: str, parts: Parts) -> "Exchange":
        """This with launch `name` of loaded programs; raises hazards of the links."""
        wiring = wire_parts(lowered, self.known, parts)
        cut = batches(wiring, self.group_of)
        facts = {chip: self.known[part][chip] for chip, part in parts.items()}
        more = needs({name: cut}, {name: _packet_bytes(facts, lowered.plan.spec.lanes)})
        return replace(
            self,
            wirings=self.wirings | {name: wiring},
            batches=self.batches | {name: cut},
            channels=merged(self.channels, more),
            parts=self.parts | {name: parts},
        )

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


def exchange(lowered: Loadable, known: Known, group_of: Mapping[int, int]) -> Exchange:
    """Wire all launches for such groups; raises ScheduleMismatch, and hazards of the links."""
    wirings = check_cycles(lowered, known)
    found = {name: batches(wiring, group_of) for name, wiring in wirings.items()}
    lanes = lowered.plan.spec.lanes
    packet_bytes = {name: _packet_bytes(launch, lanes) for name, launch in known.items()}
    return Exchange(wirings, found, needs(found, packet_bytes), group_of, known)


def _packet_bytes(launch: Mapping[int, Facts], lanes: int) -> dict[Packet, int]:
    return {
        (chip, send.issue): len(send.cycles) * lanes
        for chip, facts in launch.items()
        for send in facts.sends
    }
