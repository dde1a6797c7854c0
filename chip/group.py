"""Chips that live in one process, and the batches of segment calls that such groups exchange.

A cluster is cut into groups: all chips in one, or a few chips in each actor. Between groups packets
travel in bundles, one from a batch to each later batch that needs something of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from chip.board import Call, Facts, Wiring, facts
from chip.checkpoint import Block, Changes, spans
from chip.core import Array, Chip
from chip.digest import Digests
from chip.linker.reuse import Linker
from chip.program import Program, Region
from chip.spec import ChipSpec

Packet = tuple[int, int]  # sending chip, send issue
Bundle = list[Array]


@dataclass(frozen=True)
class Batch:
    """Segment calls that a group makes in one go.

    `inbox` are (index of an earlier batch of another group, packets of its bundle), `outbox` are
    (index of a later batch, packets for it).
    """

    index: int
    group: int
    calls: tuple[Call, ...]
    inbox: tuple[tuple[int, tuple[Packet, ...]], ...]
    outbox: tuple[tuple[int, tuple[Packet, ...]], ...]


@dataclass(frozen=True)
class Finished:
    """What the chips of a group hold after a launch: outputs by name, digests, by chip."""

    outputs: dict[int, dict[str, Array]]
    digests: Digests


def batches(wiring: Wiring, group_of: Mapping[int, int]) -> tuple[Batch, ...]:
    """Calls of a launch gathered into batches; each needs only packets of earlier ones.

    A call joins its group's open batch unless it needs a packet of a later batch.
    """
    calls: list[list[Call]] = []
    open_batch: dict[int, int] = {}
    groups: list[int] = []
    maker: dict[Packet, int] = {}
    for call in wiring.calls:
        group = group_of[call.chip]
        index = open_batch.get(group, -1)
        if index < max((maker[chip, send] for _, chip, send in call.packets), default=0):
            index = open_batch[group] = len(calls)
            calls.append([])
            groups.append(group)
        calls[index].append(call)
        maker.update(((call.chip, send), index) for send in call.sends)
    return _bundled(calls, groups, maker)


def _bundled(
    calls: list[list[Call]], groups: list[int], maker: Mapping[Packet, int]
) -> tuple[Batch, ...]:
    bundles: dict[tuple[int, int], list[Packet]] = {}
    for index, made in enumerate(calls):
        for call in made:
            for _, chip, send in call.packets:
                if groups[maker[chip, send]] != groups[index]:
                    bundles.setdefault((maker[chip, send], index), []).append((chip, send))
    inbox: dict[int, list[tuple[int, tuple[Packet, ...]]]] = {}
    outbox: dict[int, list[tuple[int, tuple[Packet, ...]]]] = {}
    for (source, target), packets in sorted(bundles.items()):
        inbox.setdefault(target, []).append((source, tuple(packets)))
        outbox.setdefault(source, []).append((target, tuple(packets)))
    return tuple(
        Batch(n, groups[n], tuple(made), tuple(inbox.get(n, ())), tuple(outbox.get(n, ())))
        for n, made in enumerate(calls)
    )


class ChipGroup:
    """Some chips of a cluster. Plain and synchronous; the calls of a launch come batch by batch."""

    def __init__(
        self, numbers: Iterable[int], spec: ChipSpec, linker: Linker | None = None
    ) -> None:
        """Make the chips; `linker` links for them, and knows programs that it has met before."""
        self.chips = {number: Chip(number, spec) for number in numbers}
        self._changes = {number: Changes(chip.sram) for number, chip in self.chips.items()}
        self._linker = linker or Linker()
        self._programs: dict[str, dict[int, Program]] = {}
        self._batches: dict[tuple[str, int], Batch] = {}
        self._sent: dict[Packet, Array] = {}

    def load(self, name: str, number: int, data: bytes) -> Facts:
        """Link a program; what the other groups must know of it."""
        linked = self.chips[number].load(name, data, self._linker(data))
        self._programs.setdefault(name, {})[number] = linked.program
        self._changes[number].watch(spans(linked))
        return facts(linked)

    @property
    def interpreted_nodes(self) -> int:
        """Nodes of programs that have been run which NumPy interprets, on all chips."""
        return sum(chip.interpreted_nodes for chip in self.chips.values())

    def write(self, constants: Iterable[tuple[int, Region, Array]]) -> None:
        """Store (chip, region, values)."""
        for number, region, values in constants:
            self.chips[number].write(region, values)

    def contents(self, wanted: Mapping[int, Iterable[Region]]) -> dict[int, list[bytes]]:
        """What is in regions, by chip; of those that are here."""
        return {
            number: [self.chips[number].contents(region) for region in regions]
            for number, regions in wanted.items()
            if number in self.chips
        }

    def put(
        self, wanted: Mapping[int, Iterable[Region]], contents: Mapping[int, Iterable[bytes]]
    ) -> None:
        """Put back into regions, as large ones, what `contents` has found."""
        for number in wanted.keys() & self.chips.keys():
            for region, data in zip(wanted[number], contents[number], strict=True):
                self.chips[number].put(region, data)

    def prepare(self, name: str, mine: Iterable[Batch]) -> None:
        """Take the group's batches of a launch."""
        self._linker = Linker()  # nothing more to link: drop the copies
        self._batches.update({(name, batch.index): batch for batch in mine})

    def join(self, name: str, parts: Mapping[int, str], mine: Iterable[Batch]) -> None:
        """Make a launch of programs that are loaded: on each chip the one of launch `parts`."""
        ours = {number: parts[number] for number in self.chips if number in parts}
        for number, part in ours.items():
            self.chips[number].programs[name] = self.chips[number].programs[part]
        self._programs[name] = {n: self._programs[part][n] for n, part in ours.items()}
        self._batches.update({(name, batch.index): batch for batch in mine})

    def begin(self, name: str, inputs: Mapping[int, Mapping[str, Array]]) -> None:
        """Start a launch: write the host's inputs, by chip and name."""
        self._sent.clear()
        for number, program in self._programs.get(name, {}).items():
            self.chips[number].begin(name)
            for key, values in inputs.get(number, {}).items():
                self.chips[number].write(program.inputs[key], values)

    def run(self, name: str, index: int, bundles: Sequence[Bundle] = ()) -> list[Bundle]:
        """Run a batch on the bundles of its inbox; returns those of its outbox."""
        batch, sent = self._batches[name, index], self._sent
        for (_, packets), bundle in zip(batch.inbox, bundles, strict=True):
            sent.update(zip(packets, bundle, strict=True))
        for call in batch.calls:
            received = {receive: sent.pop((chip, send)) for receive, chip, send in call.packets}
            for issue, packet in self.chips[call.chip].run(call.segment, received).items():
                sent[call.chip, issue] = packet
        return [[sent.pop(packet) for packet in packets] for _, packets in batch.outbox]

    def finish(self, name: str) -> Finished:
        """End a launch."""
        programs = self._programs.get(name, {})
        digests = Digests({number: self.chips[number].finish() for number in sorted(programs)})
        outputs = {
            number: {key: self.chips[number].read(region) for key, region in p.outputs.items()}
            for number, p in sorted(programs.items())
            if p.outputs
        }
        return Finished(outputs, digests)

    def changes(self) -> dict[int, list[Block]]:
        """Blocks of SRAM, by chip, that launches have changed since the last call."""
        taken = {number: changes.take() for number, changes in self._changes.items()}
        return {number: blocks for number, blocks in taken.items() if blocks}

    def restore(self, blocks: Mapping[int, Iterable[Block]]) -> None:
        """Go back to the state in which all the changes of every chip were `blocks`."""
        for number, changes in self._changes.items():
            changes.restore(blocks.get(number, ()))
