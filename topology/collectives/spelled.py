"""A timed collective item by item: what each message and addition takes, makes and waits for.

For a compiler, which needs to know where every block is and from when on, and for people. A message
that is to be added lands apart; the addition names it.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from topology.collectives.result import Batch, Collective, LocalAdd


class Span(NamedTuple):
    """Consecutive vectors of a slot."""

    slot: int
    first: int
    length: int


@dataclass(frozen=True)
class Message:
    """Vectors on their way; `after` are the numbers of the items that must come first.

    `step` is the one of the list of messages that it belongs to.
    """

    path: tuple[int, ...]  # chips, both ends included
    cables: tuple[int, ...]  # per hop, among those that join the two chips
    source: Span
    target: Span
    lands: bool  # apart from its target, where an addition takes it up
    start_cycle: int
    after: tuple[int, ...]
    step: int


@dataclass(frozen=True)
class Addition:
    """A chip makes `target` of its operands, added from left to right; of one, a copy.

    An operand is a span of the chip's own, or the number of a message that has landed there.
    """

    chip: int
    target: Span
    operands: tuple[Span | int, ...]
    start_cycle: int
    after: tuple[int, ...]


Item = Message | Addition
_Block = tuple[int, int, int]  # slot, rank, block


def spelled(collective: Collective) -> tuple[Item, ...]:
    """Return all messages and additions of a collective, in the order of its steps."""
    speller = _Speller(collective)
    for number, step in enumerate(collective.steps):
        if isinstance(step, Batch):
            speller.send(step, number)
        else:
            speller.combine(step)
    return tuple(speller.items)


@dataclass
class _Speller:
    """Keeps who wrote each block last, and who has read it since."""

    collective: Collective
    items: list[Item] = field(default_factory=list)
    written: dict[_Block, int] = field(default_factory=dict)
    readers: dict[_Block, list[int]] = field(default_factory=lambda: defaultdict(list))

    def send(self, batch: Batch, step: int) -> None:
        """The messages of a step, and what adds them up; all read what was there before it."""
        send, first = batch.send, len(self.items)
        ends = list(zip(send.src.tolist(), send.dst.tolist(), strict=True))
        blocks = list(zip(send.block.tolist(), send.dst_block.tolist(), strict=True))
        waits = []
        for number, ((src, _), (block, _)) in enumerate(zip(ends, blocks, strict=True), first):
            waits.append(self._read(number, _blocks(send.src_slot, src, block, send.blocks)))
        for i, ((src, dst), (block, dst_block)) in enumerate(zip(ends, blocks, strict=True)):
            after = waits[i]
            if not send.add:
                target = _blocks(send.dst_slot, dst, dst_block, send.blocks)
                after |= self._write(first + i, target)
            path, cables = self._way(batch, i, src)
            source = self._span(send.src_slot, block, send.blocks)
            target_span = self._span(send.dst_slot, dst_block, send.blocks)
            self.items.append(
                Message(
                    *(path, cables, source, target_span, send.add),
                    *(int(batch.start_cycle[i]), tuple(sorted(after)), step),
                )
            )
        if send.add:
            self._add_up(batch, first, ends, blocks)

    def combine(self, step: LocalAdd) -> None:
        """What every rank makes of its own slots, block by block."""
        combine, shares = step.combine, self.collective.messages.shares
        for rank in range(len(self.collective.chips)):
            for block in range(len(self.collective.block_start) - 1):
                if combine.own_block_only and block // shares != rank:
                    continue
                held = [slot for slot in combine.terms if self._holds(slot, rank, block)]
                operands = [self._span(slot, block, 1) for slot in held]
                if operands and operands[0].length:
                    reads = [(slot, rank, block) for slot in held]
                    cycle = int(step.ready_cycle[rank, block])
                    self._addition(rank, (combine.out, block, 1), operands, reads, cycle, ())

    def _add_up(
        self,
        batch: Batch,
        first: int,
        ends: list[tuple[int, int]],
        blocks: list[tuple[int, int]],
    ) -> None:
        send = batch.send
        arriving: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, ((_, dst), (_, dst_block)) in enumerate(zip(ends, blocks, strict=True)):
            arriving[dst, dst_block].append(i)
        arrival = batch.start_cycle + batch.latency_cycles
        for (rank, block), mine in arriving.items():
            cycle = int(arrival[mine].max())
            own_slot = send.src_slot if send.by_rank else send.dst_slot
            operands: list[Span | int] = [first + i for i in mine]
            own = _blocks(own_slot, rank, block, send.blocks)
            held = all(self._holds(*one) for one in own)
            assert held or not any(self._holds(*one) for one in own), "half of it is there"
            if send.by_rank:
                order = sorted((ends[i][0], first + i) for i in mine)
                operands = [number for _, number in order]
                place = sum(src < rank for src, _ in order)
            else:
                place = 0
            if held:
                operands.insert(place, self._span(own_slot, block, send.blocks))
            if send.onto is not None:
                operands.insert(0, self._span(send.onto, block, send.blocks))
            target = send.dst_slot, block, send.blocks
            self._addition(
                rank, target, operands, own if held else [], cycle, first + np.array(mine)
            )

    def _addition(
        self,
        rank: int,
        target: tuple[int, int, int],
        operands: Iterable[Span | int],
        reads: list[_Block],
        cycle: int,
        messages: Iterable[int],
    ) -> None:
        slot, block, blocks = target
        number = len(self.items)
        after = self._read(number, reads) | self._write(number, _blocks(slot, rank, block, blocks))
        after |= {int(message) for message in messages}
        chip, span = self.collective.chips[rank], self._span(slot, block, blocks)
        self.items.append(Addition(chip, span, tuple(operands), cycle, tuple(sorted(after))))

    def _holds(self, slot: int, rank: int, block: int) -> bool:
        """Whether a slot holds anything there."""
        return slot <= 0 or (slot, rank, block) in self.written

    def _read(self, number: int, blocks: list[_Block]) -> set[int]:
        for one in blocks:
            self.readers[one].append(number)
        return {self.written[one] for one in blocks if one in self.written}

    def _write(self, number: int, blocks: list[_Block]) -> set[int]:
        found = {self.written[one] for one in blocks if one in self.written}
        for one in blocks:
            found.update(self.readers.pop(one, ()))
            self.written[one] = number
        return found - {number}

    def _span(self, slot: int, block: int, blocks: int) -> Span:
        first, end = self.collective.block_start[[block, block + blocks]].tolist()
        return Span(slot, first, end - first)

    def _way(self, batch: Batch, i: int, src: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The chips of a message's route, and the cable of each hop."""
        fabric = self.collective.fabric
        hops = slice(i, i + 1) if batch.hop_start is None else slice(*batch.hop_start[i : i + 2])
        channels = batch.channel[hops]
        edges = fabric.channel_edge[channels]
        heads, cables = fabric.head[edges].tolist(), channels - fabric.first_channel[edges]
        return (self.collective.chips[src], *heads), tuple(cables.tolist())


def _blocks(slot: int, rank: int, block: int, blocks: int) -> list[_Block]:
    return [(slot, rank, one) for one in range(block, block + blocks)]
