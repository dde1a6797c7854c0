"""One rank's op of a section on one emulated chip, beside its meaning for the same inputs.

The section goes through the passes and a stage's memory map; then each op is placed alone, on
random inputs in its buffers. All else in SRAM is rubbish on which no kernel may rely.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from chip.kernels.attention import caches_of
from chip.kernels.integers16 import LOW_LEVELS
from chip.kernels.latent_attention import latent_caches
from chip.kernels.layout import Layout
from chip.kernels.window import Window
from chip.kernels.work import Part, Work
from chip.program import Region
from chip.schedule import Buffer, Schedule
from chip.spec import TINY
from cluster.compiler import fused
from cluster.compiler.assign import Assigned
from cluster.compiler.kernels import in_turn, place
from cluster.compiler.limits import WEIGHT_TYPES
from cluster.compiler.rank import ranks_of
from cluster.compiler.stage import Stage
from cluster.compiler.stage_shape import StageShape, compiled
from cluster.compiler.weight_layout import stage_image
from cluster.model.graph.attention import Attention
from cluster.model.graph.experts import ExpertLinear
from cluster.model.graph.graph import Section
from cluster.model.graph.int8 import Int8Rows, Int16Rows
from cluster.model.graph.latent_attention import LatentAttention
from cluster.model.graph.linear import Linear
from cluster.model.graph.norm import Norm
from cluster.model.graph.op import F32, Op
from cluster.model.graph.own_experts import OwnExperts
from cluster.model.graph.rotary import Rotary
from cluster.model.graph.route import CHOICE, Route
from cluster.model.graph.values import Value
from cluster.model.interpreter import Int8Matrix, on_chips
from cluster.model.interpreter import _Rank as Interpreted
from tests.chip.kernel_rig import KernelRig, fp16

LANES = 320
SPEC = replace(TINY, slice_words=3072)  # scores of 16 heads x 32 rows x 3 blocks fill a bank
RUBBISH = 0x41  # as fp16 2.6, as fp32 12.1: what a wrong read brings, and what adds up to no error
MASKED = np.float32(-30000)


@dataclass(frozen=True)
class Launch:
    """Rows of one sequence, the first of them at `start`, on a stage for chunks of `chunk`."""

    rows: int
    start: int
    chunk: int

    @property
    def end(self) -> int:
        return self.start + self.rows

    @property
    def blocks(self) -> int:
        return -(-self.end // LANES)


@dataclass(frozen=True)
class SectionWeights:
    """Random weights of a section; `rounded` to fp16 where the chip has matrices so."""

    rounded: bool
    seed: int

    def array(self, _place, weight, rows=slice(None)):
        rng = np.random.default_rng([self.seed, *weight.name.encode()])
        drawn = rng.standard_normal(weight.shape, np.float32)
        if weight.inner:
            drawn /= np.float32(weight.shape[1] ** 0.5)
            return (fp16(drawn) if self.rounded else drawn)[rows]
        return drawn[rows]


@dataclass
class Result:
    """What the chip has left of a value in each copy [rows, elements], and what it should be."""

    op: Op
    copies: list[tuple[str, npt.NDArray[np.generic]]]
    steps: F32 | None
    expected: F32 | Int8Rows | Int16Rows


@dataclass
class OpRig:
    """Rank `rank` of a section cut for `tp` ranks, with "fp16", "int8" or "w8a16" weights."""

    section: Section
    tp: int
    rank: int
    weights: str
    launch: Launch
    seed: int = 0

    def __post_init__(self) -> None:
        self.sharded = compiled(self.section, self.tp, self.weights)
        self.int8 = self.weights != "fp16"
        self.head = self.section.out.dims != self.section.x.dims
        if self.head:  # behind the last layer, of one row
            self.launch = Launch(1, 0, 1)
        context, kind = self.launch.blocks * LANES, WEIGHT_TYPES[self.weights]
        ranks = ranks_of([self.sharded], LANES)
        layers, head = ((), self.sharded) if self.head else ((self.sharded,), None)
        shape = StageShape(layers, head, ranks, context, self.launch.chunk, kind)
        self.stage = Stage(SPEC, shape)
        self.at: Assigned = self.stage.assigned(self.sharded, self.rank, self.launch.chunk)
        self.chip = KernelRig(SPEC, self.stage.maps)
        self.rng = np.random.default_rng([self.seed, self.rank])
        for group in range(0, SPEC.slices, 4):
            self.chip.chip.sram.group(group)[:] = RUBBISH
        weights = SectionWeights(not self.int8, self.seed)
        for rank, region, values in stage_image(self.stage, 0, weights):
            if rank == self.rank:
                self._write(Buffer("constant", region), values)
        arrays = {w: weights.array(0, w) for w in self.sharded.section.weights}
        matrices = {w for op in self.sharded.section.ops if op.multiplied for w in op.weights}
        int8 = {w: Int8Matrix.of(arrays[w]) for w in matrices if w.inner and self.int8}
        self.meaning = Interpreted(self.sharded, self.rank, arrays, int8, context)
        self._tables()

    @property
    def ops(self) -> tuple[Op, ...]:
        """The ops as this rank runs them."""
        return self.sharded.section.ops

    def run(self, op: Op) -> Result:
        """Place and run one op, with those that are placed with it."""
        plan, launch = Schedule(SPEC), self.launch
        work = Work(
            plan, self.stage.memory, 0, launch.rows, launch.blocks, launch.chunk,
            self.stage.blocks, WEIGHT_TYPES[self.weights], "head." if self.head else "layer.",
            self.stage.maps,
        )  # fmt: skip
        ops = self._together(op)
        made = {op.out for op in ops}
        given = dict.fromkeys(value for one in ops for value in one.inputs if value not in made)
        readers = {value: [one for one in ops if value in one.inputs] for value in given}
        values = {value: self._input(work, some, value) for value, some in readers.items()}
        self.meaning.begin(np.arange(launch.start))
        for one in ops:
            if isinstance(one, Attention):
                self._fill_caches(work, one)
            if isinstance(one, LatentAttention):
                self._fill_latents(work, one)
        self.meaning.begin(np.arange(launch.start, launch.end))
        for one, how in in_turn(ops):
            place(work, self.at, one, how)
        self.chip.plan = plan
        self.chip.run()
        for one in ops:
            meaning = on_chips(self.at.section, one) if self.int8 else one.reference
            values[one.out] = meaning(self.meaning, *(values[value] for value in one.inputs))
        last = ops[-1]
        return Result(last, *self._read(work, last.out), values[last.out])

    def _together(self, op: Op) -> tuple[Op, ...]:
        """An op with the one behind it, or before it, with which it makes its result."""
        section, behind = self.at.section, None
        if isinstance(op, ExpertLinear):
            return (*(one for one in fused.with_one_x(section, op) if one != op), op)
        if isinstance(op, Linear):
            behind = fused.turned_behind(section, op) or fused.raced_behind(section, op)
        if isinstance(op, Norm):
            behind = fused.added(section, op) or fused.turned_before(section, op)
        before = fused.rounded_before(section, op)
        if isinstance(op, Rotary):
            before = fused.normed(section, op)
        elif isinstance(op, Route):
            before = fused.raced_before(section, op)
        return tuple(one for one in (before, op, behind) if one is not None)

    # --- inputs -----------------------------------------------------------------------------
    def _sizes(self, value: Value) -> tuple[int, ...]:
        return tuple(dim.size for dim in self.sharded.local(value, self.rank))

    def _input(self, work: Work, ops: list[Op], value: Value) -> F32 | Int8Rows | Int16Rows:
        """A random value in all copies that ops read; as the last does: fp16 if that is so."""
        shape, op = (self.launch.rows, *self._sizes(value)), ops[-1]
        *_, laid = every = [self.at.read(work, one, value) for one in ops]
        steps = self.rng.uniform(0.001, 0.1, (shape[0], 1)).astype(np.float32)
        factors = self.at.steps(work, value)
        for factor in factors:
            self._write(factor, np.repeat(steps, LANES, axis=1))
        if value.integers:
            drawn, low = self.rng.integers(-127, 128, (2, *shape)).astype(np.float32)
            found: F32 | Int8Rows | Int16Rows = Int8Rows(drawn, steps)
            if laid.low:
                found = Int16Rows(drawn, low, steps)
            for copy in (copy for one in every for copy in one.low):
                self._fill(copy, laid.layout, self._padded(value, laid.layout, low))
        else:
            drawn = 3 * self.rng.standard_normal(shape, np.float32)
            if value.dims[:1] == (CHOICE,):
                assert isinstance(op, ExpertLinear | OwnExperts)
                most = op.held if isinstance(op, ExpertLinear) else op.experts
                drawn[:, 0] = self.rng.integers(0, most, (shape[0], shape[2]))
            if not value.dims:  # a number for each row, of squares: in every lane
                drawn = np.square(drawn)
            if all(copy.dtype == "f16" for copy in self.at.wants(op, value)):
                drawn = fp16(drawn)
            found = drawn * steps if factors else drawn
        copies = [copy for one in every for copy in one.copies]
        if value.name in self.at.residual:
            copies += self.at.stream(work, value).copies
        for copy in copies:
            self._fill(copy, laid.layout, self._padded(value, laid.layout, drawn))
        return found

    @staticmethod
    def _padded(value: Value, layout: Layout, drawn: F32) -> F32:
        """What is of each of the chosen experts has room of its own."""
        if not value.dims or value.dims[0].name != "chosen":
            return drawn
        room = layout.total // drawn.shape[1]
        return np.pad(drawn, ((0, 0), (0, 0), (0, room - drawn.shape[2])))

    def _fill(self, copy: tuple[Part, ...], layout: Layout, values: F32) -> None:
        rows = in_rows(layout, values).swapaxes(0, 1)
        if values.ndim == 1:
            rows = np.broadcast_to(values[:, None], (1, len(values), LANES))
        if layout.width == 1:
            rows = np.repeat(rows[:, :, :1], LANES, axis=2)
        for part in copy:
            mine = rows[part.first : part.first + part.blocks]
            self._write(part.buffer, mine.reshape(-1, LANES))

    def _write(self, buffer: Buffer, values: npt.NDArray[np.generic]) -> None:
        self.chip.put(buffer, values)

    def _tables(self) -> None:
        """What the host writes: rotary rows, the mask, and cache words."""
        given = self.stage.memory.given()
        positions = np.arange(self.launch.start, self.launch.end)
        for op in self.ops:
            if isinstance(op, Rotary):
                cosine, sine = op.table.turns(positions)
                both = np.stack([-sine, sine], axis=2).reshape(len(positions), -1)
                times = LANES // op.table.width
                self._given(f"cos{op.table.name}", np.tile(np.repeat(cosine, 2, axis=1), times))
                self._given(f"sin{op.table.name}", np.tile(both, times))
        for window in self.stage.shape.windows:
            if window.mask not in given:
                continue
            blocks, own = self.launch.blocks, positions[:, None]
            first = (blocks - window.blocks(blocks)) * LANES
            tokens = np.arange(first, blocks * LANES).reshape(-1, 1, LANES)
            unseen = (tokens > own) | (tokens <= own - (window.tokens or self.launch.end))
            self._given(window.mask, np.where(unseen, MASKED, np.float32(0)).reshape(-1, LANES))
            for name, kept in window.maps_of(self.stage.blocks).items():
                spare = kept * LANES // 8
                words = positions // 8 % spare
                if len(positions) == 1:  # all but one of eight copies go to the spare word
                    words = np.full(8, spare)
                    words[positions[0] % 8] = positions[0] // 8 % spare
                if name in given:
                    self._given(name, np.repeat(words[:, None], LANES, axis=1))

    def _given(self, name: str, values: npt.NDArray[np.generic]) -> None:
        self._write(self.stage.view(name, len(values)), values)

    def _fill_caches(self, work: Work, op: Attention) -> None:
        """Keys and values of the tokens before the launch; V also transposed, by whole blocks.

        Those that a window has left behind are where newer ones will be, or are overwritten.
        """
        heads, start = self.at.rank.heads, self.launch.start
        assert heads is not None
        window = Window(op.window)
        caches = caches_of(work, heads, window)
        kept = window.blocks(self.stage.blocks) * LANES
        k, v = (
            fp16(self.rng.standard_normal((start, *self._sizes(value)), np.float32))
            for value in (op.k, op.v)
        )
        if start:
            self.meaning.append(op, k, v)
        fresh = window.value_blocks(self.stage.blocks) * LANES
        for buffers, values, value, last in (
            (caches.keys, k, op.k, kept),
            (caches.values, v, op.v, fresh),
        ):
            rows = in_rows(self.at.layout(value), values)
            ring = np.zeros((min(start, last), *rows.shape[1:]), np.float32)
            for token in range(start):
                ring[token % last] = rows[token]
            for number, words in enumerate(buffers if start else ()):
                self._columns(words.buffer.region, ring[:, number])
        whole = self.launch.blocks - 1
        rows = in_rows(self.at.layout(op.v), v[: whole * LANES])
        for number, columns in enumerate(caches.columns if whole else ()):
            turned = rows[:, number, : heads.row_lanes].reshape(-1, LANES, heads.row_lanes)
            ring = np.zeros((min(whole, kept // LANES), heads.row_lanes, LANES), np.float32)
            for block in range(whole):
                ring[block % (kept // LANES)] = turned[block].T
            self._columns(columns.buffer.region, ring.reshape(-1, LANES))

    def _fill_latents(self, work: Work, op: LatentAttention) -> None:
        """Latents and keys of the tokens before the launch; whole blocks of latents transposed."""
        start, layout = self.launch.start, self.at.layout(op.latent)
        caches = latent_caches(work, layout)
        latents, keys = (
            fp16(self.rng.standard_normal((start, value.width), np.float32))
            for value in (op.latent, op.k)
        )
        if not start:
            return
        self.meaning.append(op, latents[:, None], keys[:, None])
        rows = [*in_rows(layout, latents).swapaxes(0, 1)]
        rows += [*in_rows(self.at.layout(op.k), keys).swapaxes(0, 1)]
        for buffer, values in zip(caches.keys, rows, strict=True):
            self._columns(buffer.region, values)
        whole = (self.launch.blocks - 1) * LANES
        for buffer, values in zip(caches.columns if whole else (), rows, strict=False):
            turned = values[:whole].reshape(-1, LANES, LANES)[..., : layout.width]
            columns = turned.swapaxes(1, 2).reshape(-1, LANES)
            self._columns(buffer.region, columns)

    def _columns(self, region: Region, values: F32) -> None:
        """Write columns from the first on, with zeros up to a whole word."""
        whole = np.zeros((-(-len(values) // 8) * 8, LANES), np.float32)
        whole[: len(values)] = values
        part = Region(region.index, region.address, len(whole), "f16", "columns")
        self._write(Buffer("cache", part), whole)

    # --- results ----------------------------------------------------------------------------
    def _read(
        self, work: Work, value: Value
    ) -> tuple[list[tuple[str, npt.NDArray[np.generic]]], F32 | None]:
        laid, count = self.at.made(work, value), int(np.prod(self._sizes(value)))
        copies = []
        for copy in (*laid.copies, *laid.low):
            parts = [self.chip.read(part.buffer).reshape(part.blocks, -1, LANES) for part in copy]
            rows = np.concatenate(parts).swapaxes(0, 1)
            if laid.layout.width == 1:  # a number, in all lanes
                assert (rows == rows[..., :1]).all(), "a number differs from lane to lane"
            else:
                self._check_lanes(value, laid.layout, rows)
            values = laid.layout.elements(rows)
            if value.dims[:1] and value.dims[0].name == "chosen":
                each = values.reshape(len(values), value.dims[0].size, -1)
                values = each[:, :, : self._sizes(value)[1]].reshape(len(values), -1)
            values = values[:, :count]
            copies.append((copy[0].buffer.region.dtype, values))
        if value.dims[:1] == (CHOICE,):
            copies = self._with_gates(copies)
        if laid.low:
            half = len(laid.copies)
            copies = [
                ("i16", LOW_LEVELS * high.astype(np.int32) + low)
                for (_, high), (_, low) in zip(copies[:half], copies[half:], strict=True)
            ]
        found = [self.chip.read(step) for step in self.at.steps(work, value)]
        if not found:
            return copies, None
        slack = 0 if value.integers else 1e-6  # sums in fp16 may differ from lane to lane
        same = (np.allclose(rows, found[0][:, :1], rtol=slack, atol=0) for rows in found)
        assert all(same), "steps differ"
        return copies, found[0][:, :1]

    @staticmethod
    def _with_gates(
        copies: list[tuple[str, npt.NDArray[np.generic]]],
    ) -> list[tuple[str, npt.NDArray[np.generic]]]:
        """Copies of a choice that have its gates, with the numbers that others have, if any do."""
        gates = [values for dtype, values in copies if dtype == "f32"]
        chosen = gates[0].shape[1] // 2
        numbers = [values[:, :chosen] for dtype, values in copies if dtype != "f32"]
        numbers = numbers or [gates[0][:, :chosen]]
        assert all(np.array_equal(one, numbers[0]) for one in numbers)
        return [("f32", np.hstack([numbers[0], values[:, chosen:]])) for values in gates]

    @staticmethod
    def _check_lanes(value: Value, layout: Layout, rows: npt.NDArray[np.generic]) -> None:
        """Lanes that belong to no element are zero, as sums over lanes rely on it.

        A single number is in all lanes.
        """
        if not value.dims:
            assert (rows == rows[..., :1]).all(), "a number differs from lane to lane"
            return
        for block, span in enumerate(layout.spans):
            inside = np.zeros(LANES, bool)
            inside[span.column : span.column + span.count] = True
            assert not rows[:, block, ~inside].any(), f"block {block} has lanes beyond its elements"


def in_rows(layout: Layout, values: F32) -> F32:
    """Values [tokens, ..] as [tokens, blocks, lanes]."""
    rows = [layout.rows(np.ravel(row)) for row in values]
    return np.array(rows, np.float32).reshape(len(values), layout.blocks, LANES)
