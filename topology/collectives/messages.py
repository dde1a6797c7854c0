"""A collective as a frozen list of messages, before anybody asks when they are sent.

Vocabulary. The `chips` of a group are ranks 0..P-1. Each rank has a buffer of `vectors` vectors cut
into blocks; a *slot* is one buffer (0 holds the input, others are scratch, empty at first). A
message moves consecutive blocks of one rank's slot to another rank's slot, as a copy or as an
addition. It depends on whatever brought the blocks that it reads. The timetable times the list,
NumPy carries it out, and `chip.kernels.collective` makes Sends, Receives and additions of it.

A *narrow* slot holds sums in the format in which they travel between nodes: what is added up there
is rounded once, and messages that read it have fewer vectors.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from topology.collectives.job import Job
from topology.fabric import Ints
from topology.routes import Paths

_SHARED_ENDS = 8  # the latest ones a step may share


@dataclass(frozen=True, eq=False)
class Ends:
    """Ranks that send and ranks that receive; many steps of a list share one object."""

    src: Ints
    dst: Ints


@dataclass(frozen=True, eq=False)
class Send:
    """Messages none of which depends on another: one array entry each, ranks not chips.

    All read what was there before this step. Additions to one block run in the order of the list,
    after the value that rests there; or, `by_rank`, they sum up the senders' values and the
    receiver's own value of `src_slot` in the order of ranks, beginning with slot `onto`.
    """

    ends: Ends
    block: Ints  # first block read on the source
    dst_block: Ints  # first block written on the destination
    blocks: int  # consecutive blocks per message
    add: bool
    by_rank: bool
    onto: int | None
    src_slot: int
    dst_slot: int
    whole: bool  # wait for the last vector of the data instead of following it
    barrier: bool  # wait for the end of all steps before
    from_start: bool  # what is read is there from the start
    follows: tuple[int, Ints] | None  # (step, its message that brings what each of these reads)
    noted: bool  # a later step may look up when what this one brings is there
    via: Paths | None  # prescribed routes; else the minimal ones
    turn: Ints  # which of parallel cables each message takes, round and round

    @property
    def src(self) -> Ints:
        """The rank that sends each message."""
        return self.ends.src

    @property
    def dst(self) -> Ints:
        """The rank that receives each message."""
        return self.ends.dst


@dataclass(frozen=True)
class Combine:
    """Every rank makes slot `out` of others, added from left to right, block by block."""

    terms: tuple[int, ...]
    out: int
    own_block_only: bool = False


@dataclass(frozen=True, eq=False)
class Messages:
    """Who sends what to whom and where it is added, step after step."""

    job: Job
    block_start: Ints  # [blocks + 1] first vector of each block
    shares: int  # blocks per rank where the buffer is shared out
    steps: tuple[Send | Combine, ...]
    result_slot: int
    narrow: frozenset[int] = frozenset()


@dataclass
class Draft:
    """Collects the steps of one collective; algorithms call `send` and `combine`."""

    job: Job
    blocks: int
    shares: int = 1
    equal: bool = False  # all blocks alike, for when a block changes its place
    result_slot: int = 0
    steps: list[Send | Combine] = field(default_factory=list)
    narrow: set[int] = field(default_factory=set)
    _known: list[Ends] = field(default_factory=list)

    def __post_init__(self) -> None:
        units = -(-self.job.vectors // self.job.unit_vectors)
        units = -(-units // self.blocks) * self.blocks if self.equal else units
        cuts = np.arange(self.blocks + 1) * units // self.blocks
        self.resize(np.diff(cuts) * self.job.unit_vectors)
        self.one_cable = bool(self.job.fabric.cables.max(initial=1) == 1)
        # Which blocks of a scratch slot hold something; None if all do.
        self._filled: dict[int, NDArray[np.bool_] | None] = {0: None}

    def resize(self, block_vectors: Ints) -> None:
        """Set the sizes of all blocks; before anything is sent."""
        self.block_vectors = block_vectors
        self.block_start: Ints = np.concatenate(([0], np.cumsum(block_vectors)))
        self._full = bool(block_vectors.all())

    @property
    def plain(self) -> bool:
        """Whether what was sent says when data is there: one pace, no empty block, no release."""
        one_pace = len(self.job.fabric.paces) == 1
        return one_pace and self._full and self.job.release_cycles is None

    def send(
        self,
        src: Ints,
        dst: Ints,
        block: Ints,
        *,
        blocks: int = 1,
        add: bool = False,
        by_rank: bool = False,
        onto: int | None = None,
        src_slot: int = 0,
        dst_slot: int = 0,
        dst_block: Ints | None = None,
        whole: bool = False,
        barrier: bool = False,
        from_start: bool = False,
        follows: tuple[int, Ints] | None = None,
        noted: bool = True,
        via: Paths | None = None,
        turn: Ints | None = None,
    ) -> int:
        """Add messages: rank src[i] sends `blocks` blocks from block[i] on to rank dst[i].

        Messages of empty blocks, and those of slots that hold nothing there, are left out. Returns
        the number of the step.
        """
        if blocks > 1 and not self.one_cable:  # let every block take its own cable
            span = np.tile(np.arange(blocks), len(block))
            src, dst, block = (np.repeat(one, blocks) for one in (src, dst, block))
            dst_block = None if dst_block is None else np.repeat(dst_block, blocks) + span
            block, blocks = block + span, 1
        if src_slot in self.narrow:
            assert add and blocks == 1 and follows is None, "rounded sums are there to be added up"
        turn = block if turn is None else turn
        keep = self._kept(src, block, blocks, src_slot)
        if keep is not None:
            src, dst, block, turn = src[keep], dst[keep], block[keep], turn[keep]
            dst_block = None if dst_block is None else dst_block[keep]
            via = None if via is None else via.some(keep)
        to_block = block if dst_block is None else dst_block
        self._fill(dst_slot, dst, to_block, blocks)
        step = Send(
            *(
                self._ends(src, dst),
                block,
                to_block,
                blocks,
                add,
                by_rank,
                onto,
                src_slot,
                dst_slot,
            ),
            *(whole, barrier, from_start, follows, noted, via, turn),
        )
        self.steps.append(step)
        return len(self.steps) - 1

    def round_off(self, slot: int) -> None:
        """Let a scratch slot be narrow, if sums are to travel so."""
        if self.job.sums.narrow:
            self.narrow.add(slot)

    def combine(self, terms: tuple[int, ...], out: int, own_block_only: bool = False) -> None:
        """Let every rank fill slot `out`, unused so far, with the sum (or copy) of other slots."""
        slots = [self._filled.get(slot) for slot in terms]
        known = [one for one in slots if one is not None]
        self._filled[out] = np.logical_or.reduce(known) if len(known) == len(slots) else None
        self.steps.append(Combine(terms, out, own_block_only))

    def messages(self) -> Messages:
        """The finished list."""
        steps = tuple(s for s in self.steps if isinstance(s, Combine) or len(s.src))
        narrow = frozenset(self.narrow)
        assert self.result_slot not in narrow
        assert len(steps) == len(self.steps) or not any(
            isinstance(s, Send) and s.follows for s in steps
        ), "steps are numbered, and none of them may be empty"
        return Messages(self.job, self.block_start, self.shares, steps, self.result_slot, narrow)

    def _ends(self, src: Ints, dst: Ints) -> Ends:
        """Those of an earlier step with the same arrays, or new ones."""
        for known in self._known[-_SHARED_ENDS:]:
            if known.src is src and known.dst is dst:
                return known
        self._known.append(Ends(src, dst))
        return self._known[-1]

    def _kept(self, src: Ints, block: Ints, blocks: int, slot: int) -> Ints | None:
        """Which messages carry something; None if all do."""
        filled = self._filled[slot]
        if self._full and filled is None:
            return None
        carried = self.block_start[block + blocks] > self.block_start[block]
        if filled is not None:
            assert blocks == 1, "only messages of one block each may be of half-empty slots"
            carried = carried & filled[src, block]
        return None if carried.all() else np.flatnonzero(carried)

    def _fill(self, slot: int, dst: Ints, block: Ints, blocks: int) -> None:
        empty = np.zeros((self.job.ranks, self.blocks), bool) if slot else None
        filled = self._filled.setdefault(slot, empty)
        if filled is not None:
            for more in range(blocks):
                filled[dst, block + more] = True
