"""GELU in its tanh form, x / (1 + exp(-2 sqrt(2 / pi) (x + 0.044715 x^3))).

Hendrycks and Gimpel, "Gaussian Error Linear Units", section 2. It differs from the form with erf by
at most 5e-4.
"""

import math

from chip.kernels.pointwise import both_sides

from chip.schedule import Buffer, Chain, Flow, Rows, Schedule, run

LINEAR = -2 * math.sqrt(2 / math.pi)
CUBIC = 0.044715 * LINEAR


def gelu(
    plan: Schedule,
    member: int,
    copies: tuple[Buffer, Buffer],
    first: int,
    count: int,
    out: tuple[Buffer, Buffer],
    out_first: int,
) -> None:
    """out = fp16(GELU(x)) over rows `first`.. of two copies of x, which is read at two times."""
    chain = Chain(plan.spec, "ffn: GELU", member)
    value = chain.vxm("copy", Rows(copies[0], first), loops=run(count))
    power = chain.vxm("exp", _exponent(chain, value))
    share = chain.vxm("recip", chain.vxm("add", power, 1.0))
    value = chain.vxm("mul", share, Rows(copies[1], first))
    both_sides(chain, value, out, (0, 1), out_first)
    plan.place(chain)


def _exponent(chain: Chain, value: Flow) -> Flow:
    """LINEAR x + CUBIC x^3 of a VXM result; x waits in ALUs until its factor is there."""
    factor = chain.vxm("mul", value, value)
    factor = chain.vxm("add", chain.vxm("mul", factor, CUBIC), LINEAR)
    for _ in range(3):
        value = chain.vxm("copy", value)
    return chain.vxm("mul", factor, value)
