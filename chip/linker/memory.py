"""Second pass: what memory and instruction fetch allow, whatever the data."""

from dataclasses import dataclass

import numpy as np

from chip.errors import AddressError, BankConflict, ConstantWritten, RateExceeded
from chip.linker.timeline import Issue, Timeline
from chip.program import Flags, Ints, Program
from chip.spec import ChipSpec


@dataclass(frozen=True, eq=False)
class Constants:
    """The constant regions of a program: first words and ends, in order, in each slice.

    Words are counted through all slices, `slice_words` in each.
    """

    first: Ints
    end: Ints
    slice_words: int

    @classmethod
    def of(cls, program: Program, spec: ChipSpec) -> "Constants":
        """Those of a program."""
        places = [
            (index * spec.slice_words + region.address, region.words)
            for region in program.constants
            for index in range(region.index, region.index + region.slices)
        ]
        first, words = np.array(sorted(places), np.int64).reshape(-1, 2).T
        return cls(first, first + words, spec.slice_words)

    def hold(self, index: Ints, low: Ints, high: Ints) -> Flags:
        """Whether words `low` to `high` of each slice lie in one of them."""
        start = index * self.slice_words
        at = np.searchsorted(self.first, start + low, side="right") - 1
        ends = np.append(self.end, -1)[at]  # of none: before all words
        return (at >= 0) & (low >= 0) & (high < self.slice_words) & (start + high < ends)

    def meet(self, index: Ints, low: Ints, high: Ints) -> Flags:
        """Whether some word from `low` to `high` of each slice lies in one of them."""
        start, ends = index * self.slice_words, np.maximum.accumulate(self.end)
        before = np.searchsorted(self.first, start + high, side="right")
        return (before > 0) & (np.append(ends, -1)[before - 1] > start + low)


def check_fetch(issues: Timeline, spec: ChipSpec) -> None:
    """No more instructions start in a cycle than the chip fetches; repeats are fetched once."""
    limit = spec.fetch_bytes_per_cycle // spec.instruction_bytes
    cycles, counts = np.unique(issues.cycle, return_counts=True)
    crowded = np.flatnonzero(counts > limit)
    if len(crowded):
        cycle = int(cycles[crowded[0]])
        last = issues[int(np.flatnonzero(issues.cycle == cycle)[-1])]
        detail = f"{int(counts[crowded[0]])} instructions in a cycle, {limit} are fetched"
        raise last.hazard(RateExceeded, detail, cycle)


def check_memory(issues: Timeline, program: Program, spec: ChipSpec) -> None:
    """Addresses in range, one bank port per cycle, constant regions never written.

    What is gathered from a constant region, as experts are, lies in it whatever the addresses, and
    may be in either bank then: it has the ports of both.
    """
    constants = Constants.of(program, spec)
    reads, writes = issues.have("read", "gather"), issues.have("write", "scatter")
    outside = (issues.low < 0) | (issues.high >= spec.slice_words) | (issues.high < issues.low)
    split = issues.low // spec.bank_words != issues.high // spec.bank_words
    near = constants.meet(issues.unit, issues.low, issues.high)
    held = issues.have("gather") & constants.hold(issues.unit, issues.low, issues.high)
    suspect = (reads | writes) & (outside | split & issues.have("gather", "scatter") & ~held)
    suspect |= writes & near
    suspect |= issues.have("gather") & near & ~held
    for number in np.flatnonzero(suspect).tolist():
        _check_range(issues[number], spec)
        if issues[number].op.writes_memory:
            _check_not_constant(issues[number], constants)
        elif issues[number].op.role == "gather":
            low, high = issues[number].words
            detail = f"words {low}..{high} reach beyond the constants they are gathered from"
            raise issues[number].hazard(AddressError, detail)
    banks = issues.low // spec.bank_words, issues.high // spec.bank_words
    for bank in range(spec.slice_banks):
        there = (banks[0] <= bank) & (bank <= banks[1])
        for unit in np.unique(issues.unit[writes & there]).tolist():
            here = there & (issues.unit == unit)
            _check_banks(issues, np.flatnonzero(reads & here), np.flatnonzero(writes & here))


def _check_range(issue: Issue, spec: ChipSpec) -> None:
    low, high = issue.words
    if low < 0 or high >= spec.slice_words or high < low:
        raise issue.hazard(AddressError, f"words {low}..{high} of a {spec.slice_words}-word slice")
    if issue.op.stepped is None and spec.bank(low) != spec.bank(high):
        raise issue.hazard(AddressError, f"region {low}..{high} lies in two banks")


def _check_not_constant(issue: Issue, constants: Constants) -> None:
    low, high = issue.words
    touched = np.arange(low, high + 1) if issue.op.stepped is None else issue.steps
    hit = touched[constants.meet(np.full_like(touched, issue.unit), touched, touched)]
    if len(hit):
        raise issue.hazard(ConstantWritten, f"word {hit[0]} of slice {issue.unit}")


def _check_banks(issues: Timeline, reads: Ints, writes: Ints) -> None:
    """A slice serves a read and a write in one cycle only from opposite banks."""
    reads = _concurrent(issues, reads, writes)
    if not len(reads):
        return
    write_keys, write_of = _bank_keys(issues, writes)
    order = np.argsort(write_keys, kind="stable")
    write_keys, write_of = write_keys[order], write_of[order]
    read_keys, read_of = _bank_keys(issues, reads)
    at = np.minimum(np.searchsorted(write_keys, read_keys), len(write_keys) - 1)
    clash = np.flatnonzero(write_keys[at] == read_keys)
    if len(clash):
        reader, writer = issues[int(read_of[clash[0]])], issues[int(write_of[at[clash[0]]])]
        cycle, bank = divmod(int(read_keys[clash[0]]), issues.spec.slice_banks)
        detail = f"slice {reader.unit} bank {bank} is written in the same cycle"
        raise reader.hazard(BankConflict, detail, cycle, (writer,))


def _concurrent(issues: Timeline, reads: Ints, writes: Ints) -> Ints:
    """The reads during which some write is under way; both are in order of issue."""
    ends = np.maximum.accumulate(issues.last[writes])
    before = np.searchsorted(issues.cycle[writes], issues.last[reads], side="right")
    under_way = (before > 0) & (ends[np.maximum(before - 1, 0)] >= issues.cycle[reads])
    found: Ints = reads[under_way]
    return found


def _bank_keys(issues: Timeline, accesses: Ints) -> tuple[Ints, Ints]:
    """A number for each cycle and bank that they access, and whose it is."""
    keys, owners, spec = [], [], issues.spec
    for number in accesses.tolist():
        issue = issues[number]
        for banks in _banks_of(issue, spec):
            keys.append(issue.cycles * spec.slice_banks + banks)
            owners.append(np.full(len(issue.cycles), number))
    return np.concatenate(keys), np.concatenate(owners)


def _banks_of(issue: Issue, spec: ChipSpec) -> list[Ints]:
    """The bank in each iteration; all banks of the region of one whose addresses are data."""
    if issue.op.stepped is not None:
        return [issue.steps // spec.bank_words]
    low, high = map(spec.bank, issue.words)
    return [np.full_like(issue.cycles, bank) for bank in range(low, high + 1)]
