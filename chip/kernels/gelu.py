"""GELU in its tanh form, x / (1 + exp(-2 sqrt(2 / pi) (x + 0.044715 x^3))), in two chains.

Hendrycks and Gimpel, "Gaussian Error Linear Units", section 2. It differs from the form with erf by
at most 5e-4.
"""

import math

from chip.kernels.pointwise import both_sides
from chip.schedule import Buffer, Chain, Flow, Rows, Schedule, run

LINEAR = -2 * math.sqrt(2 / math.pi)
CUBIC = 0.044715 * LINEAR


def gelu_exponent(chain: Chain, value: Flow) -> Flow:
    """LINEAR x + CUBIC x^3 of a VXM result; x waits in ALUs until its factor is there."""
    factor = chain.vxm("mul", value, value)
    factor = chain.vxm("add", chain.vxm("mul", factor, CUBIC), LINEAR)
    for _ in range(3):
        value = chain.vxm("copy", value)
    return chain.vxm("mul", factor, value)


def gelu(
    plan: Schedule,
    member: int,
    values: Buffer,
    exponents: Buffer,
    first: int,
    count: int,
    out: tuple[Buffer, Buffer],
    out_first: int,
) -> None:
    """out = fp16(x / (1 + exp(e))) over rows `first`.. of x and of its exponents `e`."""
    chain = Chain(plan.spec, "ffn: GELU", member)
    power = chain.vxm("exp", Rows(exponents, first), loops=run(count))
    share = chain.vxm("recip", chain.vxm("add", power, 1.0))
    value = chain.vxm("mul", share, Rows(values, first))
    both_sides(chain, value, out, (0, 1), out_first)
    plan.place(chain)
