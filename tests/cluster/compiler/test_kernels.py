"""Every op of the registry: its kernel on a chip says what its meaning says, whatever the shapes.

With int8 weights bit for bit; with fp16 within what the types of its copies and the order of sums
allow. Ops come from the registry: one without a kernel, a reason or a section to stand in fails.
"""

import importlib
import pkgutil
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

import cluster.model.graph
from chip.kernels.integers16 import LOW_LEVELS
from chip.kernels.lanes import reducible
from chip.kernels.norm import MANY_BLOCKS
from chip.spec import GROQCHIP1
from cluster.compiler.fused import left_to_another
from cluster.compiler.kernels import KERNELS
from cluster.compiler.rank import ranks_of
from cluster.compiler.stage import Stage
from cluster.compiler.stage_shape import StageShape, compiled
from cluster.model.architectures.deepseek_v3 import Latent, Router, add_attention
from cluster.model.architectures.deepseek_v3 import mixture as grouped_mixture
from cluster.model.graph.builder import Builder
from cluster.model.graph.experts import ExpertLinear
from cluster.model.graph.graph import Section
from cluster.model.graph.int8 import Int8Rows, Int16Rows
from cluster.model.graph.op import OPS
from cluster.model.graph.rotary import RotaryTable
from cluster.model.graph.stand_in import Experts
from cluster.model.graph.values import Dim
from cluster.model.mixture import clamped_mixture, mixture
from tests.cluster.compiler.op_rig import LANES, Launch, OpRig, Result
from tests.cluster.model.graphs import EPS, Shape, layer

for module in pkgutil.iter_modules(cluster.model.graph.__path__):
    importlib.import_module(f"{cluster.model.graph.__name__}.{module.name}")

NO_KERNEL = {"all_reduce": "chips exchange its summands: cluster.compiler.stage, test_allreduce"}
NO_KERNEL |= dict.fromkeys(
    ("convolution", "maximum", "pixel_mean"),
    "ResNet's are placed whole: tests/cluster/test_resnet.py",
)
# Ops whose kernels have a property test of their own, as they take a whole sequence.
OTHER_TESTS = {"pool": "tests/cluster/test_encoder_sections.py"}
KINDS = sorted(cls.kind for cls in KERNELS if cls.kind not in OTHER_TESTS)
INT8_ONLY = {"quantise"}
ROUTERS = {"route", "grouped_route"}
HALF_ULP = {"f16": 2.0**-11, "f32": 2.0**-24}  # of a copy's type, relative
# Beside the rounding to a copy's type, of the largest magnitude: fp32 sums in another order; in
# attention probabilities and their sum are of fp16 powers.
ORDER, POWERS = 2e-6, 2e-3

# Without shrinking, which would take minutes: an example that fails prints all it is made of.
EXAMPLES = settings(
    max_examples=5,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


# --- sections -------------------------------------------------------------------------------
@dataclass(frozen=True, repr=False)
class Drawn:
    """A section, and what it was made of, which is shorter."""

    what: object
    section: Section

    def __repr__(self) -> str:
        return f"Drawn({self.what})"


@st.composite
def attention_blocks(draw, weights: str, **fixed) -> Drawn:
    """A layer with a small FFN: products side by side, norms of heads, rotary, attention."""
    group = 8 if weights == "fp16" else 16
    kv_heads, times = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    shape = Shape(
        hidden=draw(st.integers(8, 700)),
        heads=kv_heads * times,
        kv_heads=kv_heads,
        head_dim=group * draw(st.integers(1, 128 // group)),
        ffn=8,
        bias=draw(st.booleans()),
        qk_norm=draw(st.sampled_from(["", "head", "all"])),
        norms_after=draw(st.booleans()),
        window=draw(st.none() | st.integers(1, 700)),
        cap=draw(st.none() | st.floats(1, 50)),
        sinks=draw(st.sampled_from(["", "sinks"])),
    )
    assume(shape.qk_norm != "head" or reducible(shape.head_dim))
    shape = replace(shape, **fixed)
    return Drawn(shape, layer(shape))


@st.composite
def ffn_blocks(draw, _weights: str, gated: bool = True) -> Drawn:
    """A norm, one or two products side by side, an activation, a product, two residuals."""
    hidden, ffn = Dim("hidden", draw(st.integers(8, 700))), Dim("ffn", draw(st.integers(8, 1100)))
    bias, after = draw(st.booleans()), draw(st.booleans())
    function, b = draw(st.sampled_from(["silu", "gelu"])), Builder(hidden)
    h = b.norm(b.x, "norm", EPS)
    up = b.linear(h, "w_up", ffn, bias=bias)
    if gated:
        inner = b.gate(b.linear(h, "w_gate", ffn, bias=bias), up, function)
    else:
        inner = b.activation(up, function)
    y = b.linear(inner, "w_down", hidden, bias=bias)
    x = b.add(b.x, b.norm(y, "norm_after", EPS) if after else y)
    b.add(x, b.linear(b.norm(x, "last_norm", EPS), "w_last", hidden))
    return Drawn((hidden.size, ffn.size, gated, function, bias, after), b.section())


@st.composite
def heads_behind_a_norm(draw, _weights: str) -> Drawn:
    """What ends a model: its result leaves the chip."""
    b, vocab = Builder(Dim("hidden", draw(st.integers(8, 700)))), draw(st.integers(8, 1500))
    logits, cap = b.linear(b.norm(b.x, "norm", EPS), "head", Dim("vocab", vocab)), None
    if draw(st.booleans()):
        b.soft_cap(logits, cap := draw(st.floats(1, 50)))
    return Drawn((b.x.dims, vocab, cap), b.section())


@st.composite
def mixtures(draw, _weights: str) -> Drawn:
    """A norm, a router, experts with a gate, a residual."""
    hidden, ffn = draw(st.integers(8, 700)), draw(st.integers(8, 700))
    count = draw(st.integers(1, 11))  # a matrix of 12 may be more than 16 slices of the chip hold
    experts, b = Experts(count, draw(st.integers(1, min(count, 4))), ffn), Builder(Dim("h", hidden))
    h = b.norm(b.x, "norm", EPS)
    kind, slope, limit = draw(st.sampled_from(["silu", "gelu", "clamped"])), 1.702, 0.5
    if kind == "clamped":
        b.add(b.x, clamped_mixture(b, h, experts, slope, limit, b.x.dims[0]))
    else:
        b.add(b.x, mixture(b, h, experts, kind, b.x.dims[0]))
    return Drawn((hidden, experts, kind), b.section())


@st.composite
def clamped_gates(draw, weights: str) -> Drawn:
    """Such mixtures with a clamped gate, and biases."""
    return draw(mixtures(weights).filter(lambda drawn: drawn.what[2] == "clamped"))


@st.composite
def spread_mixtures(draw, weights: str) -> Drawn:
    """Such mixtures with experts over two parts of a group."""
    drawn = draw(mixtures(weights).filter(lambda drawn: drawn.what[1].count % 2 == 0))
    ops = (replace(o, ep=2) if isinstance(o, ExpertLinear) else o for o in drawn.section.ops)
    return Drawn(("ep 2", drawn.what), Section(drawn.section.x, tuple(ops)))


@st.composite
def latent_blocks(draw, _weights: str) -> Drawn:
    """Latent attention, with latents of one or more rows and heads of any size."""
    hidden, heads = Dim("hidden", draw(st.integers(8, 400))), draw(st.integers(1, 6))
    plain, values = draw(st.integers(1, 200)), draw(st.integers(1, 200))
    turned, kv_rank = 2 * draw(st.integers(1, 40)), draw(st.integers(1, 700))
    latent = Latent(draw(st.sampled_from([0, 40])), kv_rank, plain, turned, values, plain**-0.5)
    table, b = RotaryTable(1e4, turned), Builder(hidden)
    add_attention(b, Dim("heads", heads), EPS, table, latent)
    return Drawn((hidden.size, heads, latent), b.section())


@st.composite
def grouped_mixtures(draw, _weights: str) -> Drawn:
    """A mixture whose router goes by groups, beside an expert for all."""
    groups, size = draw(st.sampled_from([(1, 7), (1, 330), (4, 2), (2, 32), (3, 105), (5, 12)]))
    kept = draw(st.integers(1, groups))
    room = 5600 // (groups * size)  # the chip of these tests has little
    hidden, ffn = Dim("hidden", draw(st.integers(8, min(400, room)))), draw(st.integers(1, 48))
    chosen = draw(st.integers(1, min(kept * size, 5)))
    experts = Experts(groups * size, chosen, ffn, draw(st.sampled_from([0, ffn])))
    router, b = Router(groups, kept, draw(st.booleans()), 2.5), Builder(hidden)
    b.add(b.x, grouped_mixture(b, b.norm(b.x, "norm", EPS), experts, router, "silu"))
    return Drawn((hidden.size, experts, router), b.section())


def any_of(*makers):
    return lambda weights: st.one_of(*(make(weights) for make in makers))


SECTIONS = {
    "activation": lambda weights: ffn_blocks(weights, gated=False),
    "add": any_of(attention_blocks, ffn_blocks, grouped_mixtures),
    "attention": attention_blocks,
    "clamped_gate": clamped_gates,
    "expert_linear": any_of(mixtures, spread_mixtures, grouped_mixtures),
    "gate": any_of(ffn_blocks, mixtures),
    "grouped_route": grouped_mixtures,
    "head_linear": latent_blocks,
    "latent_attention": latent_blocks,
    "linear": any_of(attention_blocks, ffn_blocks, heads_behind_a_norm),
    "norm": any_of(attention_blocks, ffn_blocks),
    "norm_by_sum": lambda weights: attention_blocks(weights, qk_norm="all"),
    "own_experts": spread_mixtures,
    "quantise": any_of(attention_blocks, ffn_blocks),
    "rotary": any_of(attention_blocks, latent_blocks),
    "route": mixtures,
    "soft_cap": heads_behind_a_norm,
    "square_sum": lambda weights: attention_blocks(weights, qk_norm="all"),
}


@st.composite
def launches(draw) -> Launch:
    """A token anywhere, or a chunk from a multiple of its rows on, which is inside a block."""
    chunk = draw(st.sampled_from([8, 16, 32]))
    if draw(st.booleans()):
        return Launch(1, draw(st.integers(0, 3 * LANES - 1)), chunk)
    rows = draw(st.sampled_from([n for n in (8, 16, 32) if n <= chunk]))
    return Launch(rows, rows * draw(st.integers(0, 3 * LANES // rows - 1)), chunk)


@st.composite
def cases(draw, kind: str, weights: str) -> tuple[Drawn, int, int, Launch, int]:
    """A section with such an op, the width of the group, a rank, a launch and a seed."""
    drawn = draw(SECTIONS[kind](weights))
    ops = drawn.section.ops
    cut = [
        dim.size for op in ops for dim in op.out.dims if dim.name in ("heads", "ffn", "expert_ffn")
    ]
    tp, launch = draw(st.integers(1, min([3, *cut]))), draw(launches())
    if any(isinstance(op, ExpertLinear) and op.ep for op in ops):
        tp = draw(st.sampled_from([2, 4] if min(cut, default=8) >= 2 else [2]))
    sharded = compiled(drawn.section, tp, weights).section.ops
    assume({op.kind for op in sharded} <= {*KINDS, *NO_KERNEL})  # said by the first test
    if launch.rows > 1 and not any(op.mixes_rows for op in ops):
        most = 3 if any(op.kind in ROUTERS for op in ops) else launch.chunk  # one row at a time
        launch = replace(launch, rows=draw(st.integers(1, most)), start=0)
    return drawn, tp, draw(st.integers(0, tp - 1)), launch, draw(st.integers(0, 9))


def results(kind: str, weights: str, case: tuple[Drawn, int, int, Launch, int]):
    """What a rank's ops of that kind leave on a chip, and what they mean."""
    drawn, tp, rank, launch, seed = case
    rig = OpRig(drawn.section, tp, rank, weights, launch, seed)
    section = rig.at.section
    ops = [op for op in rig.ops if op.kind == kind and not left_to_another(section, op)]
    return [rig.run(op) for op in ops]


# --- the claims -----------------------------------------------------------------------------
@pytest.mark.parametrize("kind", sorted(OPS))
def test_an_op_has_a_kernel_or_a_reason_and_a_section_to_stand_in(kind):
    has_kernel = kind in {cls.kind for cls in KERNELS}
    assert has_kernel != (kind in NO_KERNEL), f"{kind} has neither a kernel nor a reason"
    tested = kind in SECTIONS or kind in OTHER_TESTS or kind in NO_KERNEL
    assert tested, f"no section is drawn that has a {kind}"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in INT8_ONLY])
def test_an_fp16_kernel_computes_what_its_op_means(kind):
    @given(cases(kind, "fp16"))
    @EXAMPLES
    def check(case) -> None:
        for result in results(kind, "fp16", case):
            near(result)

    check()


@pytest.mark.parametrize("kind", KINDS)
def test_an_int8_kernel_computes_what_its_op_means_bit_for_bit(kind):
    @given(cases(kind, "int8"))
    @EXAMPLES
    def check(case) -> None:
        for result in results(kind, "int8", case):
            equal(result)

    check()


@pytest.mark.parametrize("kind", ["expert_linear", "head_linear", "linear", "norm", "quantise"])
def test_a_kernel_of_16_bit_rows_computes_what_its_op_means_bit_for_bit(kind):
    @given(cases(kind, "w8a16"))
    @EXAMPLES
    def check(case) -> None:
        for result in results(kind, "w8a16", case):
            equal(result)

    check()


@pytest.mark.parametrize("left", range(4))
def test_squares_of_many_blocks_are_added_up_in_turns_of_four(left):
    """Of one token; some blocks may be left over. Each norm is onto a residual, or before fp16."""
    b, few = Builder(Dim("hidden", (MANY_BLOCKS + left) * LANES - 24)), Dim("ffn", 8)
    x = b.x
    for name in ("attn", "ffn"):
        y = b.linear(b.norm(x, name, EPS), f"{name}.in", few)
        y = b.linear(y, f"{name}.out", b.x.dims[0])
        x = b.add(x, b.norm(y, f"{name}.after", EPS))
    rig = OpRig(b.section(), 1, 0, "fp16", Launch(1, 0, 8))
    norms = [op for op in rig.ops if op.kind == "norm"]
    for result in map(rig.run, norms):
        near(result)
    names = [label for label in labels(rig) if label.startswith("norm")]
    assert names == ["norm: squares", "norm: scale"] * len(norms)


def labels(rig: OpRig) -> list[str]:
    """Of all chains of a token's layer, in order."""
    steps = rig.stage.steps(1, 1, None)
    return [label for step in steps for part, _ in step.parts for label, *_ in part.events]


def test_scales_of_more_experts_than_a_bank_has_words_lie_in_both():
    hidden, experts = Dim("hidden", 641), Experts(800, 3, 16, 0)
    b = Builder(hidden)
    b.add(b.x, grouped_mixture(b, b.norm(b.x, "norm", EPS), experts, Router(1, 1, True, 1), "silu"))
    rig = OpRig(b.section(), 1, 0, "int8", Launch(2, 0, 2))
    scales = rig.stage.memory["layer.expert_down0.scale"]
    assert scales.any_bank and scales.region.words == 2 * 800 > rig.stage.spec.bank_words
    rig.chip.constants = tuple(rig.stage.memory.constants())
    for op in rig.ops:
        if isinstance(op, ExpertLinear):
            equal(rig.run(op))


def test_a_window_costs_its_blocks_however_long_the_context_is():
    """A launch at 4,160 tokens takes the cycles of one at 640, and holds two blocks of caches."""
    cycles, words = {}, {}
    for window in (None, 8):
        section = compiled(layer(Shape(window=window)), 1, "fp16")
        shape = StageShape((section,), None, ranks_of([section], LANES), 4160, 8)
        stage = Stage(GROQCHIP1, shape)
        words[window] = stage.memory["layer.K0"].region.words
        for blocks in (2, 13):
            steps = stage.alone(1, blocks, lambda _, address: address)
            cycles[window, blocks] = sum(step.cycles for step in steps)
    assert cycles[8, 13] == cycles[8, 2] < cycles[None, 13]
    assert words == {None: 13 * 40 + 1, 8: 2 * 40 + 1}


def near(result: Result) -> None:
    """Every copy is the expected one, to the rounding of its type and the order of sums."""
    expected = np.asarray(result.expected).reshape(len(result.copies[0][1]), -1)
    slack = POWERS if result.op.mixes_rows else ORDER
    for dtype, values in result.copies:
        limit = slack * np.abs(expected).max()
        if result.steps is not None:
            values = values * result.steps
        np.testing.assert_allclose(values, expected, 1.01 * HALF_ULP[dtype], limit + 2.0**-25)


def equal(result: Result) -> None:
    """Every copy has the bits of the expected one in its type."""
    expected = result.expected
    if isinstance(expected, Int8Rows):
        assert np.array_equal(result.steps, expected.steps)
        expected = expected.integers
    elif isinstance(expected, Int16Rows):
        assert np.array_equal(result.steps, expected.steps)
        expected = LOW_LEVELS * expected.high + expected.low
    expected = expected.reshape(len(expected), -1)
    names = {"f16": np.float16, "f32": np.float32, "i8": np.int8, "i16": np.int32}
    for dtype, values in result.copies:
        assert np.array_equal(values, expected.astype(names[dtype])), dtype
