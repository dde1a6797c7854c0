"""Each kernel against NumPy, on random data, through wire format, linker and chip."""

import math

import numpy as np
import pytest

from chip.kernels import attention, layer, pointwise
from chip.kernels.attention import SMALLEST_SUM, Heads
from chip.kernels.matmul import Pass, matmul
from chip.kernels.shape import Blocks, DecoderShape, blocks
from chip.schedule import Buffer, Chain, Rows
from chip.spec import EAST, GROQCHIP1, WEST
from cluster.compiler.stage import Stage
from tests.chip.kernel_rig import Array, KernelRig, fp16, normal

SIDES = (EAST, WEST)
LANES = 320
MASKED = np.float32(-30000)
HALF_ULP = 2.0**-11  # of fp16, relative
TOKENS = pytest.mark.parametrize("tokens", [1, 32])
# Query heads, KV heads and lanes of a head: all heads alike, grouped, and two rows of KV heads.
HEADS = {
    "4 heads of 16": Heads((0, 1, 2, 3), 4, 16),
    "9 heads of 64 on 3": Heads((0, 0, 0, 1, 1, 1, 2, 2, 2), 3, 64),
    "6 heads of 64 on 6, two rows": Heads((0, 1, 2, 3, 4, 5), 6, 64),
    "4 heads of 128 on 3, unevenly": Heads((0, 0, 1, 2), 3, 128),
}


def by_block(values: Array, cut: Blocks) -> Array:
    """[tokens, total] as rows (block, token)."""
    tokens = len(values)
    padded = np.zeros((tokens, cut.count * cut.width), values.dtype)
    padded[:, : cut.total] = values
    return padded.reshape(tokens, cut.count, cut.width).swapaxes(0, 1).reshape(-1, cut.width)


def from_blocks(rows: Array, cut: Blocks, tokens: int) -> Array:
    """Rows (block, token) as [tokens, total]."""
    parts = rows[:, : cut.width].reshape(cut.count, tokens, cut.width)
    return parts.swapaxes(0, 1).reshape(tokens, -1)[:, : cut.total]


def tiles(matrix: Array, ins: Blocks, outs: Blocks) -> Array:
    """[out, in] as columns (input block, output block, output), each a row of input lanes."""
    padded = np.zeros((outs.count * outs.width, ins.count * ins.width), np.float32)
    padded[: outs.total, : ins.total] = matrix
    cut = padded.reshape(outs.count, outs.width, ins.count, ins.width)
    return cut.transpose(2, 0, 1, 3).reshape(-1, ins.width)


def product(x: Array, matrix: Array, ins: Blocks) -> Array:
    """x @ matrix.T as the array does it: a block's sum rounded once, blocks added in order."""
    total = np.zeros((len(x), len(matrix)), np.float32)
    for start in range(0, ins.total, ins.width):
        part = slice(start, start + ins.width)
        total += (x[:, part].astype(np.float64) @ matrix[:, part].T).astype(np.float32)
    return total


@TOKENS
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("shape", [(64, 96), (320, 320), (576, 1536), (600, 250)])
def test_matmul(side, tokens, shape):
    ins, outs = (blocks(total) for total in shape)
    x, matrix = fp16(normal(tokens, ins.total)), fp16(normal(outs.total, ins.total))
    rig = KernelRig()
    weights = rig.columns("w", side, tiles(matrix, ins, outs))
    source = rig.rows("x", (side, 2, 0), by_block(x, ins), "f16")
    out = rig.room("y", (side, 1, 0), outs.count * tokens)
    words = outs.width // 8
    passes = [
        Pass(
            weights,
            word=i * outs.count * words,
            tiles=outs.count,
            words=words,
            activations=Rows(source, i * tokens, (0, 1)),
            count=tokens,
            first=i == 0,
            last=i == ins.count - 1,
        )
        for i in range(ins.count)
    ]
    chain = Chain(rig.spec, "matmul")
    (flow,) = matmul(chain, side, passes)
    chain.write(flow, Rows(out, 0, (tokens, 1)))
    rig.plan.place(chain)
    rig.run()
    found = from_blocks(rig.read(out), outs, tokens)
    np.testing.assert_array_max_ulp(found, product(x, matrix, ins), maxulp=1)


@TOKENS
@pytest.mark.parametrize("total", [64, 576, 900])
def test_rms_norm(tokens, total):
    cut, eps = blocks(total), 1e-5
    x, gamma = 100 * normal(tokens, total), normal(1, total)
    rig = KernelRig()
    source = rig.rows("x", (EAST, 0, 0), by_block(x, cut))
    weight = rig.rows("gamma", (WEST, 0, 0), by_block(gamma, cut))
    scale = rig.room("scale", (WEST, 1, 0), tokens)
    out = tuple(rig.room(f"out{s}", (s, 2, 0), cut.count * tokens, "f16") for s in SIDES)
    pointwise.rms_scale(rig.plan, 0, source, cut.count, total, eps, scale)
    pointwise.apply_norm(rig.plan, 0, source, scale, Rows(weight), cut.count, out)
    rig.run()
    mean = np.square(x.astype(np.float64)).mean(axis=1, keepdims=True)
    for buffer in out:
        found = from_blocks(rig.read(buffer), cut, tokens)
        np.testing.assert_allclose(found, x / np.sqrt(mean + eps) * gamma, 1.01 * HALF_ULP, 1e-7)


@TOKENS
@pytest.mark.parametrize(("heads", "lanes"), [(1, 64), (9, 64), (3, 16), (2, 320)])
@pytest.mark.parametrize("side", SIDES)
def test_rotary(side, tokens, heads, lanes):
    x, angle = normal(heads, tokens, lanes), 10 * normal(tokens, lanes // 2)
    rig = KernelRig()
    source = rig.rows("x", (side, 1, 1), x.reshape(-1, lanes))
    cosine = np.repeat(np.cos(angle), 2, axis=1)
    sine = np.repeat(np.sin(angle), 2, axis=1) * np.tile([-1, 1], lanes // 2)
    cos, sin = rig.rows("cos", (WEST, 0, 1), cosine), rig.rows("sin", (EAST, 0, 1), sine)
    out = rig.room("out", (EAST, 2, 0), heads * tokens, "f16")
    pointwise.rotary(rig.plan, 0, source, side, heads, cos, sin, out)
    rig.run()
    turned = (x[..., ::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)
    expected = np.stack([turned.real, turned.imag], axis=-1).reshape(-1, lanes)
    np.testing.assert_allclose(rig.read(out)[:, :lanes], expected, 1.01 * HALF_ULP, 1e-6)


@pytest.mark.parametrize("activation", ["silu", "gelu"])
@pytest.mark.parametrize("count", [1, 32, 160])
def test_gated(count, activation):
    gate, up = 5 * normal(count, LANES), normal(count, LANES, seed=1)
    rig = KernelRig()
    gates = rig.rows("g0", (EAST, 1, 0), gate), rig.rows("g1", (WEST, 0, 1), gate)
    other = rig.rows("up", (WEST, 1, 1), up)
    out = tuple(rig.room(f"h{s}", (s, 2, 0), count, "f16") for s in SIDES)
    pointwise.gated(rig.plan, 0, gates, other, 0, count, out, activation)
    rig.run()
    wide = gate.astype(np.float64)
    inner = np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)
    smooth = {"silu": 1 / (1 + np.exp(-wide)), "gelu": (1 + np.tanh(inner)) / 2}
    for buffer in out:
        expected = wide * smooth[activation] * up
        np.testing.assert_allclose(rig.read(buffer), expected, 1.01 * HALF_ULP, 1e-7)


@pytest.mark.parametrize("count", [1, 64])
def test_residual(count):
    a, b = 1000 * normal(count, LANES), normal(count, LANES, seed=1)
    rig = KernelRig()
    x, y = rig.rows("x0", (EAST, 0, 0), a), rig.rows("y", (WEST, 1, 0), b)
    out = rig.room("x1", (EAST, 0, 1), count)
    pointwise.add_rows(rig.plan, 0, [Rows(x), Rows(y)], Rows(out), "residual", count)
    rig.run()
    assert (rig.read(out) == a + b).all()


class StageRig(KernelRig):
    """A rig with the memory map of a one-layer stage that holds `context` blocks of tokens."""

    def __init__(
        self, heads: Heads, tokens: int, context: int, vocab: int = 0, hidden: int = 64
    ) -> None:
        super().__init__(GROQCHIP1)
        sizes = blocks(hidden), heads, blocks(96), blocks(vocab) if vocab else None
        shape = DecoderShape(*sizes, 1, 1e-5, context * LANES, tokens)
        self.stage = Stage(self.spec, (shape,))
        self.memory = self.stage.memory

    def fill(self, name: str, values: Array) -> Buffer:
        """Write `values` to the buffer of that name."""
        return self.put(self.memory[name], values)


@pytest.mark.parametrize(("hidden", "vocab"), [(64, 96), (576, 1000), (350, 3333)])
def test_lm_head(hidden, vocab):
    rig = StageRig(HEADS["4 heads of 16"], 1, 1, vocab, hidden)
    shape, memory = rig.stage.shape, rig.memory
    x, matrix = normal(1, hidden), fp16(normal(vocab, hidden))
    rig.fill("x0", by_block(x, shape.hidden))
    rig.fill("gamma", np.ones((3 * shape.hidden.count, LANES)))
    runs = tiles(matrix, shape.hidden, shape.vocab)
    runs = runs.reshape(shape.hidden.count, shape.vocab.count, shape.vocab.width, -1)
    east = -(-shape.vocab.count // 2)
    for side, part in zip(SIDES, np.split(runs, [east], axis=1), strict=True):
        if part.size:
            rig.fill(f"head{side}", part.reshape(-1, shape.hidden.width))
    layer.head(rig.stage, rig.plan, 0)
    rig.run()
    normed = fp16(x / np.sqrt(np.square(x).mean() + 1e-5))
    logits = np.concatenate([rig.read(memory[f"logits{s}"]) for s in SIDES])
    found = from_blocks(logits, shape.vocab, 1)
    np.testing.assert_allclose(found, normed @ matrix.T, rtol=1e-2, atol=0.02)


class Attention(StageRig):
    """Caches full of random rows up to `start`, and `tokens` new tokens after them."""

    def __init__(self, heads: Heads, tokens: int, context: int) -> None:
        super().__init__(heads, tokens, context)
        self.heads, self.tokens, self.context = heads, tokens, context
        self.start = (context - 1) * LANES + (64 if tokens > 1 else 77)
        self.end = self.start + tokens
        self.count = len(heads.kv_of)
        shape = (heads.kv_heads, context * LANES, heads.head_lanes)
        self.k, self.v = fp16(normal(*shape)), fp16(normal(*shape, seed=1))
        self.q = fp16(normal(self.count, tokens, heads.head_lanes))
        now = slice(self.start, self.end)
        for name, values in (("K", self.k), ("V", self.v)):
            old = self.in_rows(values)
            old[:, now] = 5  # must be overwritten
            for row in range(heads.rows):
                spare = np.zeros((8, heads.row_lanes))
                self.fill(f"0.{name}{row}", np.concatenate([old[row], spare]))
            self.fill(f"{name.lower()}16", np.concatenate(self.in_rows(values)[:, now]))
        for row in range(heads.rows):
            self.fill(f"0.VT{row}", self.transposed(row, context - 1))

    def in_rows(self, values: Array) -> Array:
        """[KV head, token, lane] as cache rows [row, token, lanes]."""
        heads = self.heads
        out = np.zeros((heads.rows, values.shape[1], heads.row_lanes), np.float32)
        for kv, head in enumerate(values):
            row, inside = divmod(kv, heads.per_row)
            out[row, :, inside * heads.head_lanes : (inside + 1) * heads.head_lanes] = head
        return out

    def transposed(self, row: int, done: int) -> Array:
        """V as columns (block, lane), of which the first `done` blocks are there."""
        columns = self.in_rows(self.v)[row].reshape(self.context, LANES, -1).swapaxes(1, 2).copy()
        columns[done:] = 5
        return columns.reshape(-1, LANES)

    def by_block(self, values: Array) -> Array:
        """[head, token, context] as rows (block, head, token)."""
        shape = (self.count, self.tokens, self.context, LANES)
        return values.reshape(shape).transpose(2, 0, 1, 3).reshape(-1, LANES)

    def packed(self, values: Array) -> Array:
        """[head, token, lane] as rows (pack, token), each head in its lanes."""
        heads = self.heads
        out = np.zeros((heads.packs, self.tokens, LANES), np.float32)
        for number, head in enumerate(values):
            pack, inside = divmod(number, heads.per_pack)
            out[pack, :, inside * heads.head_lanes : (inside + 1) * heads.head_lanes] = head
        return out.reshape(-1, LANES)


ATTENTION = pytest.mark.parametrize(
    ("heads", "tokens", "context"),
    [
        pytest.param(h, t, c, id=f"{n}-{t}-{c}")
        for n, h in HEADS.items()
        for t in (1, 32)
        for c in (1, 2)
    ],
)


@ATTENTION
def test_appending_to_the_caches(heads, tokens, context):
    rig = Attention(heads, tokens, context)
    positions = np.arange(rig.start, rig.end)
    if tokens == 1:  # sent to every slice pair; all but its own put it into the spare word
        words = np.full(8, context * LANES // 8)
        words[positions[0] % 8] = positions[0] // 8
    else:
        words = positions // 8
    maps = rig.fill("maps", np.repeat(words[:, None], LANES, axis=1))
    for row in range(heads.rows):
        for side, name in ((EAST, "K"), (WEST, "V")):
            source = Rows(rig.memory[f"{name.lower()}16"], row * tokens)
            cache = rig.memory[f"0.{name}{row}"]
            attention.append_cache(rig.plan, 0, side, source, tokens, maps, cache)
    rig.run()
    for name, values in (("K", rig.k), ("V", rig.v)):
        for row, expected in enumerate(rig.in_rows(values)):
            found = rig.read_columns(rig.memory[f"0.{name}{row}"])
            assert (found[: len(expected), : heads.row_lanes] == expected).all()


@ATTENTION
def test_scores(heads, tokens, context):
    rig = Attention(heads, tokens, context)
    place_queries(rig)
    caches = [rig.fill(f"0.K{r}", spared(v)) for r, v in enumerate(rig.in_rows(rig.k))]
    queries, out = rig.memory["q16"], rig.memory["raw"]
    attention.scores(rig.plan, 0, heads, tokens, context, queries, caches, out)
    rig.run()
    expected = rig.by_block(rig.q.astype(np.float64) @ rig.k[list(heads.kv_of)].swapaxes(1, 2))
    np.testing.assert_allclose(rig.read(out), expected, rtol=1e-7, atol=1e-30)


def spared(values: Array) -> Array:
    """Cache rows with the spare word behind them."""
    return np.concatenate([values, np.zeros((8, values.shape[1]))])


def place_queries(rig: Attention) -> None:
    """Each query in the lanes of its KV head."""
    lanes = rig.heads.head_lanes
    rows = np.zeros((rig.count, rig.tokens, LANES), np.float32)
    for head, kv in enumerate(rig.heads.kv_of):
        inside = kv % rig.heads.per_row * lanes
        rows[head, :, inside : inside + lanes] = rig.q[head]
    rig.fill("q16", rows.reshape(-1, LANES))


@ATTENTION
def test_transposing_values(heads, tokens, context):
    rig = Attention(heads, tokens, context)
    identity = rig.fill("identity", np.eye(heads.row_lanes))
    for row, values in enumerate(rig.in_rows(rig.v)):
        cache, out = rig.fill(f"0.V{row}", spared(values)), rig.memory[f"0.VT{row}"]
        attention.transpose_values(rig.plan, 0, cache, context - 1, identity, out)
    rig.run()
    for row in range(heads.rows):
        found = rig.read_columns(rig.memory[f"0.VT{row}"])
        assert (found == rig.transposed(row, context)).all()


@ATTENTION
def test_softmax(heads, tokens, context):
    rig, total = Attention(heads, tokens, context), len(heads.kv_of) * tokens
    raw = 30 * normal(rig.count, tokens, context * LANES)
    allowed = np.arange(context * LANES) <= np.arange(rig.start, rig.end)[:, None]
    mask = np.where(allowed, np.float32(0), MASKED)
    rig.fill("raw", rig.by_block(raw))
    per_block = mask.reshape(tokens, context, LANES).swapaxes(0, 1).reshape(-1, LANES)
    memory, scale = rig.memory, 1 / math.sqrt(heads.head_lanes)
    ones = rig.fill("ones", np.ones((heads.head_lanes, LANES)))
    running, p = (memory["running0"], memory["running1"]), (memory["p0"], memory["p1"])
    rows, out = rig.fill("mask", per_block), memory["masked"]
    last = attention.mask_scores(
        rig.plan, 0, rig.count, tokens, context, memory["raw"], scale, rows, out, running
    )
    attention.row_maximum(rig.plan, 0, last, memory["top"], total)
    attention.exponentials(rig.plan, 0, total, context, out, memory["top"], p)
    attention.normalisers(rig.plan, 0, heads, tokens, context, p[0], ones, memory["sums"])
    rig.run()
    masked = raw * np.float32(scale) + mask
    top = masked.max(axis=-1).astype(np.float16)
    assert (rig.read(memory["masked"]) == rig.by_block(masked)).all()
    assert (rig.read(memory["top"]) == top.reshape(-1, 1)).all()
    weights = np.exp(masked - top[..., None].astype(np.float64))
    for buffer in p:
        np.testing.assert_allclose(
            rig.read(buffer), rig.by_block(weights), 1.01 * HALF_ULP, 2.0**-25
        )
    assert (rig.read(p[0])[~(rig.by_block(weights) > 0)] == 0).all()
    sums = fp16(weights).sum(axis=-1, keepdims=True).astype(np.float64)
    expected = rig.packed(np.repeat(1 / sums, heads.head_lanes, axis=-1))
    expected[expected == 0] = 1 / SMALLEST_SUM
    np.testing.assert_allclose(rig.read(memory["sums"]), expected, rtol=1e-3)


@ATTENTION
def test_weighted_values(heads, tokens, context):
    rig = Attention(heads, tokens, context)
    weights = fp16(np.abs(normal(rig.count, tokens, context * LANES)))
    scales = np.abs(normal(rig.count, tokens, 1)) + 0.1
    p = rig.fill("p1", rig.by_block(weights))
    sums = rig.fill("sums", rig.packed(np.repeat(scales, heads.head_lanes, axis=-1)))
    values = [rig.fill(f"0.VT{r}", rig.transposed(r, context)) for r in range(heads.rows)]
    mixed, out = rig.memory["values"], (rig.memory["o0"], rig.memory["o1"])
    attention.weighted_values(rig.plan, 0, heads, tokens, context, p, values, mixed)
    attention.normalise(rig.plan, 0, mixed, sums, out)
    rig.run()
    exact = weights.astype(np.float64) @ rig.v[list(heads.kv_of)]
    size = np.abs(exact).max()
    np.testing.assert_allclose(rig.read(mixed), rig.packed(exact), rtol=1e-6, atol=1e-6 * size)
    for buffer in out:
        expected = rig.packed(exact * scales)
        np.testing.assert_allclose(rig.read(buffer), expected, 1e-3, 1e-3 * size)
