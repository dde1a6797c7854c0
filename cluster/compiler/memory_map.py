"""The memory map of a stage: room for all that its kernels ask for."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np
import numpy.typing as npt

from chip.isa import WIDTHS
from chip.kernels.anywhere import Anywhere
from chip.kernels.conflicts import MUST, SHOULD, Conflicts
from chip.kernels.memory import MemoryMap, SramFull
from chip.kernels.occupancy import FOREVER
from chip.kernels.trial import Demands
from chip.kernels.work import CACHE, CONSTANT, HALVES, SCRATCH, Request
from chip.spec import EAST, WEST, ChipSpec
from cluster.errors import ClusterError

Words = npt.NDArray[np.int64]
ALONE = ("", "head.", "opening.")  # what stands before names of what is there once
TRIED_AGAIN = 8  # times, each with the row that found no place before all others
TRIED_PLACES = 16  # of columns in all slices: rows lie elsewhere each time
OWN_SIDE = 3  # of these with all columns on their own side, if that has the words for them


class MapError(ClusterError):
    """Buffers that cannot rest where a memory map has them: it names them and the rule."""

    def __init__(self, buffers: tuple[str, ...], rule: str) -> None:
        super().__init__(buffers, rule)
        self.buffers, self.rule = buffers, rule

    def __str__(self) -> str:
        return f"{' and '.join(self.buffers)} {self.rule}"


def memory_map(
    spec: ChipSpec,
    demands: Demands,
    layers: Mapping[str, int],
    slots: tuple[int, int],
    fixed: Sequence[tuple[str, tuple[int, int, int], int, str]],
    usual: Mapping[str, tuple[int, int]] | None = None,
    apart: bool = False,
) -> MemoryMap:
    """Room for all that was asked for; raises SramFull.

    `slots` are those with caches, and those of a launch at most. `fixed` buffers have a place:
    (name, (side, quad, bank), vectors, dtype). Others rest in their `usual` first slice and bank
    where they can, so that equal ops take equal cycles in all stages. Rows that find no place in
    any way are then placed before others.
    """
    usual = usual or {}
    ways = [_Way(usual)] if usual else []
    ways += [_Way({})]  # columns pack better so
    ways += [_Way({}, largest=True)] if slots[0] > 1 else []
    ways += [_Way({}, alike=True)] if len({*layers} - {*ALONE}) > 1 else []
    words = _words_in_turn(spec, demands.requests)
    tried = [(way, demands, words) for way in ways]
    if words:  # each bank for itself leaves more room
        alone = tuple(replace(request, in_turn=False) for request in demands.requests)
        tried += [(way, replace(demands, requests=alone), 0) for way in ways]
    failed, first = SramFull("", 0, 0), list[str]()
    rows = {request.name for request in demands.requests if request.layout == "rows"}
    for number, (way, mine, left) in enumerate((*tried, *tried[-1:] * TRIED_AGAIN)):
        if number >= len(tried):
            if failed.what not in rows:
                break
            first = [failed.what, *(name for name in first if name != failed.what)]
        try:
            found = replace(MemoryMap(spec, layers, *slots), apart=apart, row_words=left)
            return _placed(found, mine, fixed, usual, way, first)
        except SramFull as error:
            failed = error
    raise failed


def _words_in_turn(spec: ChipSpec, requests: Iterable[Request]) -> int:
    """Words of each bank that rows in both banks would have, spread over all slices."""
    rows = [request for request in requests if request.in_turn]
    taken = sum(-(-row.vectors // spec.slice_banks) * WIDTHS[row.dtype] for row in rows)
    return -(-taken // spec.slices)


@dataclass(frozen=True)
class _Way:
    """How columns are put: in their `usual` slices, or where it is emptiest.

    The `largest` of all layers and slots come first, or weights before caches. Those of all kinds
    of layers are `alike` in the same slices: what meets them leaves out the fewest.
    """

    usual: Mapping[str, tuple[int, int]]
    largest: bool = False
    alike: bool = False


def cut_map(
    spec: ChipSpec,
    demands: Demands,
    layers: Mapping[str, int],
    slots: tuple[int, int],
    fixed: Sequence[tuple[str, tuple[int, int, int], int, str]],
) -> MemoryMap:
    """As `memory_map`, with columns in all slices, and matrices cut; raises SramFull.

    Columns go around rows once it is known where these lie. Where that does not do, either side
    helps the other, and what has found no room comes before all else. What kernels can do
    without is left out. Of maps with experts it is the one in which the least is used at once of
    what should lie apart: after each, what meets most comes first.
    """
    demands, layers = _halved(spec, demands.without_spare(), layers, slots[0])
    failed, reserve = SramFull("", 0, 0), dict[int, int]()
    best: tuple[int, MemoryMap] | None = None  # by the cycles in which buffers meet in it
    first: list[str] = []  # what has found no room, the last one first
    has_experts = any(request.copies > 1 for request in demands.requests)
    least = (SHOULD, MUST) if has_experts else (MUST,)
    closes = (False, True)[: 1 + has_experts]
    names = frozenset(name for name, *_ in fixed)
    for apart, close, number in product(least, closes, range(TRIED_PLACES)):
        if number == 0:
            reserve, first = {}, []
            if best is not None:
                break
        found = MemoryMap(spec, layers, *slots).open_all()
        for name, place, vectors, dtype in fixed:
            found.rows(name, place, vectors, dtype)
        everything = [r for r in demands.requests if r.name not in found.buffers]
        columns = [request for request in everything if request.layout == "columns"]
        helps = number >= OWN_SIDE
        tried = Anywhere(found, demands.conflicts, reserve, tuple(first), helps, close, apart)
        try:
            tried.place(columns, _heaviest_first(everything, demands.conflicts), demands.lives)
            check_map(found.finish(), demands, names)
        except SramFull as error:
            failed, moved = error, error.what if helps else ""
        else:
            if not has_experts:
                return found
            met = _met_in(found, demands.conflicts)
            if best is None or met.total() < best[0]:
                best = met.total(), found
            rows = (name for name, _ in met.most_common() if name not in names)
            moved = next((n for n in rows if not found.buffers[n].any_bank), "")
        if moved:
            first = [moved, *(name for name in first if name != moved)]
        reserve = tried.rows or reserve
    if best is None:
        raise failed
    return best[1]


def _met_in(found: MemoryMap, met: Conflicts) -> Counter[str]:
    """Cycles in which each buffer meets others that rest in its slices, or in their banks."""
    slices = {name: _slices(found, name) for name in found.buffers}
    cycles: Counter[str] = Counter()
    for by_bank, pairs in enumerate((met.slices, met.banks)):
        for pair, count in pairs.items():
            if not slices.keys() >= {*pair} or slices[pair[0]].isdisjoint(slices[pair[1]]):
                continue
            if not by_bank or _share_a_bank(found, *pair):
                cycles.update(dict.fromkeys(pair, count))
    return cycles


def _halved(
    spec: ChipSpec, demands: Demands, layers: Mapping[str, int], slots: int
) -> tuple[Demands, Mapping[str, int]]:
    """Demands and layers where caches that no 16 slices hold are those of half of the layers each.

    All caches are cut so, as the layers of each half are scheduled alike, and columns of a launch
    are there for each half: they lie apart from its caches. Of several kinds of layers, each has
    fewer already.
    """
    found, kinds = MemoryMap(spec, layers, slots), {*layers} - {*ALONE}
    columns = [r for r in demands.requests if r.layout == "columns" and r.role != CONSTANT]
    room = found.occupancy.column_room
    fits = all(room(0, *found.column_sizes(r), r.one_bank) is not None for r in columns)
    if fits or len(kinds) != 1:
        return demands, layers
    (kind,) = kinds
    halves = {
        r.name: tuple(kind + half + r.name[len(found.prefix_of(r)) :] for half in HALVES)
        for r in columns
    }
    counts = -(-layers[kind] // 2), layers[kind] // 2
    more = {kind + half: count for half, count in zip(HALVES, counts, strict=True)}
    return demands.renamed(halves), {**layers, **more}


def _heaviest_first(requests: Iterable[Request], met: Conflicts) -> list[Request]:
    """Rows in the order of the cycles in which they meet others."""
    weight: dict[str, int] = defaultdict(int)
    for pair, cycles in (*met.slices.items(), *met.banks.items()):
        for name in pair:
            weight[name] += cycles
    rows = (request for request in requests if request.layout == "rows")
    return sorted(rows, key=lambda r: (-weight[r.name], r.name))


def _placed(
    found: MemoryMap,
    demands: Demands,
    fixed: Sequence[tuple[str, tuple[int, int, int], int, str]],
    usual: Mapping[str, tuple[int, int]],
    way: _Way,
    ahead: Sequence[str] = (),
) -> MemoryMap:
    met = demands.conflicts
    for name, place, vectors, dtype in fixed:
        found.rows(name, place, vectors, dtype)
    everything = [r for r in demands.requests if r.name not in found.buffers]
    columns = [request for request in everything if request.layout == "columns"]
    names = {request.name for request in columns}
    pairs = (pair for pair, cycles in met.slices.items() if cycles >= MUST)
    apart_from = Counter(name for pair in pairs if names.issuperset(pair) for name in pair)

    def order(r: Request) -> tuple[int, ...]:
        if way.largest:
            return (-found.column_words_of(r),)
        if found.apart:  # what is used at a time lies together, and its rows elsewhere
            life, _ = demands.lives[r.name]
            return not r.per_layer, r.role == SCRATCH, life, -apart_from[r.name], -r.vectors
        return not r.per_layer, r.role == CACHE, -r.vectors

    first: dict[str, int] = {}  # slices, by names without the kind of layers
    together = _together(found, demands, columns) if found.apart else {}
    for request in sorted(columns, key=order):
        index, _ = way.usual.get(request.name, (together.get(request.name), 0))
        if way.alike:
            own = request.name[len(found.prefix_of(request)) :]
            index = first.get(own, index)
        found.place_columns(request, met, index)
        if way.alike:
            first.setdefault(own, found[request.name].region.index)
    turn = {name: number for number, name in enumerate(ahead, -len(ahead))}
    for request in sorted(_heaviest_first(everything, met), key=lambda r: turn.get(r.name, 0)):
        life = demands.lives[request.name] if request.role == SCRATCH else FOREVER
        found.place(request, life, met, usual.get(request.name))
    return check_map(found.finish(), demands, frozenset(name for name, *_ in fixed))


def _together(found: MemoryMap, demands: Demands, columns: Iterable[Request]) -> dict[str, int]:
    """First slices of the matrices of each side, where two windows of 16 slices have them all.

    Those that are used at a time share a window, so that rows have the other one to themselves: of
    the ways to cut the order of their use, that which parts the fewest that meet.
    """
    chosen: dict[str, int] = {}
    room = found.spec.slice_words - found.spec.slice_banks * found.row_words
    for side in (EAST, WEST):
        own = [request for request in columns if request.per_layer and request.side == side]
        names = [request.name for request in sorted(own, key=lambda r: demands.lives[r.name])]
        words = {request.name: found.column_words_of(request) for request in own}
        ways = [
            (sum(_meetings(demands.conflicts, pair) for pair in product(*ends)), cut)
            for cut in range(len(names), 0, -1)
            for ends in ((names[:cut], names[cut:]),)
            if max(sum(map(words.__getitem__, end)) for end in ends) <= room
        ]
        if ways:
            _, cut = min(ways, key=lambda way: way[0])
            last, first = found.column_windows(side)[:2]
            chosen |= dict.fromkeys(names[:cut], first) | dict.fromkeys(names[cut:], last)
    return chosen


def _meetings(met: Conflicts, pair: tuple[str, str]) -> int:
    """Cycles in which two buffers are used at once."""
    key = min(pair), max(pair)
    return met.slices.get(key, 0) + met.banks.get(key, 0)


def check_map(found: MemoryMap, demands: Demands, fixed: frozenset[str] = frozenset()) -> MemoryMap:
    """Return the map; raise MapError where buffers do not fit the chip or each other.

    Buffers share words only if their ops do not overlap, and the later one says so. What meets in
    one chain is in other slices, or in another bank; rows of a buffer keep to one bank.
    """
    lives = {
        name: demands.lives[name]
        for name, role in found.roles.items()
        if role == SCRATCH and name not in fixed
    }
    for name in found.buffers:
        _check_inside(found, name)
    slices = {name: _slices(found, name) for name in found.buffers}
    by_slice: dict[int, list[str]] = defaultdict(list)
    for name, buffer in found.buffers.items():
        for index in slices[name] if buffer.region.words else ():
            by_slice[index].append(name)
    cut = {name for name, buffer in found.buffers.items() if buffer.stretches}
    alike = {  # slices with the same buffers have them in the same words, but for what is cut
        (*names, *([index] if cut.intersection(names) else [])): index
        for index, names in by_slice.items()
    }
    for index in alike.values():
        names = by_slice[index]
        _check_kept(found, index, [name for name in names if name not in lives], names)

    def meet(first: str, second: str) -> bool:
        """Whether two buffers rest in one slice."""
        return not slices[first].isdisjoint(slices[second])

    for first, second in combinations(sorted(lives, key=lambda name: lives[name]), 2):
        if meet(first, second):
            _check_turns(found, lives, first, second)
    for pair, cycles in demands.conflicts.slices.items():
        if cycles >= MUST and meet(*pair):
            raise MapError(pair, "meet in a chain, and rest in one slice")
    for pair, cycles in demands.conflicts.banks.items():
        if cycles >= MUST and meet(*pair) and _share_a_bank(found, *pair):
            raise MapError(pair, "meet in a chain, and rest in one bank")
    return found


def _slices(found: MemoryMap, name: str) -> set[int]:
    return {n for own in found.word_ranges(name) for n in range(own.index, own.index + own.slices)}


def _spans(found: MemoryMap, name: str, index: int) -> tuple[Words, Words]:
    """First words and ends of a buffer in a slice, of each layer and slot."""
    mine = [own for own in found.word_ranges(name) if own.index <= index < own.index + own.slices]
    starts = np.concatenate([np.array(own.further) + own.address for own in mine])
    words = np.repeat([own.words for own in mine], [len(own.further) for own in mine])
    return starts, starts + words


def _check_inside(found: MemoryMap, name: str) -> None:
    """A buffer's words exist, and those of rows are in one bank."""
    spec, buffer = found.spec, found.buffers[name]
    for own in found.word_ranges(name):
        low, high = own.address + min(own.further), own.address + max(own.further) + own.words
        if own.index + own.slices > spec.slices or low < 0 or high > spec.slice_words:
            raise MapError((name,), "lies outside the SRAM")
        elsewhere = buffer.any_bank or buffer.in_turn
        if not elsewhere and low // spec.bank_words != (high - 1) // spec.bank_words:
            raise MapError((name,), "lies in two banks")


def _check_kept(found: MemoryMap, index: int, kept: list[str], names: list[str]) -> None:
    """What is kept in a slice shares its words with nothing."""
    if not kept:
        return
    spans = [_spans(found, name, index) for name in names]
    starts = np.concatenate([first for first, _ in spans])
    ends = np.concatenate([end for _, end in spans])
    owner = np.repeat(np.arange(len(names)), [len(first) for first, _ in spans])
    is_kept = np.isin(owner, [names.index(name) for name in kept])
    order = np.argsort(starts, kind="stable")
    reach = 0, -1  # the furthest end so far, of all and of what is kept
    by_kept = by_any = -1
    for at in order:
        start, end, mine = int(starts[at]), int(ends[at]), int(owner[at])
        before = by_any if is_kept[at] else by_kept
        if start < reach[0 if is_kept[at] else 1]:
            raise MapError(
                (names[before], names[mine]), "have the same words, one of them for good"
            )
        if end > reach[0]:
            reach, by_any = (end, reach[1]), mine
        if is_kept[at] and end > reach[1]:
            reach, by_kept = (reach[0], end), mine


def _check_turns(
    found: MemoryMap, lives: Mapping[str, tuple[int, int]], first: str, second: str
) -> None:
    """Buffers that share words are used one after the other, and the later one says so."""
    mine, theirs = (
        [(own.address + more, own.words) for own in found.word_ranges(name) for more in own.further]
        for name in (first, second)
    )
    if not any(a < b + more and b < a + some for a, some in mine for b, more in theirs):
        return
    if lives[first][1] >= lives[second][0]:
        raise MapError((first, second), "have the same words at the same time")
    if first not in found.buffers[second].after:
        raise MapError((first, second), "have the same words in no order")


def _share_a_bank(found: MemoryMap, name: str, other: str) -> bool:
    a, b = found.buffers[name], found.buffers[other]
    bank_words = found.spec.bank_words
    same = a.region.address // bank_words == b.region.address // bank_words
    return same or any(one.any_bank or one.in_turn for one in (a, b))
