"""The chains of a decoder's layer on one member of a group: norms, projections, attention, FFN."""

from collections.abc import Callable
from dataclasses import replace

from chip.kernels import attention, lanes, pointwise, quantise
from chip.kernels.matmul import Pass, matmul
from chip.kernels.shape import halves
from chip.kernels.stage_map import StageMap
from chip.schedule import Chain, Flow, Rows, Schedule
from chip.spec import EAST, WEST

SIDES = (EAST, WEST)


def whole_layer(stage: StageMap, plan: Schedule, tokens: int, blocks: int) -> None:
    """Layer 0 on a chip that has no others to wait for."""
    attend(stage, plan, 0, 0, tokens, blocks)
    residual(stage, plan, "x0", "x1", tokens)
    feed_forward(stage, plan, 0, 0, "x1", tokens)
    residual(stage, plan, "x1", "x0", tokens)


def _norm(stage: StageMap, plan: Schedule, member: int, number: int, x: str, tokens: int) -> None:
    shape = stage.shape
    source, scale = stage.memory[x], stage.view("scale", tokens)
    count = shape.hidden.count
    reduce = lanes.reduce_alike if stage.int8 else lanes.reduce_lanes
    pointwise.rms_scale(plan, member, source, count, shape.hidden.total, shape.eps, scale, reduce)
    gamma = Rows(stage.memory["gamma"], number * count)
    out = (stage.memory["xn0"], stage.memory["xn1"])
    if not stage.int8:
        pointwise.apply_norm(plan, member, source, scale, gamma, count, out)
        return
    peak, inverse, step = (stage.view(name, tokens) for name in ("peak", "inverse", "step"))
    quantise.peak(plan, member, source, gamma, count, peak, inverse)
    quantise.rounded(plan, member, source, gamma, count, inverse, out)
    quantise.normalised_step(plan, member, peak, scale, step)


def _to_int8(
    stage: StageMap, plan: Schedule, member: int, name: str, blocks: int, tokens: int
) -> None:
    """The fp32 rows of a buffer as int8, on both sides, under its name with the side."""
    inverse, step = stage.view("inverse", tokens), stage.view("step", tokens)
    source, out = stage.memory[name], (stage.memory[f"{name}0"], stage.memory[f"{name}1"])
    quantise.peak(plan, member, source, None, blocks, step, inverse)
    quantise.rounded(plan, member, source, None, blocks, inverse, out)


def _project(
    stage: StageMap,
    plan: Schedule,
    member: int,
    name: str,
    source: str,
    tokens: int,
    *outs: str,
    bias: int = 0,
) -> None:
    """outs[output block, token] = matrix `name` x source[input block, token], fp32.

    `bias` is the first row of its biases, where the model has some.
    """

    def store(chain: Chain, flow: Flow, first: int) -> None:
        flow = _biased(stage, chain, flow, bias + first // tokens) if name[-1] in "qk" else flow
        for number, out in enumerate(outs):
            # what comes from the VXM goes one way; what comes from the MXM passes all slices
            again = number and flow.alu is not None
            value = chain.vxm("copy", flow) if again else flow
            chain.write(value, Rows(stage.memory[out], first, (tokens, 1)))

    _multiply(stage, plan, member, name, source, tokens, store)


def _biased(stage: StageMap, chain: Chain, flow: Flow, row: int) -> Flow:
    """A projection's rows with their biases, from bias row `row` on."""
    if not stage.shape.biased:
        return flow
    return chain.vxm("add", flow, Rows(stage.memory["bias"], row, (1, 0)))


def _multiply(
    stage: StageMap,
    plan: Schedule,
    member: int,
    name: str,
    source: str,
    tokens: int,
    store: Callable[[Chain, Flow, int], None],
) -> None:
    """Place the product of a matrix; `store` gets each run's flow and its first output row."""
    matrix, words = stage.matrix(name, member), stage.matrices[name].matrix.words
    weights = stage.matrices[name].buffer
    if not matrix.outputs:
        return
    chain = Chain(stage.spec, f"matmul {name}", member)
    passes, word = [], 0
    for _, count, column in matrix.runs:
        for block in range(matrix.inputs):
            rows = Rows(stage.memory[source], block * tokens, (0, 1))
            first, last = block == 0, block == matrix.inputs - 1
            part = Pass(weights, word, count, words, rows, tokens, column)
            passes.append(replace(part, first=first, last=last))
            word += count * words
    base = matrix.runs[0][0]
    flows = matmul(chain, matrix.side, passes)
    for flow, (start, _, _) in zip(flows, matrix.runs, strict=True):
        if stage.int8:
            row = stage.scales.row_of(name) + start - base
            scales = Rows(stage.memory["scales"], row, (1, 0))
            flow = quantise.rescale(chain, flow, stage.view("step", tokens), scales)
        store(chain, flow, (start - base) * tokens)
    plan.place(chain)


def attend(
    stage: StageMap, plan: Schedule, member: int, layer: int, tokens: int, blocks: int
) -> None:
    """y = attention of x0, normed: this member\'s heads, its part of the output projection."""
    _norm(stage, plan, member, 2 * layer, "x0", tokens)
    queries = len(stage.shape.heads.kv_of)
    for name, source, bias in (("q", "xn0", 0), ("k", "xn1", queries)):
        _project(stage, plan, member, f"{layer}.{name}", source, tokens, name, bias=bias)
    _values(stage, plan, member, layer, tokens)
    heads, buffer = stage.shapes[member].heads, stage.memory
    cos, sin = stage.view("cos", tokens), stage.view("sin", tokens)
    count = len(heads.kv_of)
    pointwise.rotary(plan, member, buffer["k"], WEST, heads.rows, cos, sin, buffer["k16"])
    pointwise.rotary(plan, member, buffer["q"], EAST, count, cos, sin, buffer["q16"])
    for row in range(heads.rows):
        for side, source, cache in ((EAST, "k16", "K"), (WEST, "v16", "V")):
            rows = Rows(buffer[source], row * tokens)
            target = buffer[f"{layer}.{cache}{row}"]
            attention.append_cache(plan, member, side, rows, tokens, buffer["maps"], target)
    attention.attend(plan, member, stage.memory, layer, heads, tokens, blocks)
    sums, values = (stage.view(n, heads.packs * tokens) for n in ("sums", "values"))
    out = (buffer["o"],) if stage.int8 else (buffer["o0"], buffer["o1"])
    attention.normalise(plan, member, values, sums, out)
    if stage.int8:
        _to_int8(stage, plan, member, "o", heads.packs, tokens)
    for side in SIDES:
        _project(stage, plan, member, f"{layer}.o{side}", f"o{side}", tokens, f"y{side}")


def _values(stage: StageMap, plan: Schedule, member: int, layer: int, tokens: int) -> None:
    """v16[row, token] = fp16 of the V projection, straight from the array through the VXM."""

    heads = stage.shape.heads

    def store(chain: Chain, flow: Flow, first: int) -> None:
        rows = Rows(stage.memory["v16"], first, (tokens, 1))
        flow = _biased(stage, chain, flow, len(heads.kv_of) + heads.rows + first // tokens)
        chain.write(chain.vxm("to_f16", flow), rows)

    _multiply(stage, plan, member, f"{layer}.v", "xn1", tokens, store)


def feed_forward(
    stage: StageMap, plan: Schedule, member: int, layer: int, x: str, tokens: int
) -> None:
    """y = FFN of x, normed: this member\'s columns."""
    _norm(stage, plan, member, 2 * layer + 1, x, tokens)
    _project(stage, plan, member, f"{layer}.gate", "xn0", tokens, "gate0", "gate1")
    _project(stage, plan, member, f"{layer}.up", "xn1", tokens, "up")
    buffer = stage.memory
    gates = buffer["gate0"], buffer["gate1"]
    out = (buffer["h"],) if stage.int8 else (buffer["h0"], buffer["h1"])
    for block in range(stage.shape.ffn.count):
        first, kind = block * tokens, stage.shape.activation
        pointwise.gated(plan, member, gates, buffer["up"], first, tokens, out, kind)
    if stage.int8:
        _to_int8(stage, plan, member, "h", stage.shape.ffn.count, tokens)
    for side in SIDES:
        _project(stage, plan, member, f"{layer}.down{side}", f"h{side}", tokens, f"y{side}")


def residual(stage: StageMap, plan: Schedule, before: str, after: str, tokens: int) -> None:
    """after = before + y, on a chip that holds all of y."""
    for side, part in zip(SIDES, halves(stage.shape.hidden.count), strict=True):
        if len(part):
            first, count = part.start * tokens, len(part) * tokens
            x, out = (Rows(stage.memory[name], first) for name in (before, after))
            operands = [x, Rows(stage.memory[f"y{side}"])]
            pointwise.add_rows(plan, 0, operands, out, "residual", count)


def head(stage: StageMap, plan: Schedule, member: int) -> None:
    """Logits of the one token in x0."""
    _norm(stage, plan, member, 2 * stage.shape.layers, "x0", 1)
    for side in SIDES:
        _project(stage, plan, member, f"head{side}", f"xn{side}", 1, f"logits{side}")
