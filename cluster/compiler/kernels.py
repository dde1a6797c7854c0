"""The kernel of each op: how it is placed, with its values where the memory map puts them."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, zip_longest
from typing import Any

from chip.kernels.add import add, cast
from chip.kernels.attention import Projected, Scores, attention
from chip.kernels.attention_to_all import Placed, attention_to_all
from chip.kernels.experts import Choice, Experts, expert_linear, expert_rows
from chip.kernels.gate import activation, clamped, gated
from chip.kernels.grouped_route import Groups, grouped_gates, grouped_route
from chip.kernels.latent_attention import Compressed, latent_attention
from chip.kernels.layer_norm import LayerNorm, Sum, layer_norm
from chip.kernels.layout import halves
from chip.kernels.linear import Finish, OnTheWay, linear, linear_of_both
from chip.kernels.norm import (
    RmsNorm,
    head_scales,
    norm_by_sum,
    rms_norm,
    rms_norm_added,
    square_sum,
)
from chip.kernels.pool import pool
from chip.kernels.quantise import FEW_BLOCKS, Peaks, Rounding, note_all, quantise
from chip.kernels.ranks import on_the_way
from chip.kernels.rotary import rotary, turned
from chip.kernels.route import all_experts, all_gates, gates, own_experts, own_gates, route
from chip.kernels.soft_cap import capped
from chip.kernels.window import Window
from chip.kernels.work import Laid, Work
from chip.schedule import Chain
from cluster.compiler.assign import Assigned
from cluster.compiler.fused import (
    added,
    left_to_another,
    normed,
    raced_before,
    raced_behind,
    rounded_before,
    summed,
    turned_before,
    turned_behind,
    with_one_x,
)
from cluster.compiler.layouts import to_all
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
from cluster.model.graph.values import Value

Kernel = Callable[[Work, Assigned, Any], None]
KERNELS: dict[type[Op], Kernel] = {}
EARLY: dict[type[Op], Kernel] = {}  # of what an op can do before ops that it is behind
LATE: dict[type[Op], Kernel] = {}  # of what is wanted of an op behind other ops only


def kernel(cls: type[Op], known: dict[type[Op], Kernel] = KERNELS) -> Callable[[Kernel], Kernel]:
    """Decorator: the kernel of an op."""

    def note(place: Kernel) -> Kernel:
        known[cls] = place
        return place

    return note


def in_turn(ops: Sequence[Op]) -> Iterator[tuple[Op, Kernel | None]]:
    """In which order ops are placed, some of them part by part.

    Rows of experts go before all matrices that meet one x, and gates behind them, as they are
    wanted when products are there: so the long reads of matrices neither wait for what is short nor
    have it wait for them.
    """
    rows, late = [op for op in ops if isinstance(op, ExpertLinear)], list[Op]()
    for op in ops:
        adds = isinstance(op, ExpertLinear) and op.adds
        if adds:
            yield from ((one, LATE[type(one)]) for one in late)
            late = []
        if op in rows:
            some = [one for one in rows if one is op or not (adds or one.adds)]
            yield from ((one, EARLY[type(one)]) for one in some)
            rows = [one for one in rows if one not in some]
        yield op, KERNELS.get(type(op))
        late += [op] if type(op) in LATE else []
    yield from ((one, LATE[type(one)]) for one in late)


def place(work: Work, assigned: Assigned, op: Op, how: Kernel | None = None) -> None:
    """Place the chains of an op on the schedule, or those of one of its kernels.

    Before them go roundings of what it reads. They are placed part by part of the tokens, but where
    these meet.
    """
    if left_to_another(assigned.section, op):
        return
    for part in work.parts:
        for value in assigned.rounded(op):
            cast(part, assigned.stream(part, value), assigned.copies_of(part, value))
    for part in (work,) if isinstance(op, Attention | Pool) else work.parts:
        (how or KERNELS[type(op)])(part, assigned, op)


@kernel(Linear)
def _linear(work: Work, at: Assigned, op: Linear) -> None:
    turn = turned_behind(at.section, op)
    x, out = at.read(work, op, op.x), at.made(work, op.out if turn is None else turn.out)
    way: OnTheWay | None = None if turn is None else partial(turned, work, turn.table.name)
    router, copies = raced_behind(at.section, op), out.copies
    if router is not None:
        way = on_the_way(work, router.scores.width, router.out.dims[1].size)
        copies = () if way else copies
    finish = Finish(at.steps(work, op.x), op.bias is not None, way, router is not None)
    for matrix, rows, low in zip(at.matrices(op), x.copies, x.halves, strict=True):
        linear(work, matrix, rows, copies, finish, low)
    if shared := at.shared_matrices(op):
        linear_of_both(work, shared, x.copies, copies, finish)


@kernel(HeadLinear)
def _head_linear(work: Work, at: Assigned, op: HeadLinear) -> None:
    x, out = at.read(work, op, op.x), at.made(work, op.out)
    for matrix, rows, low in zip(at.matrices(op), x.copies, x.halves, strict=True):
        linear(work, matrix, rows, out.copies, Finish(at.steps(work, op.x)), low)


@kernel(Norm)
def _norm(work: Work, at: Assigned, op: Norm) -> None:
    if op.bias is not None:
        layer = LayerNorm(op.weight.name, op.bias.name, op.weight.shape[0], op.eps)
        peaks = _peaks(work, at, op.out)
        layer_norm(work, layer, _summands(work, at, op), at.made(work, op.out), peaks)
        return
    x, after = at.read(work, op, op.x), added(at.section, op)
    if after is not None:
        rms_norm_added(work, _rms(op), x, at.read(work, after, after.x), at.made(work, after.out))
    elif turned_before(at.section, op):
        head_scales(work, _rms(op), x)
    else:
        rms_norm(work, _rms(op), x, at.made(work, op.out), at.steps(work, op.out))


def _rms(op: Norm) -> RmsNorm:
    heads = op.x.dims[-1].size if op.over == ("head_dim",) else 0
    return RmsNorm(op.weight.name, op.weight.shape[0], op.eps, heads)


def _summands(work: Work, at: Assigned, op: Norm) -> Laid | Sum:
    """What a LayerNorm reads: a sum that nobody has made yet, or rows."""
    before = summed(at.section, op)
    if before is None:
        return at.read(work, op, op.x)
    x, y = (at.read(work, before, value) for value in before.inputs)
    return Sum(x, y, at.made(work, before.out))


@kernel(SquareSum)
def _square_sum(work: Work, at: Assigned, op: SquareSum) -> None:
    square_sum(work, f"{op.out.name}.counted", at.read(work, op, op.x), at.made(work, op.out))


@kernel(NormBySum)
def _norm_by_sum(work: Work, at: Assigned, op: NormBySum) -> None:
    norm = RmsNorm(op.weight.name, op.weight.shape[0], op.eps)
    x, total = (at.read(work, op, value) for value in op.inputs)
    norm_by_sum(work, norm, x, total, at.made(work, op.out))


@kernel(Rotary)
def _rotary(work: Work, at: Assigned, op: Rotary) -> None:
    side, out, before = at.turned_at(op), at.made(work, op.out), normed(at.section, op)
    x = at.read(work, before or op, (before or op).x)
    rotary(work, x, op.table.name, side, out, _rms(before) if before else None)


@kernel(Attention)
def _attention(work: Work, at: Assigned, op: Attention) -> None:
    assert at.rank.heads is not None
    if to_all(op, at.rank):
        parts = tuple(
            Placed(part, _projected(part, at, op), at.made(part, op.out), _peaks(part, at, op.out))
            for part in work.parts
        )
        attention_to_all(work, at.rank.heads, op.scale, parts)
        return
    sinks = "" if op.sinks is None else op.sinks.name
    scores = Scores(op.scale, op.cap, Window(op.window), sinks)
    rounding, out = _rounding(work, at, op), at.made(work, op.out)
    attention(work, at.rank.heads, scores, _projected(work, at, op), out, rounding)


def _projected(work: Work, at: Assigned, op: Attention) -> Projected:
    return Projected(*(at.read(work, op, value) for value in op.inputs))


@kernel(LatentAttention)
def _latent_attention(work: Work, at: Assigned, op: LatentAttention) -> None:
    x = Compressed(*(at.read(work, op, value) for value in op.inputs))
    assert at.rank.heads is not None
    latent_attention(work, at.rank.heads, Scores(op.scale), x, at.made(work, op.out))


@kernel(Pool)
def _pool(work: Work, at: Assigned, op: Pool) -> None:
    pool(work, [(part, at.read(part, op, op.x)) for part in work.parts], op.eps)


@kernel(Gate)
def _gate(work: Work, at: Assigned, op: Gate) -> None:
    gate, up = (at.read(work, op, value) for value in op.inputs)
    gated(work, gate, up, op.function, at.made(work, op.out))


@kernel(ClampedGate)
def _clamped_gate(work: Work, at: Assigned, op: ClampedGate) -> None:
    gate, up = (at.read(work, op, value) for value in op.inputs)
    clamped(work, gate, up, op.slope, op.limit, at.made(work, op.out))


@kernel(Activation)
def _activation(work: Work, at: Assigned, op: Activation) -> None:
    out, peaks = at.made(work, op.out), _peaks(work, at, op.out)
    activation(work, at.read(work, op, op.x), op.function, out, peaks)


@kernel(Route)
def _route(work: Work, at: Assigned, op: Route) -> None:
    scores, out = at.read(work, op, op.scores), at.made(work, op.out)
    is_raced = raced_before(at.section, op) is not None
    route(work, scores, op.scores.width, op.out.dims[1].size, out, is_raced)


@kernel(Route, LATE)
def _route_gates(work: Work, at: Assigned, op: Route) -> None:
    gates(work, op.scores.width, op.out.dims[1].size, at.made(work, op.out))


@kernel(OwnExperts)
def _own_experts(work: Work, at: Assigned, op: OwnExperts) -> None:
    choice, out, held = at.read(work, op, op.choice), at.made(work, op.out), at.held_experts
    first, chosen = f"{op.out.name}.first", op.choice.dims[1].size
    if op.runs_all:
        all_experts(work, first, held, chosen, choice, out)
    else:
        own_experts(work, first, held, chosen, choice, out)


@kernel(OwnExperts, LATE)
def _own_gates(work: Work, at: Assigned, op: OwnExperts) -> None:
    choice, out, held = at.read(work, op, op.choice), at.made(work, op.out), at.held_experts
    (all_gates if op.runs_all else own_gates)(work, held, op.choice.dims[1].size, choice, out)


@kernel(GroupedRoute)
def _grouped_route(work: Work, at: Assigned, op: GroupedRoute) -> None:
    _by_groups(grouped_route, work, at, op)


@kernel(GroupedRoute, LATE)
def _grouped_gates(work: Work, at: Assigned, op: GroupedRoute) -> None:
    _by_groups(grouped_gates, work, at, op)


def _by_groups(place: Callable[..., None], work: Work, at: Assigned, op: GroupedRoute) -> None:
    scores, out = at.read(work, op, op.scores), at.made(work, op.out)
    groups = Groups(op.bias.name, op.experts // op.groups, op.kept, op.normed, op.scale)
    place(work, groups, scores, op.experts, op.out.dims[1].size, out)


@kernel(ExpertLinear, EARLY)
def _expert_rows(work: Work, at: Assigned, op: ExpertLinear) -> None:
    if work.tokens.start:  # they are there for all tokens from the first one on
        return
    numbers = work.rows_of(at.read(work, op, op.choice).copies[0], 0)
    for matrix in at.matrices(op):
        experts = Experts(matrix, op.held, op.chosen, op.adds, op.bias is not None)
        expert_rows(work, experts, numbers, bool(at.steps(work, op.x)))


@kernel(ExpertLinear)
def _expert_linear(work: Work, at: Assigned, op: ExpertLinear) -> None:
    """All products with one x: an expert of each in turn, as both arrays are to be at work.

    Where experts are added up it is one matrix after the other, whose short loads follow closely.
    """
    ops = with_one_x(at.section, op)
    if op != ops[0]:
        return
    every = [chains for one in ops for chains in _of_experts(work, at, one)]
    turns = chain.from_iterable(every) if op.adds else chain.from_iterable(zip_longest(*every))
    for placed in chain.from_iterable(filter(None, turns)):
        work.plan.place(placed)


def _of_experts(work: Work, at: Assigned, op: ExpertLinear) -> Iterator[Iterator[list[Chain]]]:
    """The chains of each matrix of a product."""
    x, choice = (at.read(work, op, value) for value in op.inputs)
    out, steps = at.made(work, op.out), at.steps(work, op.x)
    matrices = at.matrices(op)
    _, *numbers = (work.rows_of(copy, 0) for copy in choice.copies)
    gates = (work.rows_of(copy, op.chosen) for copy in choice.copies[1 + len(matrices) :])
    choices = zip_longest(numbers[: len(matrices)], gates)
    for matrix, rows, low, mine in zip(matrices, x.copies, x.halves, choices, strict=True):
        experts = Experts(matrix, op.held, op.chosen, op.adds, op.bias is not None, low)
        step = steps[1 - matrix.side] if steps else None  # its own side is full of what it meets
        yield expert_linear(work, experts, rows, Choice(*mine), out.copies, step)


@kernel(SoftCap)
def _soft_cap(work: Work, at: Assigned, op: SoftCap) -> None:
    capped(work, at.read(work, op, op.x), op.cap, at.made(work, op.out))


@kernel(Add)
def _add(work: Work, at: Assigned, op: Add) -> None:
    x, y = (at.read(work, op, value) for value in op.inputs)
    makers = (one for one in at.section.ops if one.out == op.x)
    singly = any(isinstance(one, ExpertLinear) and one.adds for one in makers)
    add(work, x, y, at.made(work, op.out), singly=singly)


def _rounding(work: Work, at: Assigned, op: Op) -> Rounding | None:
    """What makes an op's result integers as it comes, where these are few rows of one token."""
    after = next((one for one in at.section.ops if rounded_before(at.section, one) == op), None)
    if after is None or not _comes_rounded(work, at, op):
        return None
    assert isinstance(after, Quantise)
    x, out = at.read(work, after, after.x), at.made(work, after.out)
    return Rounding(work, after.out.name, x, out, at.steps(work, after.out))


def _comes_rounded(work: Work, at: Assigned, op: Op) -> bool:
    return work.rows == work.most_blocks == 1 and at.layout(op.out).blocks <= FEW_BLOCKS


@kernel(Quantise)
def _quantise(work: Work, at: Assigned, op: Quantise) -> None:
    if op.steps is not None:  # who makes x makes these with it, and reads this
        at.inverse(work, op.x)
        return
    before = rounded_before(at.section, op)
    if before is not None and _comes_rounded(work, at, before):
        return
    steps = at.steps(work, op.out)
    x, out, noted = at.read(work, op, op.x), at.made(work, op.out), _peaks(work, at, op.x)
    quantise(work, op.out.name, x, out, steps, noted)


def carries_peaks(at: Assigned) -> bool:
    """Whether a section finds peaks of x, to be made int8 in parts, and leaves such to the next."""
    last = at.section.ops[-1]
    if not at.apart or at.weights != "i8" or any(copy.dtype == "i8" for copy in at.carried):
        return False
    return isinstance(last, Norm) and last.bias is not None


def carried_peaks(work: Work, at: Assigned) -> Peaks | None:
    """Peaks of the residual stream, which the norm at the end of a section leaves to the next."""
    count = at.layout(at.section.x).blocks
    return Peaks(work, at.section.x.name, (count,)) if work.whole else None


def enter(work: Work, at: Assigned) -> None:
    """Make what a section finds of x beside its rows, where no section has left it."""
    x = at.section.x
    for part in work.parts:
        cast(part, at.stream(part, x), at.copies_of(part, x))
        if carries_peaks(at) and (noted := carried_peaks(part, at)):
            note_all(part, at.stream(part, x), noted)


def _peaks(work: Work, at: Assigned, value: Value) -> Peaks | None:
    """Peaks of a value that are noted while it is made, in parts, as it is made int8 next."""
    if carries_peaks(at) and value in (at.section.x, at.section.out):
        return carried_peaks(work, at)
    makers = [op for op in at.section.ops if op.out == value]
    readers = at.section.consumers(value)
    finds = (isinstance(op, Quantise) and op.steps is None for op in readers)
    if not (work.whole and makers and any(finds)):
        return None
    blocks = at.layout(value).blocks
    turns = halves(blocks) if isinstance(makers[0], Activation) else (range(blocks),)
    return Peaks(work, value.name, tuple(map(len, turns)))
