"""Where everything rests in SRAM: what kernels ask for, put so that it does not get in its own way.

A trial places the kernels' chains with slices of their own for each buffer. From it follows which
buffers are read and written at the same time: a slice serves a read and a write a cycle, a bank one
of them. What meets in one chain must lie apart, what meets otherwise should. Buffers whose ops do
not overlap may rest in the same words, one after another. Any value may rest in any slice; the
16 neighbours that feed the MXM with columns are looked for from the outside in.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from chip.errors import ChipError
from chip.isa import WIDTHS
from chip.kernels.work import CACHE, CONSTANT, INPUT, SCRATCH, Request
from chip.program import WEIGHT_SLICES, Region, word_columns
from chip.schedule import Buffer, Chain, Schedule
from chip.spec import ChipSpec

QUAD = 4  # slices of an fp32 vector
NEAR = 64  # cycles by which accesses of a chain may shift with where their buffers rest
INNER = 12  # slices next to the VXM on each side, where activations are looked for room first


class SramFull(ChipError):
    """Something finds no room in SRAM."""

    def __init__(self, what: str, needs_bytes: int, has_bytes: int) -> None:
        super().__init__(what, needs_bytes, has_bytes)
        self.what, self.needs_bytes, self.has_bytes = what, needs_bytes, has_bytes

    def __str__(self) -> str:
        need, has = self.needs_bytes / 2**20, self.has_bytes / 2**20
        return f"{self.what} needs {need:.1f} MiB of SRAM, {has:.1f} MiB are left for it"


@dataclass
class TrialMemory:
    """Answers requests with buffers that have slices to themselves, and remembers them."""

    spec: ChipSpec
    requests: dict[str, Request] = field(default_factory=dict)
    lives: dict[str, list[int]] = field(default_factory=dict)  # number of each op that asked
    op: int = 0

    def take(self, request: Request) -> Buffer:
        """A virtual buffer."""
        known = self.requests.get(request.name)
        if known is not None:
            assert replace(known, vectors=request.vectors) == request, request
            request = replace(request, vectors=max(known.vectors, request.vectors))
        self.requests[request.name] = request
        self.lives.setdefault(request.name, []).append(self.op)
        outside = INNER if request.layout == "columns" else 0
        index = request.side * self.spec.hemisphere_slices + outside
        region = Region(index, 0, request.vectors, request.dtype, request.layout)
        return Buffer(request.name, region, request.layout == "columns", (), True)


@dataclass
class Trial(Schedule):
    """A schedule that notes when its chains touch which buffers."""

    touched: list[tuple[str, bool, int, int, int]] = field(default_factory=list)
    chains: int = 0

    def _touch(self, chain: Chain, start: int) -> None:
        super()._touch(chain, start)
        for access in chain.accesses:
            first, last = int(access.first.min()), int(access.last.max())
            entry = (access.buffer.name, access.writes, first + start, last + start, self.chains)
            self.touched.append(entry)
        self.chains += 1


@dataclass(frozen=True)
class Conflicts:
    """For pairs of buffers: cycles in which they meet at a slice, and at a bank; -1 is never."""

    slices: Mapping[tuple[str, str], int]
    banks: Mapping[tuple[str, str], int]


FOREVER = (0, 1 << 30)  # ops
MUST = 1 << 40  # more than any number of cycles: they must lie apart


def conflicts(trials: Sequence[Trial]) -> Conflicts:
    """What the accesses of these trials say; the first of them counts most."""
    found: tuple[dict[tuple[str, str], int], ...] = (defaultdict(int), defaultdict(int))
    for weight, trial in zip((8, 1), trials, strict=False):
        names = sorted({name for name, *_ in trial.touched})
        number = np.array([names.index(name) for name, *_ in trial.touched])
        entries = np.array([entry for _, *entry in trial.touched], np.int64)
        writes, first, last, chain = entries.T
        inside = np.minimum.outer(last, last) - np.maximum.outer(first, first) + 1
        together = np.equal.outer(chain, chain) & (inside + NEAR > 0)
        cycles = np.where(together, MUST, np.maximum(inside, 0) * weight)
        pairs = (number[:, None] * len(names) + number[None, :]).ravel()
        same = np.equal.outer(writes, writes)
        for kind, met in zip((same, ~same), found, strict=True):
            total = np.zeros(len(names) ** 2, np.int64)
            np.add.at(total, pairs, np.where(kind, cycles, 0).ravel())
            for at in np.flatnonzero(total):
                a, b = names[at // len(names)], names[at % len(names)]
                if a < b:
                    met[a, b] = min(MUST, met[a, b] + int(total[at]))
    return Conflicts(dict(found[0]), dict(found[1]))


@dataclass(frozen=True)
class Move:
    """Where layer l keeps what layer 0 keeps in `region`: `words[l]` words further on.

    Caches go on with the layers of the next sequence slot; what all slots share begins anew.
    """

    region: Region
    words: tuple[int, ...]


@dataclass(frozen=True)
class Taken:
    """Words of a slice that a buffer has from the first to the last op that uses it."""

    start: int
    end: int
    name: str
    first_op: int
    last_op: int


@dataclass
class MemoryMap:
    """Buffers of one chip; every chip of a tensor-parallel group has the same map.

    `layers` says, by the prefix of a kind of layers, how many of them a stage has, `slots` how
    many sequences have caches.
    """

    spec: ChipSpec
    layers: Mapping[str, int] = field(default_factory=lambda: {"": 1})
    slots: int = 1
    buffers: dict[str, Buffer] = field(default_factory=dict)
    moves: dict[str, Move] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    used_bytes: int = 0
    _taken: dict[int, list[Taken]] = field(default_factory=lambda: defaultdict(list))
    _found: dict[tuple[int, int], tuple[int, ...] | None] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Buffer:
        return self.buffers[name]

    def take(self, request: Request) -> Buffer:
        """The buffer of a request that was placed."""
        return self.buffers[request.name]

    def region_of(self, name: str, layer: int) -> Region:
        """Where a layer of its kind keeps what the first keeps in a buffer."""
        region, move = self.buffers[name].region, self.moves.get(name)
        words = move.words[layer % len(move.words)] if move else 0
        return replace(region, address=region.address + words)

    def constants(self) -> Iterator[Region]:
        """All that is in place before the first launch."""
        for name, role in self.roles.items():
            if role == CONSTANT:
                count = len(self.moves[name].words) if name in self.moves else 1
                yield from (self.region_of(name, layer) for layer in range(count))

    @property
    def column_words(self) -> int:
        """Words that columns take, of 16 slices each."""
        return sum(
            buffer.region.words * (len(self.moves[name].words) if name in self.moves else 1)
            for name, buffer in self.buffers.items()
            if buffer.region.layout == "columns"
        )

    def given(self) -> tuple[str, ...]:
        """Names of what the host writes before a launch."""
        return tuple(name for name, role in self.roles.items() if role == INPUT)

    # --- rows -------------------------------------------------------------------------------
    def rows(
        self, name: str, place: tuple[int, int, int], vectors: int, dtype: str, pair: int = 0
    ) -> Buffer:
        """Vectors at (side, quad, bank), `pair` the 16-bit half, for good; raises SramFull."""
        side, quad, bank = place
        index = side * self.spec.hemisphere_slices + quad * QUAD + 2 * pair
        request = Request(name, vectors, dtype, side)
        address = self._room(index, WIDTHS[dtype], vectors, bank, FOREVER)
        if address is None:
            raise self._full(request, vectors, WIDTHS[dtype])
        return self._book(request, index, address, FOREVER)

    def place(self, request: Request, life: tuple[int, int], conflict: Conflicts) -> Buffer:
        """Find room for rows; raises SramFull."""
        width, words = WIDTHS[request.dtype], self._words(request)
        best: tuple[tuple[int, ...], int, int] | None = None
        base = request.side * self.spec.hemisphere_slices
        for first in range(0, self.spec.hemisphere_slices - width + 1, width):
            spill = first >= INNER
            if spill and best is not None:
                break
            index = base + first
            at_slice = self._cost(request.name, index, width, None, conflict.slices)
            if at_slice >= MUST:
                continue
            for bank in range(self.spec.slice_banks):
                cost = at_slice + self._cost(request.name, index, width, bank, conflict.banks)
                if cost >= MUST:
                    continue
                address = self._room(index, width, words, bank, life)
                if address is None:
                    continue
                shared = self._shares(index, width, address, words)
                rank = (cost + shared, self._fill(index, width, bank), first)
                if best is None or rank < best[0]:
                    best = rank, index, address
        if best is None:
            raise self._full(request, words, width)
        _, index, address = best
        return self._book(request, index, address, life)

    def _words(self, request: Request) -> int:
        return request.vectors * (self._layers_of(request) if request.per_layer else 1)

    def _layers_of(self, request: Request) -> int:
        """Layers of a request's kind, times slots for what each sequence has."""
        fitting = [p for p in self.layers if request.name.startswith(p)]
        count = self.layers[max(fitting, key=len)]
        return count * (self.slots if request.role == CACHE else 1)

    # --- columns ----------------------------------------------------------------------------
    def place_columns(self, request: Request, conflict: Conflicts) -> None:
        """Find 16 slices with room for columns of all layers; raises SramFull."""
        words = -(-request.vectors // word_columns(request.dtype))
        layers = self._layers_of(request) if request.per_layer else 1
        best: tuple[tuple[int, int], int, list[int]] | None = None
        for index in self._windows(request.side):
            cost = self._cost(request.name, index, WEIGHT_SLICES, None, conflict.slices)
            cost += self._cost(request.name, index, WEIGHT_SLICES, None, conflict.banks)
            if cost >= MUST:
                continue
            found = self._columns_at(index, words, layers, request.one_bank)
            if found is None:
                continue
            outer = index % self.spec.hemisphere_slices >= INNER
            met = 0 if request.per_layer else cost  # what rests for good is next to all the time
            if best is None or (met, found[-1]) < best[0]:
                best = (met, found[-1]), index, found
            if not outer and best[0][0] == 0:
                break
        if best is None:
            raise self._full(request, words * layers, WEIGHT_SLICES)
        _, index, addresses = best
        for address in addresses:
            self._reserve(request.name, index, address, words)
        self._add(request, Region(index, addresses[0], request.vectors, request.dtype, "columns"))
        if request.per_layer:
            region = self.buffers[request.name].region
            offsets = tuple(address - addresses[0] for address in addresses)
            self.moves[request.name] = Move(region, offsets)

    def _windows(self, side: int) -> list[int]:
        """First slices of 16 neighbours: whole outer groups of the side first."""
        size = self.spec.hemisphere_slices
        outer = list(range(INNER, size - WEIGHT_SLICES + 1, WEIGHT_SLICES))
        others = [i for i in range(size - WEIGHT_SLICES, -1, -QUAD) if i not in outer]
        return [side * size + i for i in (*outer, *others)]

    def _columns_at(self, index: int, words: int, layers: int, one_bank: bool) -> list[int] | None:
        """Addresses of each layer's words in 16 slices, or None where there is no room."""
        slices = range(index, index + WEIGHT_SLICES)
        taken = sorted({(t.start, t.end) for i in slices for t in self._taken[i]})
        found, address, at = [], 0, 0
        bank_words = self.spec.bank_words
        while len(found) < layers:
            if one_bank and address // bank_words != (address + words - 1) // bank_words:
                address = -(-address // bank_words) * bank_words
            if address + words > self.spec.slice_words:
                return None
            while at < len(taken) and taken[at][1] <= address:
                at += 1
            if at < len(taken) and taken[at][0] < address + words:
                address = taken[at][1]
                continue
            found.append(address)
            address += words
        return found

    # --- bookkeeping ------------------------------------------------------------------------
    def _cost(
        self, name: str, index: int, width: int, bank: int | None,
        met: Mapping[tuple[str, str], int],
    ) -> int:  # fmt: skip
        """Cycles in which a buffer would meet those that rest in these slices, or in their bank."""
        others = {
            t.name
            for i in range(index, index + width)
            for t in self._taken[i]
            if bank is None or t.start // self.spec.bank_words == bank or self._anywhere(t.name)
        }
        return sum(met.get((min(name, o), max(name, o)), 0) for o in others)

    def _anywhere(self, name: str) -> bool:
        return self.buffers[name].any_bank

    def _room(
        self, index: int, width: int, words: int, bank: int, life: tuple[int, int]
    ) -> int | None:
        """The lowest free address in a bank of these slices."""
        base = bank * self.spec.bank_words
        address = base
        blocked = sorted(
            (t.start, t.end)
            for i in range(index, index + width)
            for t in self._taken[i]
            if t.last_op >= life[0] and t.first_op <= life[1]
        )
        for start, end in blocked:
            if start < address + words and end > address:
                address = end
        return address if address + words <= base + self.spec.bank_words else None

    def _shares(self, index: int, width: int, address: int, words: int) -> int:
        """How many buffers have these words at other times."""
        return len(
            {
                t.name
                for i in range(index, index + width)
                for t in self._taken[i]
                if t.start < address + words and t.end > address
            }
        )

    def _fill(self, index: int, width: int, bank: int) -> int:
        base = bank * self.spec.bank_words
        ends = [
            t.end
            for i in range(index, index + width)
            for t in self._taken[i]
            if t.start // self.spec.bank_words == bank
        ]
        return max(ends, default=base) - base

    def _book(self, request: Request, index: int, address: int, life: tuple[int, int]) -> Buffer:
        assert request.name not in self.buffers, request.name
        region = Region(index, address, request.vectors, request.dtype, request.layout)
        words = region.words
        if request.per_layer and request.layout == "rows":
            words = self._words(request)
            offsets = tuple(range(0, words, request.vectors))
            self.moves[request.name] = Move(region, offsets)
        for i in range(index, index + region.slices):
            self._taken[i].append(Taken(address, address + words, request.name, *life))
        return self._add(request, region)

    def _reserve(self, name: str, index: int, address: int, words: int) -> None:
        for i in range(index, index + WEIGHT_SLICES):
            self._taken[i].append(Taken(address, address + words, name, *FOREVER))

    def _add(self, request: Request, region: Region) -> Buffer:
        buffer = Buffer(request.name, region, request.layout == "columns")
        self.buffers[request.name], self.roles[request.name] = buffer, request.role
        return buffer

    def finish(self) -> "MemoryMap":
        """Note which buffers follow others in the same words, and what is used in all."""
        after: dict[str, set[str]] = defaultdict(set)
        for mine in self._taken.values():
            for a, b in combinations([t for t in mine if t.last_op < FOREVER[1]], 2):
                if a.start < b.end and b.start < a.end:
                    first, second = sorted((a, b), key=lambda t: t.first_op)
                    assert first.last_op < second.first_op, (first, second)
                    after[second.name].add(first.name)
            spans = sorted((t.start, t.end) for t in mine)
            end = 0
            for start, stop in spans:
                self.used_bytes += max(0, stop - max(start, end)) * self.spec.lanes
                end = max(end, stop)
        for name, before in after.items():
            self.buffers[name] = replace(self.buffers[name], after=tuple(sorted(before)))
        return self

    def _full(self, request: Request, words: int, width: int) -> SramFull:
        lanes = self.spec.lanes
        whole = self.spec.hemisphere_slices * self.spec.slice_words * lanes
        first = request.side * self.spec.hemisphere_slices
        mine = range(first, first + self.spec.hemisphere_slices)
        used = sum(t.end - t.start for i in mine for t in self._taken[i]) * lanes
        return SramFull(request.name, words * width * lanes, max(0, whole - used))

    def moved(self, index: int, address: int, layer: int) -> int:
        """Where `layer` of its kind keeps the word that layer 0 keeps at `address` of a slice.

        Layers are numbered through all sequence slots.
        """
        key = (index, address)
        if key not in self._found:
            self._found[key] = next(
                (
                    move.words
                    for move in self.moves.values()
                    if move.region.index <= index < move.region.index + move.region.slices
                    and 0 <= address - move.region.address < move.region.words
                ),
                None,
            )
        words = self._found[key]
        return address if words is None else address + words[layer % len(words)]


@dataclass(frozen=True)
class Demands:
    """What the kernels of some sections ask for, when they use it, and what meets what."""

    requests: tuple[Request, ...]
    lives: Mapping[str, tuple[int, int]]
    conflicts: Conflicts
    ops: int

    def __add__(self, other: "Demands") -> "Demands":
        """Both, one after the other."""
        requests = {request.name: request for request in self.requests}
        for request in other.requests:
            known = requests.get(request.name, request)
            most = max(known.vectors, request.vectors)
            assert replace(known, vectors=most) == replace(request, vectors=most), request
            requests[request.name] = replace(request, vectors=most)
        lives = dict(self.lives)
        for name, (first, last) in other.lives.items():
            first, last = first + self.ops, last + self.ops
            lives[name] = (min(first, lives.get(name, (first,))[0]), last)
        merged = [dict(self.conflicts.slices), dict(self.conflicts.banks)]
        for mine, more in zip(merged, (other.conflicts.slices, other.conflicts.banks), strict=True):
            for pair, cycles in more.items():
                mine[pair] = max(mine.get(pair, 0), cycles)
        met = Conflicts(merged[0], merged[1])
        return Demands(tuple(requests.values()), lives, met, self.ops + other.ops)


NO_DEMANDS = Demands((), {}, Conflicts({}, {}), 0)


def memory_map(
    spec: ChipSpec,
    demands: Demands,
    layers: Mapping[str, int],
    slots: int,
    fixed: Sequence[tuple[str, tuple[int, int, int], int, str]],
) -> MemoryMap:
    """Room for all that was asked for; raises SramFull.

    `fixed` buffers have a place: (name, (side, quad, bank), vectors, dtype).
    """
    found, met = MemoryMap(spec, layers, slots), demands.conflicts
    for name, place, vectors, dtype in fixed:
        found.rows(name, place, vectors, dtype)
    everything = [r for r in demands.requests if r.name not in found.buffers]
    columns = [request for request in everything if request.layout == "columns"]
    for request in sorted(columns, key=lambda r: (not r.per_layer, r.role == CACHE, -r.vectors)):
        found.place_columns(request, met)
    weight: dict[str, int] = defaultdict(int)
    for pair, cycles in (*met.slices.items(), *met.banks.items()):
        for name in pair:
            weight[name] += cycles
    rows = [request for request in everything if request.layout == "rows"]
    for request in sorted(rows, key=lambda r: (-weight[r.name], r.name)):
        life = demands.lives[request.name] if request.role == SCRATCH else FOREVER
        found.place(request, life, met)
    return found.finish()
