"""Second pass: who feeds whom. Every consumer's diagonals are matched to their drivers.

A value driven at position p in cycle t travels on the diagonal k = t - p (with p counted along
the direction of travel), so a driver owns the key (k, p) and a consumer at q reads the greatest
key of its diagonal below (k, q): the nearest driver strictly upstream. ALU results and MXM
products are channels of zero length with the same rule.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from chip.errors import EmptyStream, Misaligned, Overwritten, StreamConflict
from chip.isa import ALU_BASE, FORMATS, IMMEDIATE, NO_STREAM, STACKS, STREAM_CODES, WIDTHS, Op
from chip.linker.timeline import Issue
from chip.program import Instruction, Ints
from chip.spec import ChipSpec

PRODUCT_BASE = 160  # channels of the MXM products, after the codes an operand can name
PRODUCT = 9  # pseudo operand: the product an ACC takes from its plane pair


@dataclass(frozen=True, eq=False)
class Feed:
    """Where one byte stream of an operand comes from, iteration by iteration.

    `producers` [n] are issue ids, `iterations` [n] the producer's iterations, `byte` which byte
    plane of the producer's element: the one from `low_byte` to `high_byte`.
    """

    producers: Ints
    iterations: Ints
    byte: Ints
    owners: tuple[int, ...]  # the producers, each once
    low_byte: int
    high_byte: int

    def single(self) -> int | None:
        """The producer, if there is only one."""
        return self.owners[0] if len(self.owners) == 1 else None

    @cached_property
    def pattern(self) -> bytes:
        """The iterations, as what compares quickly."""
        return self.iterations.tobytes()

    def at(self, where: Ints) -> "Feed":
        """Some of its iterations."""
        producers = self.producers[where]
        return replace(
            self,
            producers=producers,
            iterations=self.iterations[where],
            byte=self.byte[where],
            owners=tuple(np.unique(producers).tolist()),
        )

    def is_in_step(self, other: "Feed") -> bool:
        """Whether the same iterations of the same producers arrive."""
        same = self.owners == other.owners and self.pattern == other.pattern
        return same and (len(self.owners) == 1 or np.array_equal(self.producers, other.producers))

    def carries(self, byte: int) -> bool:
        """Whether it is that byte plane throughout, or whole elements of an ALU."""
        if self.low_byte == self.high_byte:
            return self.low_byte in (byte, -1)
        return bool(((self.byte == byte) | (self.byte < 0)).all())


Feeds = dict[tuple[int, int], list[Feed]]  # (issue id, operand) -> one Feed per byte stream


def drive_of(op: Op, instruction: Instruction) -> tuple[int, int] | None:
    """(first channel, width) of the streams that an instruction drives; None if it drives none."""
    index = op.driven
    if index is None or instruction.args[index] == NO_STREAM:
        return None
    return instruction.args[index], WIDTHS[op.element(index, instruction.args)]


def resolve(issues: Sequence[Issue], spec: ChipSpec) -> Feeds:
    """Match every stream operand to its producers; raises the stream hazards."""
    drivers: dict[int, list[tuple[Ints, Issue, int]]] = {}
    readers: dict[int, list[tuple[Ints, Issue, int, int]]] = {}
    for issue in issues:
        _collect_drives(issue, spec, drivers)
        _collect_reads(issue, spec, readers)
    table = _Resolver(issues, spec)
    for channel in sorted(readers):
        table.match(channel, drivers.get(channel, []), readers[channel])
    for channel in sorted(set(drivers) - set(readers)):
        table.sorted_drivers(drivers[channel])
    for (issue_id, operand), feeds in table.feeds.items():
        _check_types(issues, issues[issue_id], operand, feeds)
    return table.feeds


def _collect_drives(
    issue: Issue, spec: ChipSpec, drivers: dict[int, list[tuple[Ints, Issue, int]]]
) -> None:
    if issue.op.driven is None and issue.op.role != "products":
        return
    driven = drive_of(issue.op, issue.instruction)
    ready = (issue.cycles + spec.d_func(issue.op.timing)) * spec.positions
    if issue.op.role == "products":
        channel = PRODUCT_BASE + issue.unit
        drivers.setdefault(channel, []).append((ready, issue, 0))
    elif driven is not None:
        code, width = driven
        _check_group(issue, code, width)
        along = spec.along(code // spec.streams, issue.position)
        keys = ready + (along - along * spec.positions)
        for byte in range(width):
            drivers.setdefault(code + byte, []).append((keys, issue, byte))
    if issue.op.role == "pointwise":
        drivers.setdefault(ALU_BASE + issue.unit, []).append((ready, issue, -1))


def _collect_reads(
    issue: Issue, spec: ChipSpec, readers: dict[int, list[tuple[Ints, Issue, int, int]]]
) -> None:
    codes = [issue.instruction.args[operand] for operand in issue.op.sources]
    varies = any(code != IMMEDIATE for code in codes)
    for operand, code in zip(issue.op.sources, codes, strict=True):
        if code < STREAM_CODES:
            width = WIDTHS[issue.op.element(operand, issue.instruction.args)]
            _check_group(issue, code, width)
            along = spec.along(code // spec.streams, issue.position)
            keys = issue.cycles * spec.positions + (along - along * spec.positions)
            for byte in range(width):
                readers.setdefault(code + byte, []).append((keys, issue, operand, byte))
        elif code < ALU_BASE + spec.vxm_alus and issue.op.role == "pointwise":
            keys = issue.cycles * spec.positions + 1
            readers.setdefault(code, []).append((keys, issue, operand, 0))
        elif code != IMMEDIATE or not (varies and issue.op.constant(operand)):
            raise issue.hazard(Misaligned, f"operand {operand} names no stream or ALU: {code}")
    if issue.op.role == "sums":
        keys = issue.cycles * spec.positions + 1
        readers.setdefault(PRODUCT_BASE + issue.unit, []).append((keys, issue, PRODUCT, 0))


def drive_keys(issue: Issue, spec: ChipSpec) -> list[tuple[int, Ints]]:
    """(channel, keys) of all an issue drives."""
    found: dict[int, list[tuple[Ints, Issue, int]]] = {}
    _collect_drives(issue, spec, found)
    return [(channel, entry[0]) for channel, entries in found.items() for entry in entries]


def read_keys(issue: Issue, spec: ChipSpec) -> list[tuple[int, Ints]]:
    """(channel, keys) of all an issue reads."""
    found: dict[int, list[tuple[Ints, Issue, int, int]]] = {}
    _collect_reads(issue, spec, found)
    return [(channel, entry[0]) for channel, entries in found.items() for entry in entries]


def _check_group(issue: Issue, code: int, width: int) -> None:
    group = 1 << (width - 1).bit_length()
    if code % group or code + width > STREAM_CODES:
        raise issue.hazard(Misaligned, f"stream {code} does not start a group of {group}")


class _Resolver:
    """Matches one channel at a time and gathers the feeds."""

    def __init__(self, issues: Sequence[Issue], spec: ChipSpec) -> None:
        self.issues, self.spec, self.feeds = issues, spec, Feeds()
        names = (issue.instruction.names for issue in issues)
        self._made = np.array([name[-1] if name else 0 for name in names], np.int64)

    def sorted_drivers(
        self, drivers: list[tuple[Ints, Issue, int]]
    ) -> tuple[Ints, Ints, Ints, Ints]:
        """(keys, issue ids, iterations, bytes) by key; raises on two drivers of one slot."""
        if not drivers:
            none = np.zeros(0, np.int64)
            return none, none, none, none
        keys = np.concatenate([keys for keys, _, _ in drivers])
        sizes = [len(keys) for keys, _, _ in drivers]
        ids = np.repeat([issue.id for _, issue, _ in drivers], sizes)
        planes = np.repeat([byte for _, _, byte in drivers], sizes)
        iterations = np.concatenate([np.arange(size) for size in sizes])
        order = np.argsort(keys, kind="stable")
        keys, ids = keys[order], ids[order]
        twice = np.flatnonzero(keys[1:] == keys[:-1])
        if len(twice):
            first, second = (self.issues[int(ids[twice[0] + i])] for i in (0, 1))
            detail = f"drives the same slot as {first.queue}: {first.instruction}"
            cycle = int(second.cycles[iterations[order][twice[0] + 1]])
            raise second.hazard(StreamConflict, detail, cycle, (first,))
        return keys, ids, iterations[order], planes[order]

    def match(
        self,
        channel: int,
        drivers: list[tuple[Ints, Issue, int]],
        readers: list[tuple[Ints, Issue, int, int]],
    ) -> None:
        keys, ids, iterations, planes = self.sorted_drivers(drivers)
        sizes = [len(entry[0]) for entry in readers]
        ends: Ints = np.cumsum(sizes, dtype=np.int64)
        starts: Ints = ends - np.array(sizes, np.int64)
        wanted = np.concatenate([entry[0] for entry in readers])
        found = np.searchsorted(keys, wanted) - 1
        width = self.spec.positions
        missing = found < 0
        if len(keys):
            missing |= keys[found] // width != wanted // width
        if missing.any():
            first = int(missing.argmax())
            entry = int(np.searchsorted(ends, first, side="right"))
            if entry:  # the hazard of an earlier reader comes first
                self.match(channel, drivers, readers[:entry])
            issue = readers[entry][1]
            cycle = int(issue.cycles[first - starts[entry]])
            raise issue.hazard(EmptyStream, f"stream {channel} carries nothing then", cycle)
        producers, iterations, planes = ids[found], iterations[found], planes[found]
        self._check_names(readers, sizes, producers)
        few, many, low, high = (
            reduce.reduceat(column, starts).tolist()
            for column in (producers, planes)
            for reduce in (np.minimum, np.maximum)
        )
        for n, (begin, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            mine, (_, issue, operand, _) = producers[begin:end], readers[n]
            owners = (few[n],) if few[n] == many[n] else tuple(np.unique(mine).tolist())
            feed = Feed(mine, iterations[begin:end], planes[begin:end], owners, low[n], high[n])
            self.feeds.setdefault((issue.id, operand), []).append(feed)

    def _check_names(
        self, readers: list[tuple[Ints, Issue, int, int]], sizes: list[int], producers: Ints
    ) -> None:
        """Who names the value it wants gets no other one that has a name."""
        names = [_wanted_name(issue, operand) for _, issue, operand, _ in readers]
        wanted, made = np.repeat(names, sizes), self._made[producers]
        wrong = np.flatnonzero((wanted != 0) & (made != 0) & (wanted != made))
        if len(wrong):
            entry = int(np.searchsorted(np.cumsum(sizes), wrong[0], side="right"))
            issue, at = readers[entry][1], int(wrong[0]) - sum(sizes[:entry])
            other = self.issues[int(producers[wrong[0]])]
            detail = (
                f"wants value {names[entry]}, {other.queue} put value {int(made[wrong[0]])} over it"
            )
            raise issue.hazard(Overwritten, detail, int(issue.cycles[at]), (other,))


def _wanted_name(issue: Issue, operand: int) -> int:
    """The debug name of the value that an operand wants; 0 for any."""
    names = issue.instruction.names
    return names[issue.op.sources.index(operand)] if names and operand != PRODUCT else 0


def _check_types(issues: Sequence[Issue], issue: Issue, operand: int, feeds: list[Feed]) -> None:
    """A wide operand is fed by bytes, or by one element of its own type, in order."""
    if operand == PRODUCT:
        _check_products(issues, issue, feeds[0])
        return
    wanted = issue.op.element(operand, issue.instruction.args)
    for byte, feed in enumerate(feeds):
        for producer in feed.owners:
            other = issues[producer]
            index = other.op.driven
            assert index is not None
            made = other.op.element(index, other.instruction.args)
            if feed.high_byte < 0:  # forwarded from an ALU: a whole element
                fits = made == wanted
            elif WIDTHS[made] == 1 or WIDTHS[wanted] == 1 or made in STACKS or wanted in STACKS:
                fits = True
            else:
                in_order = feed.carries(byte) or bool(
                    (feed.byte[feed.producers == producer] == byte).all()
                )
                fits = made == wanted and in_order
            if not fits:
                detail = f"operand {operand} is {wanted}, fed by {made}"
                raise issue.hazard(Misaligned, detail, None, (other,))


def _check_products(issues: Sequence[Issue], issue: Issue, feed: Feed) -> None:
    """An ACC names the format of the products it takes."""
    for producer in feed.owners:
        other = issues[producer]
        wanted, made = (FORMATS[one.arg("format")] for one in (issue, other))
        if made != wanted:
            detail = f"takes products of {wanted}, they are of {made}"
            raise issue.hazard(Misaligned, detail, None, (other,))
