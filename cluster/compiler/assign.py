"""How a rank's values lie in SRAM, and on which arrays its products are: a pass over a section.

What an op wants of its inputs decides: the layout of heads comes from attention, copies on both
sides from products on both arrays. The memory map then says where each copy rests.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from math import prod

from chip.kernels.layout import Layout, halves
from chip.kernels.linear import HeadMatrix, Matrix
from chip.kernels.quantise import FEW_BLOCKS
from chip.kernels.work import OUTPUT, Laid, Part, Request, Steps, Work
from chip.schedule import Buffer
from chip.spec import EAST, WEST, ChipSpec
from cluster.compiler import fused
from cluster.compiler.layouts import layouts, plain_layout, to_all
from cluster.compiler.rank import Rank
from cluster.compiler.segments import residual_stream
from cluster.compiler.sides import SIDES, sides_of
from cluster.model.graph.add import Add
from cluster.model.graph.attention import Attention
from cluster.model.graph.clamped_gate import ClampedGate
from cluster.model.graph.collective import AllReduce
from cluster.model.graph.experts import ExpertLinear
from cluster.model.graph.gate import Activation, Gate
from cluster.model.graph.graph import Section
from cluster.model.graph.head_linear import HeadLinear
from cluster.model.graph.latent_attention import ATTENTIONS, LatentAttention
from cluster.model.graph.linear import Linear
from cluster.model.graph.norm import Norm, NormBySum, SquareSum
from cluster.model.graph.op import GraphError, Op
from cluster.model.graph.quantise import Quantise
from cluster.model.graph.rotary import Rotary
from cluster.model.graph.soft_cap import SoftCap
from cluster.model.graph.values import Dim, Value

Product = Linear | HeadLinear | ExpertLinear  # with a matrix at rest
MOST_PIECES = 2  # of a copy whose blocks rest apart
FIRST_BLOCKS = 4  # of integers, read while others are written: a bank does not do both at a time
RESIDUAL = ("x0", "x1")  # buffers of the residual stream, in turn
SUMMANDS = ("y0", "y1")  # what is added to it: output blocks of the east, of the west array
INVERSE = "{}.inverse"  # of fixed steps, by the value that they are of


@dataclass(frozen=True)
class Copy:
    """A copy of a value that a consumer wants; `split` ones have a part on either side."""

    dtype: str
    side: int
    split: bool = False
    turn: int = 0  # numbers copies that are alike


@dataclass(frozen=True)
class Assigned:
    """A sharded section with all that kernels must know of a rank's values.

    `most_rows` tokens at most are in a launch, and `weights` the type of matrices. `carried` are
    copies of the residual stream beside the fp32 one that sections find, and leave to the next.
    Blocks of a copy may rest `apart`, so that some are read while others are written.
    """

    section: Section
    rank: Rank
    spec: ChipSpec
    most_rows: int
    weights: str
    carried: tuple[Copy, ...] = ()
    apart: bool = False

    def check(self) -> "Assigned":
        """Return self; raise GraphError where a layout does not hold its value.

        Every block of a product is on one array.
        """
        for value in (self.section.x, *(op.out for op in self.section.ops)):
            layout, count = self.layout(value), self._elements(value)
            ends = (span.column + span.count for span in layout.spans)
            if layout.total < count:
                rule = f"{value.name} has {count} elements, its layout holds {layout.total}"
                raise GraphError("layout", (value.name,), rule)
            if max(ends, default=0) > self.spec.lanes:
                raise GraphError("layout", (value.name,), f"{value.name} goes beyond the lanes")
        for op in self.section.ops:
            if isinstance(op, Product):
                shared = self.shared_matrices(op)[:1]
                blocks = [n for matrix in (*self.matrices(op), *shared) for n in matrix.blocks]
                every = list(range(self._ends(op)[1].blocks))
                op.require(sorted(blocks) == every, "its blocks are not on one array each")
        return self

    # --- layouts ----------------------------------------------------------------------------
    def layout(self, value: Value) -> Layout:
        """The layout of a value."""
        return self._layouts[value.name]

    @cached_property
    def _layouts(self) -> dict[str, Layout]:
        return layouts(self.section, self.rank, self.spec.lanes, self.weights)

    def _plain(self, dims: tuple[Dim, ...]) -> Layout:
        return plain_layout(dims, self.rank, self.spec.lanes, self.weights)

    def _elements(self, value: Value) -> int:
        return prod(self.rank.size(dim) for dim in value.dims)

    # --- matrices ---------------------------------------------------------------------------
    def _ends(self, op: Product) -> tuple[Layout, Layout]:
        """The layouts of what a matrix takes and gives."""
        if isinstance(op, Linear | HeadLinear):
            return self.layout(op.x), self.layout(op.out)
        inner, out = op.each
        return self._plain(inner), self._plain(out)

    def matrices(self, op: Product) -> tuple[Matrix, ...]:
        """The matrix of a product, or of an expert, as it rests on one side, or on both."""
        sides = self.sides[op.out.name]
        inputs, outputs = self._ends(op)
        sums = self.most_rows * (2 if op.x.dtype == "i16" else 1)  # of each half
        limit = max(1, self.spec.accumulator_depth // sums)
        readers = self.section.consumers(op.out)
        onward = self.apart or any(isinstance(reader, AllReduce) for reader in readers)
        if op.adds if isinstance(op, ExpertLinear) else onward:
            limit = 1  # its rows may leave while the next ones are made
        if len(sides) == 1:
            where = [(op.weight.name, sides[0], range(outputs.blocks))]
        else:
            parts = halves(outputs.blocks)
            if self._shares_last(op):
                parts = range(parts[1].start - 1), range(parts[1].start - 1, outputs.blocks - 1)
            where = [(f"{op.weight.name}{side}", side, parts[side]) for side in SIDES]
        layouts = inputs, outputs
        if isinstance(op, HeadLinear):
            heads = self.rank.size(op.x.dims[0])
            return tuple(
                HeadMatrix(name, side, *layouts, blocks, 1, self.weights, heads=heads)
                for name, side, blocks in where
            )
        return tuple(
            Matrix(name, side, *layouts, blocks, limit, self.weights)
            for name, side, blocks in where
        )

    def shared_matrices(self, op: Product) -> tuple[Matrix, ...]:
        """The matrix of the last output block, where each side has some of its input blocks."""
        if not self._shares_last(op):
            return ()
        inputs, outputs = self._ends(op)
        last, some = range(outputs.blocks - 1, outputs.blocks), halves(inputs.blocks)
        return tuple(
            Matrix(f"{op.weight.name}.last{side}", side, inputs, outputs, last, 1, self.weights,
                   some[side])
            for side in SIDES
        )  # fmt: skip

    def all_matrices(self, op: Product) -> tuple[Matrix, ...]:
        """Those of each side and those of both."""
        return (*self.matrices(op), *self.shared_matrices(op))

    def _shares_last(self, op: Product) -> bool:
        """Whether both sides work on the last output block, as they have as many of the others.

        Sums of int8 are the same in any order.
        """
        if not self.apart or self.weights != "i8" or len(self.sides[op.out.name]) == 1:
            return False
        inputs, outputs = self._ends(op)
        return isinstance(op, Linear) and outputs.blocks % 2 == 1 and inputs.blocks > 1

    @cached_property
    def sides(self) -> dict[str, tuple[int, ...]]:
        """The sides of each product: those of one input are shared out, a single one is cut."""
        found: dict[str, tuple[int, ...]] = {}
        groups: dict[tuple[type, str], list[Product]] = {}
        for op in self.section.ops:
            if isinstance(op, Product):
                groups.setdefault((type(op), op.x.name), []).append(op)
        for group in groups.values():
            layouts = {op.out.name: self.layout(op.out) for op in group}
            found |= sides_of(layouts, self.apart, may_cut=isinstance(group[0], Linear))
        return found

    @property
    def held_experts(self) -> int:
        """Experts that a rank holds, or parts of."""
        return next(op.held for op in self.section.ops if isinstance(op, ExpertLinear))

    # --- copies -----------------------------------------------------------------------------
    def wants(self, op: Op, value: Value) -> tuple[Copy, ...]:
        """The copies of a value that an op reads, in the order in which its kernel takes them."""
        if isinstance(op, Product) and value == op.x:
            return tuple(Copy(self.weights, side) for side in self.sides[op.out.name])
        if isinstance(op, ExpertLinear):  # numbers for rows, then for each matrix; and its gates
            sides = [EAST + WEST - side for side in self.sides[op.out.name]]
            gates = (Copy("f32", side, turn=1) for side in sides if op.adds)
            numbers = (Copy("u16", side, turn=1 + op.adds) for side in sides)
            return (Copy("u16", WEST), *numbers, *gates)
        if isinstance(op, Attention):
            if to_all(op, self.rank):  # heads of a row are on both sides
                return tuple(Copy("f16", side) for side in SIDES)
            return (Copy("f16", WEST if value == op.v else EAST),)
        if isinstance(op, LatentAttention):
            return (Copy("f16", EAST),)
        if isinstance(op, Rotary):
            return (Copy("f32", self.turned_at(op)),)
        if isinstance(op, Gate | ClampedGate) and value == op.gate:
            return (Copy("f32", EAST), Copy("f32", WEST))
        if isinstance(op, Activation):  # read twice, where each array has left its half
            return tuple(Copy("f32", EAST, split=True, turn=turn) for turn in range(2))
        if isinstance(op, Quantise) and op.steps is not None:  # they are made as the value is
            readers = self.section.consumers(op.out)
            wanted = (copy for reader in readers for copy in self.wants(reader, op.out))
            return tuple(dict.fromkeys(wanted))
        if isinstance(op, Quantise) and self.apart:
            return (Copy("f32", EAST, split=True),)
        if isinstance(op, SoftCap) or (isinstance(op, Add | AllReduce) and value == op.y):
            return (Copy("f32", EAST, split=True),)
        if isinstance(op, Norm | SquareSum | NormBySum):
            return (Copy("f32", EAST),)
        return (Copy("f32", WEST),)

    def turned_at(self, op: Rotary) -> int:
        """The SXM that a rotary embedding goes by: queries east, keys west."""
        readers = self.section.consumers(op.out)
        keys = any(isinstance(other, ATTENTIONS) and other.k == op.out for other in readers)
        return WEST if keys else EAST

    @cached_property
    def copies(self) -> dict[str, tuple[Copy, ...]]:
        """All copies of each value."""
        found: dict[str, dict[Copy, None]] = {}
        for op in self.section.ops:
            for value in op.inputs:
                found.setdefault(value.name, {}).update(dict.fromkeys(self.wants(op, value)))
        found.setdefault(self.section.out.name, {Copy("f32", EAST, split=True): None})
        return {name: tuple(copies) for name, copies in found.items()}

    def rounded(self, op: Op) -> tuple[Value, ...]:
        """Values of the residual stream that an op is the first to read in another type."""
        found = []
        for value in op.inputs:
            if value.name in self.residual and value.name not in self._rounded_before:
                readers = [o for o in self.section.consumers(value) if self._kinds(o, value)]
                found += [value] if readers and readers[0] is op else []
        return tuple(found)

    def kinds(self, value: Value) -> tuple[Copy, ...]:
        """Copies of a value of the residual stream in other types than fp32."""
        found = [copy for op in self.section.consumers(value) for copy in self._kinds(op, value)]
        if value == self.section.out:
            found += self.carried
        return tuple(dict.fromkeys(found))

    def _kinds(self, op: Op, value: Value) -> tuple[Copy, ...]:
        return tuple(copy for copy in self.wants(op, value) if copy.dtype != "f32")

    @cached_property
    def _rounded_before(self) -> set[str]:
        """Values of the residual stream that are there in all types: what norms make, say."""
        found = {op.out.name for op in self.section.ops if isinstance(op, Norm)}
        return found | ({self.section.x.name} if self.carried else set())

    @cached_property
    def residual(self) -> dict[str, str]:
        """The buffer of each value of the residual stream, whose last one is in the first."""
        names = residual_stream(self.section)
        return {name: RESIDUAL[turn % 2] for turn, name in enumerate(names)}

    # --- as kernels see them ----------------------------------------------------------------
    def read(self, work: Work, op: Op, value: Value) -> Laid:
        """A value as an op reads it."""
        return self._laid(work, self._rounded_with.get(value, value), self.wants(op, value))

    def made(self, work: Work, value: Value) -> Laid:
        """A value as its op leaves it: in all copies."""
        if value.name in self.residual:
            kinds = self.kinds(value) if value.name in self._rounded_before else ()
            others = (self._parts(work, value, copy) for copy in kinds)
            parts: Iterator[tuple[Part, ...]] = chain((self._residual(work, value),), others)
            laid = Laid(self.layout(value), tuple(parts))
        else:
            laid = self._laid(work, value, self.copies[value.name])
        inverse = self.inverse(work, value)
        return replace(laid, inverse=inverse) if inverse else laid

    def _laid(self, work: Work, value: Value, copies: tuple[Copy, ...]) -> Laid:
        """Some copies of a value, and the lower halves of what has 16 bits."""
        parts = tuple(self._parts(work, value, copy) for copy in copies)
        if value.dtype != "i16":
            return Laid(self.layout(value), parts)
        low = tuple(self._parts(work, value, copy, ".low") for copy in copies)
        return Laid(self.layout(value), parts, low)

    def copies_of(self, work: Work, value: Value) -> Laid:
        """A value of the residual stream as its readers have it in other types."""
        parts = tuple(self._parts(work, value, copy) for copy in self.kinds(value))
        return Laid(self.layout(value), parts, inverse=self.inverse(work, value))

    def inverse(self, work: Work, value: Value) -> Buffer | None:
        """What makes int8 copies of a value in fp32; of what a section leaves, the next one's x."""
        if not self._rounded_with and not self.carried:
            return None
        kinds = self.kinds(value) if value.name in self.residual else self.copies[value.name]
        if value.integers or all(copy.dtype != "i8" for copy in kinds):
            return None
        return work.constant(INVERSE.format(value.name), self.layout(value).blocks, "f32", WEST)

    @cached_property
    def _rounded_with(self) -> dict[Value, Value]:
        """Integers of fixed steps, and the value that has them among its copies."""
        rounding = (op for op in self.section.ops if isinstance(op, Quantise))
        return {op.out: op.x for op in rounding if op.steps is not None}

    def stream(self, work: Work, value: Value) -> Laid:
        """A value of the residual stream where it rests."""
        return Laid(self.layout(value), (self._residual(work, value),))

    def whole_copy(self, value: Value) -> str:
        """The buffer of a value that has one copy of fp32 rows."""
        (copy,) = self.copies[value.name]
        return self._name(value, copy)

    def steps(self, work: Work, value: Value) -> Steps:
        """What products with a value are multiplied by, row by row: steps of it, norms' factors.

        Each side has its own, as products of both sides read them at the same time.
        """
        if value in self._rounded_with:
            return ()
        if not value.integers and not fused.factor_left(self.section, value):
            return ()
        return tuple(work.scratch(f"{value.name}.step{side}", 1, "f32", side) for side in SIDES)

    def _residual(self, work: Work, value: Value) -> tuple[Part, ...]:
        blocks, whole = self.layout(value).blocks, work.whole or work
        buffer = whole.scratch(self.residual[value.name], blocks, "f32", EAST)
        return (Part(buffer, 0, blocks, blocks * work.first_row),)

    def _name(self, value: Value, copy: Copy) -> str:
        """Copies of what a section leaves are those that the next one finds."""
        onward = value == self.section.out and value.name in self.residual
        name = self.section.x.name if onward else value.name
        turn = f".{copy.turn}" if copy.turn else ""
        return f"{name}.{copy.dtype}.{copy.side}{turn}"

    def _parts(self, work: Work, value: Value, copy: Copy, half: str = "") -> tuple[Part, ...]:
        if value.name in self.residual and copy.dtype == "f32":
            return self._residual(work, value)
        blocks = self.layout(value).blocks
        if not copy.split:
            name = self._name(value, copy) + half
            early = FIRST_BLOCKS if value.integers and blocks > FEW_BLOCKS else 0
            return tuple(
                Part(work.scratch(f"{name}{end}", len(some), copy.dtype, copy.side), some.start,
                     len(some))
                for end, some in self._pieces(range(blocks), early=early)
            )  # fmt: skip
        found = []
        for side, part in zip(SIDES, halves(blocks), strict=True):
            for end, some in self._pieces(part, 1):
                buffer = self._half(work, value, copy, side, len(some), end)
                found.append(Part(buffer, some.start, len(some)))
        return tuple(found)

    def _pieces(
        self, blocks: range, most: int = MOST_PIECES, early: int = 0
    ) -> Iterator[tuple[str, range]]:
        """Blocks that share a buffer, at most so many times, and what its name ends in.

        The first may be wanted `early`, while others are still made.
        """
        if blocks and not self.apart:
            cut = early if early < len(blocks) else 0
            yield from [("", blocks[:cut]), (".1", blocks[cut:])] if cut else [("", blocks)]
            return
        count = min(len(blocks), most)
        for n in range(count):
            low, high = (blocks.start + len(blocks) * at // count for at in (n, n + 1))
            yield f".{n}" if n else "", range(low, high)

    def _half(self, work: Work, value: Value, copy: Copy, side: int, mine: int, end: str) -> Buffer:
        if value == self.section.out:  # the host reads it
            request = Request(f"logits{side}", mine * work.most_rows, "f32", side, OUTPUT)
            return work.cut(work.memory.take(request), mine * work.rows)
        readers = self.section.consumers(value)
        added = (op for op in readers if isinstance(op, Add | AllReduce) and op.y == value)
        if not any(isinstance(op, AllReduce) or op.out.name in self.residual for op in added):
            return work.scratch(f"{value.name}.{copy.turn}.{side}{end}", mine, "f32", side)
        whole = work.scratch(f"{SUMMANDS[side]}{end}", self.layout(value).blocks, "f32", side)
        return work.cut(whole, mine * work.rows)
