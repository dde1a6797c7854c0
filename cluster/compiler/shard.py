"""Tensor parallelism: who holds what of every value, and where ranks must exchange summands."""

from dataclasses import dataclass, replace

from chip.hashed import hashed_once
from cluster.model.graph.add import Add
from cluster.model.graph.collective import AllReduce
from cluster.model.graph.experts import ExpertLinear
from cluster.model.graph.graph import Section
from cluster.model.graph.latent_attention import ATTENTIONS
from cluster.model.graph.norm import Norm, NormBySum, SquareSum
from cluster.model.graph.op import GraphError, Op, Spread
from cluster.model.graph.own_experts import OwnExperts
from cluster.model.graph.shares import Shares
from cluster.model.graph.values import SHARDED, WHOLE, Dim, Value


@hashed_once
@dataclass(frozen=True)
class Sharded:
    """A section as every rank runs it, and how ranks hold each of its values."""

    section: Section
    shares: Shares
    spreads: tuple[tuple[str, Spread], ...]

    def spread(self, value: Value) -> Spread:
        """How ranks hold a value."""
        return dict(self.spreads)[value.name]

    def local(self, value: Value, rank: int) -> tuple[Dim, ...]:
        """A rank's dimensions of a value."""
        if self.spread(value) is not Spread.SPLIT:
            return value.dims
        return tuple(Dim(dim.name, len(self.shares.part(dim, rank))) for dim in value.dims)

    def check(self) -> "Sharded":
        """Return self; raise GraphError where an op's inputs are not held as it needs them."""
        self.section.check()
        known = dict(self.spreads)
        for op in self.section.ops:
            inputs = tuple(known[value.name] for value in op.inputs)
            if self.shares.tp > 1:
                op.require(known[op.out.name] == op.spread(inputs), "is held in another way")
                split = isinstance(op, Norm) and op.sums_over_ranks(inputs[0])
                op.require(not split, "its mean runs over what ranks share")
            _check_cut(op, self.shares)
        if known[self.section.out.name] is Spread.PARTIAL:
            raise GraphError("section", (self.section.out.name,), "its result is not summed up")
        return self


def shard(section: Section, tp: int) -> Sharded:
    """Cut a section for `tp` ranks; raises GraphError where an op has no way to be cut.

    Summands are added up by AllReduce where the next op needs their sum, together with the residual
    where that is an Add. A norm over what ranks share adds up their sums of squares, in fp32: these
    are few, and may be large.
    """
    pairs = {(op.k.dims[0], op.q.dims[0]): None for op in section.ops if isinstance(op, ATTENTIONS)}
    shares = Shares(tp, tuple(pairs), _experts_over(section, tp))
    if tp == 1:
        values = (section.x, *(op.out for op in section.ops))
        whole = tuple((value.name, Spread.WHOLE) for value in values)
        return Sharded(section, shares, whole).check()
    pass_ = _Pass(section)
    for op in section.ops:
        pass_.add(op)
    pass_.summed(section.out)
    ops = tuple(pass_.ops)
    out = replace(section, ops=ops)
    return Sharded(out, shares, tuple(pass_.spreads.items())).check()


def _experts_over(section: Section, tp: int) -> int:
    """Parts of a group that the experts of a section are spread over."""
    mixed = [op for op in section.ops if isinstance(op, ExpertLinear) and op.ep is not None]
    for op in mixed:
        op.require(tp % (op.ep or 1) == 0, f"{tp} ranks are not {op.ep} equal parts")
        op.require(op.experts % (op.ep or 1) == 0, f"{op.ep} does not divide {op.experts} experts")
    return max((op.ep or 1 for op in mixed), default=1)


class _Pass:
    """The ops so far, how ranks hold what they make, and what stands for the sum of a value."""

    def __init__(self, section: Section) -> None:
        self.section = section
        self.ops: list[Op] = []
        self.spreads = {section.x.name: Spread.WHOLE}
        self.sums: dict[Value, Value] = {}
        self.own: dict[Value, Value] = {}
        self.narrow: dict[Value, Value] = {}  # what is there for fewer experts than were chosen

    def add(self, op: Op) -> None:
        """Append an op, and before it what its inputs need."""
        if isinstance(op, Add) and self._add_summands(op):
            return
        if isinstance(op, Add) and self._both_summands(op):
            self._append(op)
            return
        op = self._narrowed(op)
        op = op.with_values({value: self.summed(value) for value in op.inputs})
        if isinstance(op, Norm) and op.sums_over_ranks(self.spreads[op.x.name]):
            op.require(op.form == "rms", "its mean runs over what ranks share")
            squares, total = (Value(f"{op.out.name}.{part}", ()) for part in ("squares", "total"))
            self._append(SquareSum(squares, op.x))
            self._append(AllReduce(total, squares))
            op = NormBySum(op.out, op.x, total, op.weight, op.eps)
        self._append(op)

    def _narrowed(self, op: Op) -> Op:
        """The op on the experts that a rank runs, at most all that it holds."""
        found = {value: self.narrow[value] for value in op.inputs if value in self.narrow}
        if isinstance(op, ExpertLinear) and op.ep is not None:
            found[op.choice] = self._own(op)
            chosen, slots = op.choice.dims[1], found[op.choice].dims[1]
        elif found:
            (chosen, slots) = next(
                pair for one, other in found.items()
                for pair in zip(one.dims, other.dims, strict=True) if pair[0] != pair[1]
            )  # fmt: skip
        else:
            return op
        dims = tuple(slots if dim == chosen else dim for dim in op.out.dims)
        if dims != op.out.dims:
            found[op.out] = self.narrow[op.out] = replace(op.out, dims=dims)
        return op.with_values(found)

    def _own(self, op: ExpertLinear) -> Value:
        """The choice of an op with the numbers that experts have on a rank."""
        if op.choice not in self.own:
            kind, chosen = op.choice.dims
            slots = Dim(chosen.name, min(chosen.size, op.held))
            own = Value(f"{op.choice.name}.own", (kind, slots))
            self._append(OwnExperts(own, op.choice, op.experts))
            self.own[op.choice] = own
        return self.own[op.choice]

    def summed(self, value: Value) -> Value:
        """The value, or the sum of its summands."""
        if self.spreads[value.name] is not Spread.PARTIAL:
            return value
        if value not in self.sums:
            self.sums[value] = Value(f"{value.name}.sum", value.dims, value.dtype)
            self._append(AllReduce(self.sums[value], value, sums=self.section.sums))
        return self.sums[value]

    def _add_summands(self, op: Add) -> bool:
        """Whether an Add is an all-reduce that begins with the residual."""
        for y, residual in ((op.y, op.x), (op.x, op.y)):
            held = self.spreads[y.name], self.spreads[residual.name]
            alone = self.section.consumers(y) == (op,) and y != self.section.out
            if held == (Spread.PARTIAL, Spread.WHOLE) and alone:
                self._append(AllReduce(op.out, y, residual, self.section.sums))
                return True
        return False

    def _both_summands(self, op: Add) -> bool:
        """Whether an Add may come before its result is summed up, once for both inputs."""
        return all(
            self.spreads[value.name] is Spread.PARTIAL and value not in self.sums
            for value in op.inputs
        )

    def _append(self, op: Op) -> None:
        self.spreads[op.out.name] = op.spread(tuple(self.spreads[v.name] for v in op.inputs))
        self.ops.append(op)


def _check_cut(op: Op, shares: Shares) -> None:
    """Raise GraphError where a rank would hold nothing, or a dimension cannot be cut."""
    for dims in (op.out.dims, *(d for w in op.weights for d in (w.out, w.inner))):
        for number, dim in enumerate(dims):
            if dim.name in SHARDED and shares.tp > 1:
                first = all(other.name in WHOLE for other in dims[:number])
                op.require(first, f"{dim.name} is cut, but is not the first dimension")
                some = len(shares.part(dim, shares.tp - 1)) > 0
                op.require(some, f"{shares.tp} ranks cannot share {dim.size} {dim.name}")
