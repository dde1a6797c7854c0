"""RMSNorm and LayerNorm, over a row, over each head of it, or over all heads together."""

from dataclasses import dataclass
from typing import ClassVar

from cluster.model.graph.op import Op, Spread, register
from cluster.model.graph.values import Value, Weight, names

KINDS = ("rms", "layer")


@register
@dataclass(frozen=True)
class Norm(Op):
    """out = x / sqrt(mean square of x + eps) * weight; "layer" takes off the mean, adds a bias.

    The mean runs over the last dimensions of x, as many as the weight has: over `hidden`, over
    `head_dim` (each head by itself), or over heads and `head_dim` (all heads of a row together).
    """

    kind: ClassVar[str] = "norm"

    x: Value
    weight: Weight
    eps: float
    form: str = "rms"
    bias: Weight | None = None

    def check(self) -> None:
        """The weight has the last dimensions of x; a bias only with "layer"."""
        own, last = self.weight.out, self.x.dims[-len(self.weight.out) :]
        self.require(self.form in KINDS, f"form {self.form} is not one of {KINDS}")
        self.require(own == last, f"x has {names(self.x.dims)}, the weight {names(own)}")
        self.require(self.out.dims == self.x.dims, "the result has other dimensions")
        self.require((self.bias is not None) == (self.form == "layer"), "a bias goes with layer")
        self.require(self.eps > 0, f"eps is {self.eps}")

    @property
    def over(self) -> tuple[str, ...]:
        """Names of the dimensions that the mean runs over."""
        return names(self.weight.out)

    def spread(self, inputs: tuple[Spread, ...]) -> Spread:
        """As its input; over dimensions that are cut, ranks add up their sums of squares."""
        self.require(inputs[0] is not Spread.PARTIAL, "its input must be summed up before")
        return inputs[0]

    def sums_over_ranks(self, x: Spread) -> bool:
        """Whether the mean runs over what ranks share."""
        return x is Spread.SPLIT and len(self.weight.out) == len(self.x.dims)
