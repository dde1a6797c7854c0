"""Activations with a gate, and without: silu, and GELU in its tanh form.

GELU(x) = x (1 + tanh(y)) / 2 = x / (1 + exp(-2 y)) with y = sqrt(2 / pi) (x + 0.044715 x^3):
Hendrycks and Gimpel, "Gaussian Error Linear Units", section 2. It differs from the form with erf by
at most 5e-4.
"""

from math import pi, sqrt

from chip.kernels.layout import halves
from chip.kernels.linear import deliver
from chip.kernels.quantise import Peaks
from chip.kernels.work import Laid, Work, targets
from chip.schedule import Chain, Flow, Rows, run

LINEAR = -2 * sqrt(2 / pi)
CUBIC = 0.044715 * LINEAR
TANH_CUBIC, TANH_SQUARE = 0.044715 * sqrt(2 / pi), 1 / 0.044715
HALF = 0.5


def gated(work: Work, gate: Laid, up: Laid, function: str, out: Laid) -> None:
    """out = function(gate) * up, block by block.

    The gate has two copies, as it is read at two times, while one port serves one read a cycle.
    """
    for block in range(gate.layout.blocks):
        chain = work.chain(f"ffn: {function}")
        first, again = (work.rows_of(copy, block) for copy in gate.copies)
        share = _share(chain, first, function, work.rows)
        early = share.cycle - work.spec.d_func("vxm.alu")
        other = work.rows_of(up.copies[0], block)
        product = chain.vxm("mul", again, other, loops=run(work.rows), at=early)
        deliver(chain, chain.vxm("mul", share, product), targets(work, out.copies, block))
        work.plan.place(chain)


def clamped(work: Work, gate: Laid, up: Laid, slope: float, limit: float, out: Laid) -> None:
    """out = (u + 1) * g * sigmoid(slope * g), with g = min(gate, limit), u = up within +-limit.

    The gate has two copies, as in `gated`.
    """
    step = work.spec.d_func("vxm.alu")
    for block in range(gate.layout.blocks):
        chain, loops = work.chain("ffn: clamped"), run(work.rows)
        first, again = (work.rows_of(copy, block) for copy in gate.copies)
        minus = chain.vxm("mul", chain.vxm("min", first, limit, loops=loops), -slope)
        share = chain.vxm("recip", chain.vxm("add", chain.vxm("exp", minus), 1.0))
        other, early = work.rows_of(up.copies[0], block), share.cycle - step
        more = chain.vxm("min", other, limit, loops=loops, at=early - 3 * step)
        more = chain.vxm("add", chain.vxm("max", more, -limit), 1.0)
        own = chain.vxm("min", again, limit, loops=loops, at=early - step)
        product = chain.vxm("mul", own, more)
        deliver(chain, chain.vxm("mul", share, product), targets(work, out.copies, block))
        work.plan.place(chain)


def activation(work: Work, x: Laid, function: str, out: Laid, peaks: Peaks | None = None) -> None:
    """out = function(x), of copies of x: block by block, of each array's half in turn.

    x has two copies, as it is read at two times. Peaks of the result may be noted, of each half for
    itself. GELU is x (1 + tanh) / 2 here, which takes fewer ALUs where there is no gate; rows that
    become int8 are not halved, the factors that they meet are.
    """
    sides = enumerate(halves(x.layout.blocks))
    order = sorted((n, turn, block) for turn, half in sides for n, block in enumerate(half))
    for number, turn, block in order:
        chain = work.chain(f"ffn: {function}")
        first, again = (work.rows_of(copy, block) for copy in x.copies)
        if function == "silu":
            value = chain.vxm("mul", _share(chain, first, function, work.rows), again)
        else:
            share = chain.vxm("tanh", _tanh_argument(chain, first, work.rows))
            value = chain.vxm("mul", chain.vxm("add", share, 1.0), again)
            value = chain.vxm("mul", value, HALF) if out.inverse is None else value
        deliver(chain, value, targets(work, out.copies, block), out.inverse_of(block))
        if peaks:
            peaks.note(chain, value, number, turn)
        work.plan.place(chain)


def left_to_steps(function: str) -> float:
    """What `activation` leaves to the factors that make its rows int8."""
    return 1.0 if function == "silu" else HALF


def _share(chain: Chain, x: Rows, function: str, count: int) -> Flow:
    """1 / (1 + exp(-x)), or for GELU with x + 0.044715 x^3 doubled and scaled."""
    if function == "silu":
        minus = chain.vxm("mul", x, -1.0, loops=run(count))
    else:
        minus = _minus_gelu(chain, chain.arrive(x, chain.spec.vxm_position, 0, run(count)))
    return chain.vxm("recip", chain.vxm("add", chain.vxm("exp", minus), 1.0))


def _minus_gelu(chain: Chain, value: Flow) -> Flow:
    """x * (CUBIC x^2 + LINEAR); copies of x wait in ALUs until the bracket is there."""
    square = chain.vxm("mul", chain.vxm("mul", value, value), CUBIC)
    bracket = chain.vxm("add", square, LINEAR)
    for _ in range(3):
        value = chain.vxm("copy", value)
    return chain.vxm("mul", value, bracket)


def _tanh_argument(chain: Chain, x: Rows, count: int) -> Flow:
    """sqrt(2 / pi) (x + 0.044715 x^3), as a cubic factor times x times what is left of it."""
    value = chain.arrive(x, chain.spec.vxm_position, 0, run(count))
    scaled = chain.vxm("copy", chain.vxm("mul", value, TANH_CUBIC))
    square = chain.vxm("add", chain.vxm("mul", value, value), TANH_SQUARE)
    return chain.vxm("mul", scaled, square)
