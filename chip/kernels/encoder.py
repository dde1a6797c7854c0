"""A stage of a BERT-like encoder on one chip: its memory map, and its chains in order.

All tokens of a sequence go through at once. Every token looks at every other: keys that are padding
are masked by data, so a program serves all sequences up to its length.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from chip.kernels.pointwise import both_sides

from chip.kernels import attention, layernorm
from chip.kernels.encoder_shape import EncoderShape, encoder_matrices
from chip.kernels.gelu import gelu
from chip.kernels.matmul import Pass, matmul
from chip.kernels.memory import MemoryMap
from chip.kernels.pooling import pool
from chip.kernels.shape import Placed, halves
from chip.program import Region
from chip.schedule import Buffer, Chain, Flow, Loops, Pace, Rows, Schedule, Sequence
from chip.spec import EAST, WEST, ChipSpec

SIDES = (EAST, WEST)
Store = Callable[[Chain, Flow, int], None]
ME = 0  # the one member of a stage's group


@dataclass
class EncoderStage:
    """Memory map and weights of one stage."""

    spec: ChipSpec
    shape: EncoderShape
    matrices: dict[str, Placed] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.memory = MemoryMap(self.spec)
        self._weights()
        self._activations()
        self._attention()
        self._pooling()

    # --- memory map -------------------------------------------------------------------------
    def _weights(self) -> None:
        shape, rows = self.shape, self.memory.rows
        norms = shape.norms * shape.hidden.count
        rows("gamma", (WEST, 0, 0), norms, "f32")
        rows("beta", (EAST, 2, 1), norms, "f32")
        for side in SIDES:
            rows(f"bias{side}", (side, 0, 0), shape.layers * shape.biases(side)["end"], "f32")
        matrices = encoder_matrices(shape, self.spec.accumulator_depth)
        for matrix in sorted(matrices, key=lambda m: -m.vectors):
            if not matrix.outputs:
                continue
            self.memory.per_layer(matrix.name, matrix.side, matrix.vectors, shape.layers)
            for layer in range(shape.layers):
                name = f"{layer}.{matrix.name}"
                self.matrices[name] = Placed(matrix, self.memory[name])

    def _activations(self) -> None:
        shape, rows = self.shape, self.memory.rows
        hidden = shape.hidden.count * shape.tokens
        for number in (0, 1):
            rows(f"x{number}", (EAST, 0, number), hidden, "f32")
            rows(f"sum{number}", (EAST, 2, number), shape.tokens, "f32")
            rows(f"square{number}", (WEST, 2, number), shape.tokens, "f32")
        rows("mean", (EAST, 1, 1), shape.tokens, "f32")
        rows("meansquare", (WEST, 1, 0), shape.tokens, "f32")
        rows("scale", (WEST, 1, 1), shape.tokens, "f32")
        for side, part in zip(SIDES, halves(shape.ffn.count), strict=True):
            rows(f"xn{side}", (side, 2, 0), hidden, "f16")
            rows(f"y{side}", (side, 1, 0), hidden, "f32")
            rows(f"h{side}", (side, 2, 1), shape.ffn.count * shape.tokens, "f16")
            rows(f"g{side}", (side, 1, 1), len(part) * shape.tokens, "f32")
            rows(f"again{side}", (side, 0, 1), len(part) * shape.tokens, "f32")

    def _attention(self) -> None:
        shape, rows, heads = self.shape, self.memory.rows, self.shape.heads
        total = len(heads.kv_of) * shape.tokens
        rows("headmask", (WEST, 1, 0), heads.per_row, "f32")
        rows("mask", (WEST, 0, 1), shape.tokens, "f32")
        rows("q", (EAST, 1, 0), heads.rows * shape.tokens, "f32")
        rows("q16", (EAST, 2, 0), total, "f16", pair=1)
        rows("raw", (EAST, 1, 1), total, "f32")
        rows("masked", (WEST, 1, 0), total, "f32")
        for number in (0, 1):
            rows(f"running{number}", (WEST, 2, number), total, "f16", pair=1)
        rows("top", (EAST, 2, 1), total, "f16", pair=1)
        for side in SIDES:
            rows(f"p{side}", (side, 2, 0), total, "f16")
            rows(f"o{side}", (side, 2, 1), heads.packs * shape.tokens, "f16")
        rows("sums", (EAST, 1, 0), heads.packs * shape.tokens, "f32")
        rows("values", (WEST, 1, 1), heads.packs * shape.tokens, "f32")
        for row in range(heads.rows):
            self.memory.columns(f"K{row}", EAST, self.spec.lanes)
            self.memory.columns(f"V{row}", WEST, self.spec.lanes)
            self.memory.columns(f"VT{row}", WEST, heads.row_lanes, groups=(1,))
        self.memory.columns("ones", EAST, heads.head_lanes)
        # identity rows stream while what they transpose is written: they must not share a bank
        size = max(heads.row_lanes, shape.hidden.width)
        self.memory.outer_rows("identity", WEST, size, group=0)

    def _pooling(self) -> None:
        if not self.shape.last:
            return
        for block in range(self.shape.hidden.count):
            self.memory.columns(f"X{block}", WEST, self.spec.lanes)
            self.memory.columns(f"XT{block}", WEST, self.shape.hidden.width, groups=(1,))
        rows, count = self.memory.rows, self.shape.hidden.count
        rows("poolmask", (WEST, 2, 0), 1, "f16")
        rows("poolscale", (WEST, 0, 1), 1, "f32")
        rows("pooled", (EAST, 1, 0), count, "f32")
        rows("length", (WEST, 1, 0), 1, "f32")
        rows("embedding", (EAST, 0, 1), count, "f32")

    # --- chains -----------------------------------------------------------------------------
    def schedule(self, tokens: int, pace: Pace | None = None) -> Schedule:
        """One launch: `tokens` rows per block of x0, from embeddings or the stage before.

        With a `pace` the chip stalls between layers.
        """
        start, layer, end = (Schedule(self.spec) for _ in range(3))
        if self.shape.first:
            self._norm(start, self.shape.norms - 1, tokens, [None] * self.shape.hidden.count)
        else:
            self._enter(start, tokens)
        self._attend(layer, tokens)
        self._feed_forward(layer, tokens)
        plan = Schedule(self.spec)
        found = Sequence(plan, pace)
        found.repeat(start, partial(self._moved, layer=0))
        for number in range(self.shape.layers):
            plan.repeat(layer, found.start(layer.quiet_cycle), partial(self._moved, layer=number))
        if self.shape.last:
            pool(end, self.memory, self.shape.hidden, tokens)
            found.repeat(end, partial(self._moved, layer=0))
        return plan

    def _moved(self, index: int, address: int, layer: int) -> int:
        """Where layer `layer` keeps the word of layer 0."""
        counts = {"gamma": 2 * self.shape.hidden.count, "beta": 2 * self.shape.hidden.count}
        counts |= {f"bias{side}": self.shape.biases(side)["end"] for side in SIDES}
        for name, count in counts.items():
            region = self.memory[name].region
            inside = 0 <= index - region.index < region.slices
            if inside and region.address <= address < region.address + region.words:
                return address + layer * count
        return self.memory.moved(index, address, layer)

    def _enter(self, plan: Schedule, tokens: int) -> None:
        """fp16 copies of x as it came from the stage before."""
        loops: Loops = ((self.shape.hidden.count, tokens), (tokens, 1))
        chain = Chain(self.spec, "enter")
        value = chain.vxm("copy", Rows(self.memory["x0"], 0, (tokens, 1)), loops=loops)
        both_sides(chain, value, (self.memory["xn0"], self.memory["xn1"]), (tokens, 1))
        plan.place(chain)

    def _norm(self, plan: Schedule, number: int, tokens: int, ys: list[Rows | None]) -> None:
        """x0 = LayerNorm(x0 + y), by way of x1."""
        memory, shape = self.memory, self.shape
        sums, squares = ((memory[f"{n}0"], memory[f"{n}1"]) for n in ("sum", "square"))
        x = memory["x1"]
        last = layernorm.residual_moments(
            plan, ME, Rows(memory["x0"]), ys, x, sums, squares, tokens
        )
        for pair, out in ((sums, "mean"), (squares, "meansquare")):
            layernorm.lane_mean(plan, ME, pair[last], shape.hidden.total, memory[out], tokens)
        moments = (memory["mean"], memory["scale"])
        layernorm.spread(
            plan, ME, memory["mean"], memory["meansquare"], shape.eps, moments[1], tokens
        )
        first = number * shape.hidden.count
        gamma, beta = (Rows(memory[name], first) for name in ("gamma", "beta"))
        size = (shape.hidden.count, tokens)
        sides = (memory["xn0"], memory["xn1"])
        layernorm.apply_layer_norm(
            plan, ME, x, moments, gamma, beta, size, memory["x0"], sides
        )  # fmt: skip

    def _sums(self, tokens: int) -> list[Rows | None]:
        """The rows of y by block: the east array made the first half of them."""
        found: list[Rows | None] = []
        for side, part in zip(SIDES, halves(self.shape.hidden.count), strict=True):
            found += [Rows(self.memory[f"y{side}"], n * tokens) for n in range(len(part))]
        return found

    def _multiply(self, plan: Schedule, name: str, source: str, tokens: int, store: Store) -> None:
        """Place a product with its bias; `store` gets each run's flow and its first output row."""
        if f"0.{name}" not in self.matrices:
            return
        placed = self.matrices[f"0.{name}"]
        matrix = placed.matrix
        chain = Chain(self.spec, f"matmul {name}")
        passes, word = [], 0
        for _, count, column in matrix.runs:
            for block in range(matrix.inputs):
                rows = Rows(self.memory[source], block * tokens, (0, 1))
                first, last = block == 0, block == matrix.inputs - 1
                part = Pass(placed.buffer, word, count, matrix.words, rows, tokens, column)
                passes.append(replace(part, first=first, last=last))
                word += count * matrix.words
        base = matrix.runs[0][0]
        bias = self.shape.biases(matrix.side).get(name.rstrip("01"))
        for flow, (start, _, _) in zip(
            matmul(chain, matrix.side, passes), matrix.runs, strict=True
        ):
            if bias is not None:
                row = bias + start - base
                flow = chain.vxm("add", flow, Rows(self.memory[f"bias{matrix.side}"], row, (1, 0)))
            store(chain, flow, (start - base) * tokens)
        plan.place(chain)

    def _project(self, plan: Schedule, name: str, source: str, out: str, tokens: int) -> None:
        """out[output block, token] = matrix x source[input block, token] + bias, fp32."""

        def store(chain: Chain, flow: Flow, first: int) -> None:
            chain.write(flow, Rows(self.memory[out], first, (tokens, 1)))

        self._multiply(plan, name, source, tokens, store)

    def _columns(self, plan: Schedule, name: str, source: str, out: str, tokens: int) -> None:
        """Token rows of a product as fp16 columns, token t in the slice pair t % 8."""

        def store(chain: Chain, flow: Flow, first: int) -> None:
            rounded = chain.vxm("to_f16", flow)
            target = [self.memory[f"{out}{n}"] for n in range(self.shape.heads.rows)]
            chain.emit(rounded, target[0].region.index // self.spec.hemisphere_slices)
            (count, period), inner = rounded.loops
            for number in range(count):
                cycle = rounded.cycle + number * period
                tile = replace(rounded, loops=((1, period), inner), cycle=cycle)
                attention.write_columns(chain, tile, target[first // tokens + number])

        self._multiply(plan, name, source, tokens, store)

    def _attend(self, plan: Schedule, tokens: int) -> None:
        memory, heads = self.memory, self.shape.heads
        self._project(plan, "q", "xn1", "q", tokens)
        self._columns(plan, "k", "xn1", "K", tokens)
        self._columns(plan, "v", "xn0", "V", tokens)
        self._select_heads(plan, tokens)
        caches = {n: [memory[f"{n}{row}"] for row in range(heads.rows)] for n in ("K", "V", "VT")}
        attention.scores(
            plan, ME, heads, tokens, 1, memory["q16"], caches["K"], memory["raw"]
        )  # fmt: skip
        identity = self._view("identity", heads.row_lanes)
        for values, out in zip(caches["V"], caches["VT"], strict=True):
            attention.transpose_values(plan, ME, values, 0, identity, out)
        self._softmax(plan, tokens)
        attention.normalisers(
            plan, ME, heads, tokens, 1, memory["p0"], memory["ones"], memory["sums"]
        )
        attention.weighted_values(
            plan, ME, heads, tokens, 1, memory["p1"], caches["VT"], memory["values"]
        )
        sums, mixed = (self._view(n, heads.packs * tokens) for n in ("sums", "values"))
        attention.normalise(plan, ME, mixed, sums, (memory["o0"], memory["o1"]))
        for side in SIDES:
            self._project(plan, f"o{side}", f"o{side}", f"y{side}", tokens)
        self._norm(plan, 0, tokens, self._sums(tokens))

    def _select_heads(self, plan: Schedule, tokens: int) -> None:
        """q16[head, token] = fp16(q), zero outside the lanes of the head."""
        heads, memory = self.shape.heads, self.memory
        for row in range(heads.rows):
            inside = heads.of_row(row)
            loops: Loops = ((len(inside), tokens), (tokens, 1))
            chain = Chain(self.spec, "attention: one head")
            queries = Rows(memory["q"], row * tokens, (0, 1))
            value = chain.vxm("mul", queries, Rows(memory["headmask"], 0, (1, 0)), loops=loops)
            out = Rows(memory["q16"], inside.start * tokens, (tokens, 1))
            chain.write(chain.vxm("to_f16", value), out)
            plan.place(chain)

    def _softmax(self, plan: Schedule, tokens: int) -> None:
        """Probabilities, not yet divided by their sum."""
        memory, heads = self.memory, self.shape.heads
        count, scale = len(heads.kv_of), 1.0 / math.sqrt(heads.head_lanes)
        running = (memory["running0"], memory["running1"])
        last = attention.mask_scores(
            plan, ME, count, tokens, 1, memory["raw"], scale, memory["mask"], memory["masked"],
            running,
        )  # fmt: skip
        attention.row_maximum(plan, ME, last, memory["top"], count * tokens)
        p = (memory["p0"], memory["p1"])
        attention.exponentials(plan, ME, count * tokens, 1, memory["masked"], memory["top"], p)

    def _feed_forward(self, plan: Schedule, tokens: int) -> None:
        memory, first = self.memory, 0
        for side, part in zip(SIDES, halves(self.shape.ffn.count), strict=True):
            self._expand(plan, side, tokens)
            for block in range(len(part)):
                copies = (memory[f"g{side}"], memory[f"again{side}"])
                out = (memory["h0"], memory["h1"])
                gelu(plan, ME, copies, block * tokens, tokens, out, (first + block) * tokens)
            first += len(part)
        for side in SIDES:
            self._project(plan, f"down{side}", f"h{side}", f"y{side}", tokens)
        self._norm(plan, 1, tokens, self._sums(tokens))

    def _expand(self, plan: Schedule, side: int, tokens: int) -> None:
        """The up projection, twice, as GELU reads it at two times."""
        memory = self.memory

        def store(chain: Chain, flow: Flow, first: int) -> None:
            for name in (f"g{side}", f"again{side}"):
                chain.write(flow, Rows(memory[name], first, (tokens, 1)))

        self._multiply(plan, f"up{side}", f"xn{side}", tokens, store)

    def _view(self, name: str, vectors: int) -> Buffer:
        """A buffer cut to its first vectors."""
        region = self.memory[name].region
        return Buffer(name, Region(region.index, region.address, vectors, region.dtype))
