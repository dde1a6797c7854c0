"""What each op must do on a chip, however it is scheduled: the work that bounds are made of.

A part of an op leads from values at the VXM to a result there. It is what the ISA demands: a matrix
enters the arrays over their weight streams, a sum over lanes needs a way to another unit and back.
What a schedule could do elsewhere or not at all (a norm's gain, say, in the weights) is not in it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from chip.isa import WIDTHS
from chip.spec import EAST, ChipSpec
from cluster.compiler.rank import Rank
from cluster.model.graph.add import Add
from cluster.model.graph.attention import Attention
from cluster.model.graph.clamped_gate import ClampedGate
from cluster.model.graph.experts import ExpertLinear
from cluster.model.graph.gate import Activation, Gate
from cluster.model.graph.grouped_route import GroupedRoute
from cluster.model.graph.head_linear import HeadLinear
from cluster.model.graph.latent_attention import LatentAttention
from cluster.model.graph.linear import Linear
from cluster.model.graph.norm import Norm, NormBySum, SquareSum
from cluster.model.graph.op import Op
from cluster.model.graph.own_experts import OwnExperts
from cluster.model.graph.pool import Pool
from cluster.model.graph.quantise import Quantise
from cluster.model.graph.rotary import Rotary
from cluster.model.graph.route import Route
from cluster.model.graph.soft_cap import SoftCap
from cluster.model.graph.values import INTEGERS, Dim, Value


@dataclass(frozen=True)
class Product:
    """A product with a matrix: `vectors` are [lanes] bytes.

    `weight_vectors` enter the arrays as weights; `activation_vectors` meet them and take
    `plane_cycles`, the cycles of one plane, on all planes together; `sum_vectors` leave.
    """

    weight_vectors: int
    activation_vectors: int
    plane_cycles: int
    sum_vectors: int


@dataclass(frozen=True)
class Part:
    """`latency_cycles` of dependent instructions, then perhaps a product."""

    latency_cycles: int
    product: Product | None = None


@dataclass(frozen=True)
class OpWork:
    """The parts of an op in order; `factor_cycles` after its input there is a factor of each row.

    Products may be multiplied by that factor afterwards; all others wait for it. Inputs that are
    wanted `late` must be there for its last product only.
    """

    parts: tuple[Part, ...]
    factor_cycles: int = 0
    written_vectors: int = 0  # of a cache
    late: tuple[Value, ...] = ()

    @property
    def products(self) -> tuple[Product, ...]:
        """Its products."""
        return tuple(part.product for part in self.parts if part.product)


@dataclass(frozen=True)
class Share:
    """A launch as one rank sees it: `rows` that look back at `context` tokens."""

    spec: ChipSpec
    rank: Rank
    rows: int
    context: int
    sequences: int = 1  # with caches of their own

    def width(self, dims: tuple[Dim, ...]) -> int:
        """Elements of the rank's share."""
        return prod(self.rank.size(dim) for dim in dims)

    def blocks(self, elements: int) -> int:
        """Vectors of all lanes that hold so many elements."""
        return -(-elements // self.spec.lanes)

    @property
    def alu(self) -> int:
        """Cycles of an instruction of the VXM that is no function."""
        return self.spec.d_func("vxm.alu")

    @property
    def convert(self) -> int:
        """Cycles of a rounding."""
        return self.spec.d_func("vxm.convert")

    @property
    def reduction(self) -> int:
        """Cycles in which all lanes of a vector meet: two and two, and once on another unit.

        Only permutes and shifts move lanes out of their superlane.
        """
        spec = self.spec
        sxm = abs(spec.edge_position("sxm", EAST) - spec.vxm_position)
        moved = min(spec.d_func("sxm.permute"), spec.d_func("sxm.shift"))
        levels = (spec.lanes - 1).bit_length()
        return (
            levels * self.alu + 2 * sxm + (moved if spec.superlanes > 1 else spec.quickest("sxm"))
        )

    def meeting(self, values: int) -> int:
        """Cycles in which so many sums of a row meet, two and two, and once on another unit.

        They pass the SXM on their way from the array. They need not leave superlanes: the product
        that makes them may have left them in each.
        """
        return (values - 1).bit_length() * self.alu + self.spec.quickest("sxm")

    @property
    def lane_sum(self) -> int:
        """The same of a sum, for which the MXM is another way."""
        return min(self.reduction, product_cycles(self.spec))

    def product(self, inner: int, out: int, dtype: str, rows: int, matrices: int = 1) -> Product:
        """Rows of `inner` elements times so many matrices [out, inner], each of them with all."""
        lanes, width = self.spec.lanes, WIDTHS[dtype]
        columns = self.blocks(inner) * out * matrices
        interval = self.spec.abc_interval_fp16 * 2 if dtype == "f16" else 1  # both planes of a side
        passes = rows * columns
        return Product(columns * width, passes * width // lanes, passes * interval // lanes,
                       rows * out * matrices * WIDTHS["f32"] // lanes)  # fmt: skip


def product_cycles(spec: ChipSpec) -> int:
    """From an activation at the VXM to its sum there, with the weights in place."""
    way = abs(spec.edge_position("mxm", EAST) - spec.vxm_position)
    return 2 * way + spec.d_func("mxm.abc") + spec.d_func("mxm.acc")


Worker = Callable[[Share, Any], OpWork]
_WORK: dict[type[Op], Worker] = {}


def work(cls: type[Op]) -> Callable[[Worker], Worker]:
    """Decorator: the work of an op."""

    def known(worker: Worker) -> Worker:
        _WORK[cls] = worker
        return worker

    return known


def work_of(share: Share, op: Op) -> OpWork:
    """What a rank must do for an op; of all but collectives."""
    return _WORK[type(op)](share, op)


def _latency(cycles: int) -> OpWork:
    return OpWork((Part(cycles),))


@work(Linear)
def _linear(share: Share, op: Linear) -> OpWork:
    inner, out = share.width(op.weight.inner), share.width(op.weight.out)
    return _product(share, inner, out, op.x.dtype, op.bias is not None)


def _product(
    share: Share, inner: int, out: int, dtype: str, biased: bool = False, matrices: int = 1
) -> OpWork:
    """Rounded to fp16 before, or as int32 scaled after; of 16 bits two halves, put together."""
    halves = 2 if dtype == "i16" else 1
    if dtype in INTEGERS:
        kind, before, after = "i8", 0, share.convert + share.alu * halves
    else:
        kind, before, after = "f16", share.convert, 0
    product = share.product(inner, out, kind, share.rows * halves, matrices)
    return OpWork((Part(before, product), Part(after + share.alu * biased)))


@work(HeadLinear)
def _head_linear(share: Share, op: HeadLinear) -> OpWork:
    """Heads that lie side by side in lanes have their matrices there, too."""
    inner, out = share.width(op.x.dims), op.out.dims[1].size
    return _product(share, inner, out, op.x.dtype)


@work(ExpertLinear)
def _expert_linear(share: Share, op: ExpertLinear) -> OpWork:
    inner, out = (share.width(dims) for dims in op.each)
    matrices = min(op.held, op.chosen * share.rows)  # programs know no choice: the worst case
    one = _product(share, inner, out, op.x.dtype, matrices=matrices)
    return OpWork((*one.parts, Part(share.alu * op.adds)))


@work(Norm)
def _norm(share: Share, op: Norm) -> OpWork:
    factor = share.alu + share.lane_sum + share.spec.d_func("vxm.rsqrt")
    parts = _to_integers(share, op.out) if op.out.integers else (Part(0),)
    return OpWork(parts, factor)


@work(NormBySum)
def _norm_by_sum(share: Share, op: NormBySum) -> OpWork:
    parts = _to_integers(share, op.out) if op.out.integers else (Part(0),)
    return OpWork(parts, share.spec.d_func("vxm.rsqrt"))


@work(SquareSum)
def _square_sum(share: Share, op: SquareSum) -> OpWork:
    return _latency(share.alu + share.lane_sum)


@work(Quantise)
def _quantise(share: Share, op: Quantise) -> OpWork:
    if op.steps is not None:
        return _latency(share.alu + share.convert)
    return OpWork(_to_integers(share, op.out))


def _to_integers(share: Share, value: Value) -> tuple[Part, ...]:
    """The largest magnitude of a row, its reciprocal, and the rounding of what it scales.

    Of 16 bits the lower half is the rounding of what the upper one, as fp32 again, leaves.
    """
    recip = share.spec.d_func("vxm.recip")
    lower = 2 * (share.convert + share.alu) if value.dtype == "i16" else 0
    return (Part(share.reduction + recip + share.alu + share.convert + lower),)


@work(Rotary)
def _rotary(share: Share, op: Rotary) -> OpWork:
    return _latency(share.spec.quickest("sxm") + 2 * share.alu)


@work(Attention)
def _attention(share: Share, op: Attention) -> OpWork:
    """Keys and values of all tokens of the bucket are weights: programs know no position."""
    heads, keys = (share.width(value.dims[:1]) for value in (op.q, op.k))
    size, tokens = op.q.dims[1].size, share.rows
    if op.causal:
        tokens = min(share.context, op.window or share.context)
    cached = share.blocks(tokens * keys * size) * WIDTHS["f16"] * share.sequences
    passes = share.rows * heads * share.blocks(tokens)
    met = passes * WIDTHS["f16"], passes * share.spec.abc_interval_fp16 * 2
    scores = Product(cached, *met, share.rows * heads * share.blocks(tokens) * WIDTHS["f32"])
    mixed = Product(cached, *met, share.rows * heads * size * WIDTHS["f32"] // share.spec.lanes)
    softmax = share.reduction + share.alu + share.spec.d_func("vxm.exp") + share.convert
    divided = share.spec.d_func("vxm.recip") + share.alu
    written = share.blocks(share.rows * keys * size) * WIDTHS["f16"] * 2
    parts = (Part(share.convert, scores), Part(softmax, mixed), Part(divided))
    return OpWork(parts, written_vectors=written, late=(op.v,))


@work(LatentAttention)
def _latent_attention(share: Share, op: LatentAttention) -> OpWork:
    """Latents and keys of all tokens of the bucket are weights, those of all heads."""
    heads, alu = share.width(op.q.dims[:1]), share.alu
    row, values = op.latent.width + op.k.width, op.latent.width
    keys, mixed = (
        share.product(inner, out, "f16", share.rows * heads)
        for inner, out in ((row, share.context), (share.context, values))
    )
    keys, mixed = (
        replace(one, weight_vectors=one.weight_vectors * share.sequences) for one in (keys, mixed)
    )
    softmax = share.reduction + alu + share.spec.d_func("vxm.exp") + share.convert
    divided = share.spec.d_func("vxm.recip") + alu
    written = share.blocks(share.rows * row) * WIDTHS["f16"]
    parts = (Part(share.convert, keys), Part(softmax, mixed), Part(divided))
    return OpWork(parts, written_vectors=written)


@work(Gate)
@work(Activation)
def _gate(share: Share, op: Gate | Activation) -> OpWork:
    """A sigmoid: an exponential, a sum and a reciprocal; and a product with it."""
    functions = share.spec.d_func("vxm.exp") + share.spec.d_func("vxm.recip")
    return _latency(functions + 2 * share.alu)


@work(ClampedGate)
def _clamped_gate(share: Share, op: ClampedGate) -> OpWork:
    """As that of a sigmoid, of what is clamped."""
    functions = share.spec.d_func("vxm.exp") + share.spec.d_func("vxm.recip")
    return _latency(functions + 3 * share.alu)


@work(OwnExperts)
def _own_experts(share: Share, op: OwnExperts) -> OpWork:
    """Numbers from the rank's first one on, within its bounds."""
    return _latency(2 * share.alu)


@work(SoftCap)
def _soft_cap(share: Share, op: SoftCap) -> OpWork:
    return _latency(share.spec.d_func("vxm.tanh") + share.alu)


@work(Route)
def _route(share: Share, op: Route) -> OpWork:
    """Numbers of experts depend on all scores. Gates are wanted where experts are added up only."""
    return _latency(share.meeting(op.scores.width))


@work(GroupedRoute)
def _grouped_route(share: Share, op: GroupedRoute) -> OpWork:
    """Sigmoids with a bias; then as above."""
    functions = share.spec.d_func("vxm.exp") + share.spec.d_func("vxm.recip")
    return _latency(functions + 2 * share.alu + share.meeting(op.scores.width))


@work(Add)
def _add(share: Share, op: Add) -> OpWork:
    return _latency(share.alu)


@work(Pool)
def _pool(share: Share, op: Pool) -> OpWork:
    return _latency(2 * share.lane_sum + share.spec.d_func("vxm.rsqrt"))
