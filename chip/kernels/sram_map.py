"""Where everything rests in the SRAM of a chip, for those who read, write or move it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from chip.isa import WIDTHS
from chip.kernels.occupancy import Occupancy
from chip.kernels.work import CACHE, CONSTANT, HALVES, INPUT, NETWORK, Request
from chip.program import WEIGHT_SLICES, Region
from chip.schedule import Buffer
from chip.spec import ChipSpec

QUAD = 4  # slices of an fp32 vector, or of a fourth of a word of columns
_KINDS = {CONSTANT: "weights", CACHE: "kv_cache", NETWORK: "network"}


@dataclass(frozen=True)
class WordRange:
    """Words from an address on of some slices, and so much `further` on those of each layer."""

    index: int
    slices: int
    address: int
    words: int
    further: tuple[int, ...]


@dataclass(frozen=True)
class Move:
    """Where layer l keeps what layer 0 keeps in `region`: `words[l]` words further on.

    Caches go on with the layers of the next sequence slot; what all slots share begins anew. Of
    those of some layers of a kind, `begins` is the first.
    """

    region: Region
    words: tuple[int, ...]
    begins: int = 0


@dataclass(frozen=True)
class _Held:
    """Offsets of all layers, `first` that of a word; `each` of a slot, from layer `begins` on."""

    words: tuple[int, ...]
    first: int = 0
    begins: int = 0
    each: int = 0


@dataclass
class SramMap:
    """Buffers of one chip; every chip of a tensor-parallel group has the same map.

    `layers` says, by the prefix of a kind of layers, how many of them a stage has, `slots` how
    many sequences have caches, `launch_slots` how many of them share a launch at most.
    """

    spec: ChipSpec
    layers: Mapping[str, int] = field(default_factory=lambda: {"": 1})
    slots: int = 1
    launch_slots: int = 1
    buffers: dict[str, Buffer] = field(default_factory=dict)
    moves: dict[str, Move] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    copies: dict[str, int] = field(default_factory=dict)  # layers of what lies in stretches
    used_bytes: int = 0
    _found: dict[tuple[int, int], "_Held"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.occupancy = Occupancy(self.spec)

    def __getitem__(self, name: str) -> Buffer:
        return self.buffers[name]

    def offers(self, name: str) -> bool:
        """Whether it is there."""
        return name in self.buffers

    def take(self, request: Request) -> Buffer:
        """The buffer of a request that was placed."""
        return self.buffers[request.name]

    def of_slot(self, buffer: Buffer, slot: int) -> Buffer:
        """What another sequence slot has for a cache of the first, in the first layer."""
        if not slot:
            return buffer
        region, words = buffer.region, self.moves[buffer.name].words
        region = replace(region, address=region.address + words[slot * len(words) // self.slots])
        return replace(buffer, name=f"{buffer.name}.slot{slot}", region=region)

    def in_both(self, request: Request) -> bool:
        """Whether rows lie across the two banks of their slices."""
        rows = request.layout == "rows" and request.role == CONSTANT
        return rows and self.words_of(request) > self.spec.bank_words

    def words_of(self, request: Request) -> int:
        """Words of rows in each of their slices, of all layers."""
        return request.vectors * (self.layers_of(request) if request.per_layer else 1)

    def layers_of(self, request: Request) -> int:
        """Layers of a request's kind, times slots for what each sequence has."""
        count = self.layers[self.prefix_of(request)]
        return count * (self.slots if request.role == CACHE else 1)

    def prefix_of(self, request: Request) -> str:
        """What stands before the name of a request: its kind of layers, or what is there once."""
        return max((p for p in self.layers if request.name.startswith(p)), key=len)

    def region_of(self, name: str, layer: int) -> Region:
        """Where a layer of its kind keeps what the first keeps in a buffer."""
        region, move = self.buffers[name].region, self.moves.get(name)
        words = move.words[layer % len(move.words)] if move else 0
        return replace(region, address=region.address + words)

    def caches(self, slot: int) -> Iterator[Region]:
        """All that a sequence slot has for itself, as long for each of them."""
        for name, role in self.roles.items():
            if role == CACHE:
                layers = len(self.moves[name].words) // self.slots if name in self.moves else 1
                yield from (self.region_of(name, slot * layers + n) for n in range(layers))

    def constants(self) -> Iterator[Region]:
        """All that is in place before the first launch."""
        for name, role in self.roles.items():
            if role == CONSTANT:
                stretched, region = name in self.copies, self.buffers[name].region
                for own in self.word_ranges(name):
                    for further in own.further:
                        at = own.index, own.address + further
                        yield (
                            Region(*at, own.words, "i32") if stretched
                            else replace(region, address=at[1])
                        )  # fmt: skip

    def word_ranges(self, name: str) -> tuple[WordRange, ...]:
        """All that a buffer has of the SRAM."""
        buffer, move = self.buffers[name], self.moves.get(name)
        region, further = buffer.region, move.words if move else (0,)
        if buffer.in_turn:
            further = 0, buffer.in_turn
        if not buffer.stretches:
            return (WordRange(region.index, region.slices, region.address, region.words, further),)
        return tuple(
            WordRange(*place[:1], QUAD, place[1], one.words * one.copies,
                      tuple(n * one.words * one.copies for n in range(self.copies[name])))
            for one in buffer.stretches
            for place in one.places
        )  # fmt: skip

    def at_rest(
        self, name: str, layer: int, values: npt.NDArray[Any]
    ) -> Iterator[tuple[Region, npt.NDArray[Any]]]:
        """The regions in which a layer of its kind keeps values [vectors, lanes] of a buffer."""
        stretches, dtype = self.buffers[name].stretches, self.buffers[name].region.dtype
        if not stretches:
            yield self.region_of(name, layer), values
            return
        lanes, each = values.shape[1], QUAD // WIDTHS[dtype]
        size = stretches[0].copies, -1, WEIGHT_SLICES // QUAD, each, lanes
        words = values.reshape(size).swapaxes(3, 4)
        for one in stretches:
            many = one.words * one.copies
            for number, (index, address) in enumerate(one.places):
                own = np.ascontiguousarray(words[:, one.first : one.first + one.words, number])
                region = Region(index, address + layer * many, many, "i32")
                yield region, own.view(np.int32).reshape(many, lanes)

    def bytes_by_kind(self) -> dict[str, int]:
        """SRAM bytes by what they hold; words that several have in turn count for the first."""
        found = {"weights": 0, "kv_cache": 0, "network": 0, "activations": 0}
        for mine, slices in self.occupancy.alike():
            end, each = 0, slices * self.spec.lanes
            for taken in sorted(mine, key=lambda t: (t.start, -t.end)):
                kind = _KINDS.get(self.roles[taken.name], "activations")
                found[kind] += max(0, taken.end - max(taken.start, end)) * each
                end = max(end, taken.end)
        return found

    def prefix_of_layer(self, prefix: str, layer: int) -> str:
        """What stands before the names of caches of a layer of the kind with a prefix."""
        early, late = (prefix + half for half in HALVES)
        if early not in self.layers:
            return prefix
        return early if layer < self.layers[early] else late

    def given(self) -> tuple[str, ...]:
        """Names of what the host writes before a launch."""
        return tuple(name for name, role in self.roles.items() if role == INPUT)

    def moved(self, index: int, address: int, layer: int, slot: int = 0) -> int:
        """Where `layer` of its kind keeps the word that the first keeps at `address` of a slice.

        Of a cache, for as many sequence slots further as that of the address.
        """
        key = (index, address)
        if key not in self._found:
            self._found[key] = next(self._holding(index, address), _Held((0,)))
        held = self._found[key]
        number = held.first - held.begins + slot * held.each + layer
        return address + held.words[number % len(held.words)] - held.words[held.first]

    def _holding(self, index: int, address: int) -> Iterator["_Held"]:
        """What holds a word."""
        for own in self._stretched.get(index, ()):
            if 0 <= address - own.address < own.words:
                yield _Held(own.further)
        for name, move in self.moves.items():
            region, cache = move.region, self.roles[name] == CACHE
            if region.index <= index < region.index + region.slices:
                every = len(move.words) // self.slots if cache else len(move.words)
                for first in range(0, every * (self.launch_slots if cache else 1), every):
                    if 0 <= address - region.address - move.words[first] < region.words:
                        yield _Held(move.words, first, move.begins, every if cache else 0)

    @cached_property
    def _stretched(self) -> dict[int, list[WordRange]]:
        """All that lies in stretches, by slice; once everything is placed."""
        found: dict[int, list[WordRange]] = {}
        for own in (own for name in self.copies for own in self.word_ranges(name)):
            for index in range(own.index, own.index + own.slices):
                found.setdefault(index, []).append(own)
        return found
