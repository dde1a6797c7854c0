"""Flipped bits: who meets them, and what the ECC makes of it.

The code is linear, so that a syndrome depends on the flips alone, whatever the data: words are left
as they are, which is what a correction restores, and the flips are kept here and decoded where the
word is consumed. A chip without flips does nothing of this. With flips, a launch is looked through
once more when it is over, on its time axis: which accesses touch a flipped word, who feeds whom.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from chip import ecc
from chip.errors import ChipError, EccError
from chip.isa import WIDTHS
from chip.linker.streams import PRODUCT, Feeds, drive_keys, resolve
from chip.linker.timeline import Issue, timeline
from chip.program import Ints, Program
from chip.spec import ChipSpec

MOST = 2  # flips of a word that the code is made for
Word = tuple[int, int, int]  # slice, address, superlane
Value = tuple[int, int, int]  # issue, iteration, stream: what an instruction put on a stream
Event = tuple[int, bool, Issue, int, set[int]]
Access = tuple[str, int, Ints]  # family, slice, addresses [iterations, superlanes]


@dataclass(frozen=True)
class Passing:
    """A stream register in a cycle of the launch, counted from the program's start."""

    stream: int
    position: int
    cycle: int
    superlane: int


@dataclass(frozen=True)
class Flip:
    """Wrong bits of a value from a place on its way on, and what to call them."""

    along: int
    superlane: int
    bits: int
    where: str


@dataclass
class Faults:
    """The flipped bits of a chip: at rest, and on streams in the next launch."""

    words: dict[Word, int] = field(default_factory=dict)
    passing: dict[Passing, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.words or self.passing)

    def flip(self, word: Word, bit: int) -> None:
        """Flip a bit of a word at rest; twice is undone. Raises ChipError for a third bit."""
        _toggle(self.words, word, bit)

    def flip_passing(self, place: Passing, bit: int) -> None:
        """Flip a bit of whatever passes there in the next launch."""
        _toggle(self.passing, place, bit)

    def overwrite(self, index: int, low: int, high: int) -> None:
        """Words `low` to `high` of a slice are new, and with them their check bits."""
        for word in [w for w in self.words if w[0] == index and low <= w[1] <= high]:
            del self.words[word]

    def consume(self, chip: int, index: int, low: int, high: int) -> int:
        """Check words that the host reads; the number corrected. Raises EccError."""
        found = [w for w in self.words if w[0] == index and low <= w[1] <= high]
        for word in found:
            _decode(chip, self.words[word], _name(word), "the host reads it")
        return len(found)


def _toggle(flips: dict[Word, int] | dict[Passing, int], key: object, bit: int) -> None:
    if not 0 <= bit < ecc.WORD_BITS:
        raise ChipError(f"bit {bit} of a word of {ecc.WORD_BITS} bits, check bits included")
    table: dict[object, int] = flips  # type: ignore[assignment]
    bits = table.get(key, 0) ^ 1 << bit
    if bits.bit_count() > MOST:
        raise ChipError(f"{key}: a third flipped bit is beyond what the code detects")
    table[key] = bits
    if not bits:
        del table[key]


def _name(word: Word) -> str:
    return f"slice {word[0]} address {word[1]} superlane {word[2]}"


def _decode(chip: int, bits: int, where: str, consumer: str) -> None:
    try:
        data, _ = ecc.decode(bits)
    except ecc.Uncorrectable as error:
        raise EccError(chip, where, consumer, str(error)) from None
    assert data == 0  # the flips are gone: the word is what its producer made


def audit(program: Program, spec: ChipSpec, faults: Faults, accesses: list[Access]) -> int:
    """Number of corrections by the consumers of a launch that is over; raises EccError.

    `accesses` are its indirect ones, in order. Words written in it have lost their flips after.
    """
    issues = timeline(program, spec)
    feeds = resolve(issues, spec)
    found: dict[Value, list[Flip]] = defaultdict(list)
    for (index, address), superlanes in _by_word(faults).items():
        events = sorted(_events(issues, spec, accesses, index, address), key=lambda e: e[:2])
        _pass_on(events, faults, (index, address), superlanes, found)
    for place, bits in faults.passing.items():
        _pick(issues, spec, place, bits, found)
    faults.passing.clear()
    corrected = 0
    for value, flips in found.items():
        for consumer, along, cycle in _consumers(issues, feeds, spec, value):
            corrected += _check(program, flips, consumer, along, cycle)
    return corrected


def _check(program: Program, flips: list[Flip], consumer: Issue, along: int, cycle: int) -> int:
    """Decode what a consumer sees of the words of a value, one per superlane."""
    seen: dict[int, list[Flip]] = defaultdict(list)
    for flip in flips:
        if flip.along < along:
            seen[flip.superlane].append(flip)
    for mine in seen.values():
        bits = 0
        for flip in mine:
            bits ^= flip.bits
        where = " and ".join(dict.fromkeys(flip.where for flip in mine))
        _decode(program.chip, bits, where, f"consumed by {consumer.queue} at cycle {cycle}")
    return len(seen)


def _by_word(faults: Faults) -> dict[tuple[int, int], list[int]]:
    grouped: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, address, superlane in faults.words:
        grouped[index, address].append(superlane)
    return grouped


def _pass_on(
    events: list[Event],
    faults: Faults,
    word: tuple[int, int],
    superlanes: list[int],
    found: dict[Value, list[Flip]],
) -> None:
    """Follow one SRAM word through the launch: reads pass its flips on, a write ends them."""
    for _, writes, issue, iteration, tiles in events:
        for superlane in [s for s in superlanes if s in tiles]:
            key = (*word, superlane)
            if writes:
                faults.words.pop(key, None)
            elif key in faults.words:
                out = issue.arg("out")
                flip = Flip(-1, superlane, faults.words[key], _name(key))
                found[issue.id, iteration, out].append(flip)


def _events(
    issues: Sequence[Issue], spec: ChipSpec, accesses: list[Access], index: int, address: int
) -> Iterator[Event]:
    """(cycle, whether it writes, issue, iteration, superlanes) of each access to a word."""
    left = [access for access in accesses if access[1] == index]
    for issue in issues:
        if not issue.op.in_memory or issue.unit != index:
            continue
        writes = issue.op.writes_memory
        if issue.op.stepped is not None:
            everywhere = set(range(issue.lanes // spec.superlane_lanes))
            for i in np.flatnonzero(issue.steps == address):
                yield int(issue.cycles[i]), writes, issue, int(i), everywhere
            continue
        place = next(n for n, one in enumerate(left) if _is_of(issue, one))
        _, _, words = left.pop(place)
        for i in np.flatnonzero((words == address).any(axis=1)):
            tiles = set(np.flatnonzero(words[i] == address).tolist())
            yield int(issue.cycles[i]), writes, issue, int(i), tiles


def _is_of(issue: Issue, access: Access) -> bool:
    """Whether an indirect access may be this issue's: equal ones execute in order of cycles."""
    family, _, words = access
    low, high = issue.words
    inside = low <= int(words.min()) and int(words.max()) <= high
    return family == issue.family and len(words) == issue.instruction.count and inside


def _pick(
    issues: Sequence[Issue],
    spec: ChipSpec,
    place: Passing,
    bits: int,
    found: dict[Value, list[Flip]],
) -> None:
    """The value whose bits a flip on a stream changes, if any is there."""
    along = spec.along(place.stream // spec.streams, place.position)
    diagonal, best = place.cycle - along, (-1, -1, -1)
    for issue in issues:
        for channel, keys in drive_keys(issue, spec):
            at = np.flatnonzero(
                (keys // spec.positions == diagonal) & (keys % spec.positions <= along)
            )
            if channel == place.stream and len(at):
                best = max(best, (int(keys[at[0]] % spec.positions), issue.id, int(at[0])))
    if best[1] >= 0:
        where = f"stream {place.stream} position {place.position} cycle {place.cycle}"
        flip = Flip(along, place.superlane, bits, f"{where} superlane {place.superlane}")
        found[best[1], best[2], place.stream].append(flip)


def _consumers(
    issues: Sequence[Issue], feeds: Feeds, spec: ChipSpec, value: Value
) -> Iterator[tuple[Issue, int, int]]:
    """(issue, position along the stream, cycle) of everyone who takes a value off its stream."""
    producer, iteration, stream = value
    for (number, operand), parts in feeds.items():
        if operand == PRODUCT:
            continue
        issue = issues[number]
        first = issue.instruction.args[operand]
        width = WIDTHS[issue.op.element(operand, issue.instruction.args)]
        if not first <= stream < first + width:
            continue
        feed = parts[stream - first]
        at = np.flatnonzero((feed.producers == producer) & (feed.iterations == iteration))
        for i in at:
            yield issue, spec.along(stream // spec.streams, issue.position), int(issue.cycles[i])
