"""Writes sections so that they read like the paper: `h = b.norm(x, "attn_norm")`."""

from collections.abc import Callable

from cluster.model.graph.add import Add
from cluster.model.graph.attention import Attention
from cluster.model.graph.clamped_gate import ClampedGate
from cluster.model.graph.experts import ExpertLinear
from cluster.model.graph.gate import Activation, Gate
from cluster.model.graph.graph import Section
from cluster.model.graph.grouped_route import GroupedRoute
from cluster.model.graph.head_linear import HeadLinear
from cluster.model.graph.latent_attention import LatentAttention
from cluster.model.graph.linear import Linear
from cluster.model.graph.norm import Norm
from cluster.model.graph.op import Op
from cluster.model.graph.pool import Pool
from cluster.model.graph.rotary import Rotary, RotaryTable
from cluster.model.graph.route import CHOICE, Route
from cluster.model.graph.soft_cap import SoftCap
from cluster.model.graph.values import Dim, Value, Weight


class Builder:
    """Collects the ops of one section, which starts from `x`."""

    def __init__(self, hidden: Dim) -> None:
        self.x = Value("x", (hidden,))
        self._ops: list[Op] = []

    def section(self) -> Section:
        """The section so far, checked; raises GraphError."""
        return Section(self.x, tuple(self._ops)).check()

    def linear(
        self, x: Value, name: str, *out: Dim, bias: bool = False, rotary: bool = False
    ) -> Value:
        """The product of matrix `name` [*out, *x.dims] and x, with a bias `name.bias` if asked."""
        weight = Weight(name, out, x.dims, rotary)
        extra = Weight(f"{name}.bias", out, (), rotary) if bias else None
        return self._add(name, out, lambda value: Linear(value, x, weight, extra))

    def head_linear(self, x: Value, name: str, out: Dim) -> Value:
        """The products of matrices `name` [heads, out, in] and x [heads, in], head by head."""
        dims = (x.dims[0], out)
        weight = Weight(name, dims, x.dims[1:])
        return self._add(name, dims, lambda value: HeadLinear(value, x, weight))

    def norm(
        self, x: Value, name: str, eps: float, over: int = 1, form: str = "rms",
        rotary: bool = False,
    ) -> Value:  # fmt: skip
        """x normed over its last `over` dimensions; weight `name`, of "layer" also `name.bias`."""
        dims = x.dims[-over:]
        weight = Weight(name, dims, (), rotary)
        bias = Weight(f"{name}.bias", dims) if form == "layer" else None
        return self._add(name, x.dims, lambda value: Norm(value, x, weight, eps, form, bias))

    def rotary(self, x: Value, table: RotaryTable) -> Value:
        """x turned by its rows' positions."""
        return self._add(f"{x.name}.turned", x.dims, lambda value: Rotary(value, x, table))

    def attention(
        self, q: Value, k: Value, v: Value, scale: float, causal: bool = True,
        window: int | None = None, cap: float | None = None, sinks: str | None = None,
    ) -> Value:  # fmt: skip
        """Attention of q over the cache that k and v are appended to; weight `sinks` if named."""
        weight = Weight(sinks, q.dims[:1]) if sinks else None
        dims, how = (q.dims[0], v.dims[1]), (scale, causal, window, cap, weight)
        return self._add("mixed", dims, lambda value: Attention(value, q, k, v, *how))

    def latent_attention(
        self, q: Value, q_turned: Value, latent: Value, k: Value, scale: float
    ) -> Value:
        """Attention of q and q_turned over the cache that latent and k are appended to."""
        return self._add(
            "mixed", q.dims, lambda value: LatentAttention(value, q, q_turned, latent, k, scale)
        )

    def gate(self, gate: Value, up: Value, function: str) -> Value:
        """function(gate) * up."""
        again = any(isinstance(op, Gate) for op in self._ops)
        name = f"{up.name}.gated" if again else "gated"
        return self._add(name, up.dims, lambda value: Gate(value, gate, up, function))

    def clamped_gate(self, gate: Value, up: Value, slope: float, limit: float) -> Value:
        """(up + 1) * gate * sigmoid(slope * gate) of inputs within +-limit."""
        how = (slope, limit)
        return self._add("gated", up.dims, lambda value: ClampedGate(value, gate, up, *how))

    def activation(self, x: Value, function: str) -> Value:
        """function(x)."""
        return self._add(f"{x.name}.active", x.dims, lambda value: Activation(value, x, function))

    def route(self, scores: Value, chosen: int) -> Value:
        """The experts with the highest scores, and their gates."""
        dims = (CHOICE, Dim("chosen", chosen))
        return self._add("choice", dims, lambda value: Route(value, scores))

    def grouped_route(
        self, scores: Value, bias: str, chosen: int, groups: int, kept: int, normed: bool,
        scale: float,
    ) -> Value:  # fmt: skip
        """The experts of `kept` of `groups` whose sigmoid and `bias` are highest, and gates."""
        dims, weight = (CHOICE, Dim("chosen", chosen)), Weight(bias, scores.dims)
        how = (groups, kept, normed, scale)
        return self._add("choice", dims, lambda value: GroupedRoute(value, scores, weight, *how))

    def experts(self, x: Value, choice: Value, name: str, out: Dim, bias: bool = False) -> Value:
        """Products of x and the chosen experts of `name`, with biases `name.bias` if asked.

        They are added up if each has an x of its own.
        """
        chosen, experts = choice.dims[1], Dim("experts", self._experts(choice))
        own = x.dims[0] == chosen
        weight = Weight(name, (experts, out), x.dims[1:] if own else x.dims)
        extra = Weight(f"{name}.bias", (experts, out)) if bias else None
        dims = (out,) if own else (chosen, out)
        return self._add(name, dims, lambda value: ExpertLinear(value, x, choice, weight, extra))

    def _experts(self, choice: Value) -> int:
        """How many experts there are to choose from."""
        maker = next(op for op in self._ops if op.out == choice)
        return maker.inputs[0].width

    def soft_cap(self, x: Value, cap: float) -> Value:
        """cap * tanh(x / cap)."""
        return self._add(f"{x.name}.capped", x.dims, lambda value: SoftCap(value, x, cap))

    def add(self, x: Value, y: Value) -> Value:
        """x + y."""
        number = sum(isinstance(op, Add) for op in self._ops) + 1
        return self._add(f"x{number}", x.dims, lambda value: Add(value, x, y))

    def pool(self, x: Value) -> Value:
        """The mean of a sequence's rows, of length 1."""
        return self._add("pooled", x.dims, lambda value: Pool(value, x))

    def _add(self, name: str, dims: tuple[Dim, ...], make: Callable[[Value], Op]) -> Value:
        value = Value(name, dims)
        self._ops.append(make(value))
        return value
