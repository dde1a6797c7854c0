"""A stage of a decoder on a tensor-parallel group: its memory map, and its chains in order.

`Stage` owns the map, which every member of the group and every program shares. `steps` lists what
a launch does, `tokens` tokens at the end of `blocks` x 320 tokens of context: each step is placed
once, for one layer and for members that do the same, and `schedule` repeats it where it belongs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from chip.kernels import attention, landing, lanes, layout, pointwise, quantise
from chip.kernels.allreduce import AllReduce, Routes, at_a_time, swapped
from chip.kernels.attention import Heads
from chip.kernels.matmul import Pass, matmul
from chip.kernels.memory import Memory
from chip.kernels.shape import (
    DecoderShape,
    Matrix,
    Placed,
    halves,
    head_matrices,
    layer_matrices,
    query_runs,
)
from chip.kernels.step import Moved, Step
from chip.schedule import Buffer, Chain, Flow, Outline, Pace, Rows, Schedule, Sequence
from chip.spec import EAST, WEST, ChipSpec

SIDES = (EAST, WEST)


@dataclass
class Stage:
    """Memory map and weights of one stage; `members` chips of a group share both."""

    spec: ChipSpec
    shapes: tuple[DecoderShape, ...]
    matrices: dict[str, Placed] = field(default_factory=dict)
    scales: quantise.Scales = quantise.NO_SCALES
    _parts: dict[tuple[object, ...], Schedule] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.memory = Memory(self.spec)
        self.members = len(self.shapes)
        self._weights()
        layout.place_activations(self.memory, self.shape, self.members)
        layout.place_attention(self.memory, self.shape)
        if self.shape.slots > 1:
            landing.place_landing(self.memory, self.shape)

    @property
    def shape(self) -> DecoderShape:
        """Sizes that all members share; only their head assignment differs."""
        return self.shapes[0]

    @property
    def int8(self) -> bool:
        """Whether matrices are int8, and activations made so for them."""
        return self.shape.int8

    # --- memory map -------------------------------------------------------------------------
    def _weights(self) -> None:
        shape, depth = self.shape, self.spec.accumulator_depth
        norms = (2 * shape.layers + 1) * shape.hidden.count
        self.memory.rows("gamma", (WEST, 0, 0), norms, "f32")
        if shape.biased:
            self.memory.layer_rows("bias", (WEST, 0, 0), shape.bias_rows, shape.layers)
        if self.int8:
            self.scales = quantise.place_scales(self.memory, shape, depth)
        for matrix in head_matrices(shape, depth):  # the largest first: they pack better
            buffer = self.memory.columns(
                matrix.name, matrix.side, matrix.vectors, dtype=matrix.dtype
            )
            self.matrices[matrix.name] = Placed(matrix, buffer)
        for matrix in sorted(layer_matrices(shape, depth), key=lambda m: -m.vectors):
            self.memory.per_layer(
                matrix.name, matrix.side, matrix.vectors, shape.layers, dtype=matrix.dtype
            )
            for layer in range(shape.layers):
                name = f"{layer}.{matrix.name}"
                self.matrices[name] = Placed(matrix, self.memory[name])

    def matrix(self, name: str, member: int) -> Matrix:
        """The matrix `name` as a member holds it: query heads may meet other KV heads there."""
        matrix = self.matrices[name].matrix
        if matrix.name != "q":
            return matrix
        limit = max(1, self.spec.accumulator_depth // self.shape.chunk)
        return replace(matrix, runs=query_runs(self.shapes[member].heads, limit))

    # --- chains -----------------------------------------------------------------------------
    def schedule(
        self, tokens: int, blocks: int, routes: Routes, pace: Pace | None = None, slot: int = 0
    ) -> Schedule:
        """The group's schedule; x is read from and left in the buffer `x0`.

        The caches are those of sequence slot `slot`. With a `pace` all members stall together
        between steps, where nothing is under way.
        """
        plan = Schedule(self.spec)
        self._fill(plan, tokens, blocks, routes, pace, slot)
        return plan

    def outline(
        self, tokens: int, blocks: int, routes: Routes, pace: Pace | None = None, slot: int = 0
    ) -> Outline:
        """The extents and counts of `schedule`, without its instructions."""
        plan = Outline(self.spec)
        self._fill(plan, tokens, blocks, routes, pace, slot)
        return plan

    def _fill(
        self,
        plan: Schedule | Outline,
        tokens: int,
        blocks: int,
        routes: Routes,
        pace: Pace | None,
        slot: int,
    ) -> None:
        found = Sequence(plan, pace)
        limit = pace.limit_cycles if pace else None
        for step in self.steps(tokens, blocks, routes, limit, slot):
            cycle = found.start(step.cycles)
            for part, everyone in step.parts:
                for members in everyone:
                    plan.repeat(part, cycle, step.moved, members)

    def steps(
        self,
        tokens: int,
        blocks: int,
        routes: Routes,
        most_cycles: int | None = None,
        slot: int = 0,
    ) -> Iterator[Step]:
        """What a launch does, in order; `routes` lead from each member to each other.

        The caches are those of sequence slot `slot`. A layer on a chip alone is one step, or four
        if it takes more than `most_cycles`.
        """
        for layer in range(self.shape.layers):
            moved = partial(self._moved, layer=layer, slot=slot)
            if self.members == 1:
                whole = self._once(("layer", tokens, blocks), self._layer, tokens, blocks)
                if most_cycles is None or whole.quiet_cycle <= most_cycles:
                    yield Step("layer", ((whole, (None,)),), moved)
                    continue
            attend, feed_forward = self.alone(tokens, blocks, moved)
            yield attend
            yield from self._update(tokens, routes, most_cycles, False)
            yield feed_forward
            yield from self._update(tokens, routes, most_cycles, True)
        if self.shape.vocab is not None and tokens == 1:
            yield self._compute("head", lambda _index, address: address, self._head)

    def alone(self, tokens: int, blocks: int, moved: Moved) -> tuple[Step, Step]:
        """Attention and FFN of a layer, up to where members exchange what they have."""
        attend = self._compute("attention", moved, self._attend, 0, tokens, blocks)
        return attend, self._compute("ffn", moved, self._feed_forward, 0, "x1", tokens)

    def _once(
        self, key: tuple[object, ...], place: Callable[..., None], *arguments: object
    ) -> Schedule:
        """The schedule that `place(plan, *arguments)` fills in; made once for each key."""
        if key not in self._parts:
            plan = Schedule(self.spec)
            place(plan, *arguments)
            self._parts[key] = plan
        return self._parts[key]

    def _compute(
        self, what: str, moved: Moved, place: Callable[..., None], *arguments: object
    ) -> Step:
        """What members do alone: placed once for all that do the same.

        Only in attention do members differ, by how their heads are assigned.
        """
        classes: dict[Heads | None, list[int]] = {}
        for member, shape in enumerate(self.shapes):
            classes.setdefault(shape.heads if what == "attention" else None, []).append(member)
        parts = []
        for mine in classes.values():
            key = (what, mine[0], *(a for a in arguments if isinstance(a, int)))
            part = self._once(key, place, mine[0], *arguments)
            parts.append((part, tuple({mine[0]: member} for member in mine)))
        return Step(what, tuple(parts), moved)

    def _update(
        self, tokens: int, routes: Routes, most_cycles: int | None, swap: bool
    ) -> Iterator[Step]:
        """x0 and the sum of all members' y into x1; x1 into x0 if they swap their places.

        If it takes more than `most_cycles`, it goes in steps of some of the tokens each.
        """

        def moved(index: int, address: int, first: int = 0) -> int:
            return first + (swapped(self.memory, index, address) if swap else address)

        if self.members == 1:
            alone = self._once(("residual", tokens), self._residual, "x0", "x1", tokens)
            yield Step("residual", ((alone, (None,)),), moved)
            return
        blocks = self.shape.hidden.count
        for some in at_a_time(blocks, self.members, tokens, routes, most_cycles):
            part = self._all_reduce(tokens, some, routes)
            if not most_cycles or part.quiet_cycle <= most_cycles:
                break
        for first in range(0, tokens, some):
            yield Step("all-reduce", ((part, (None,)),), partial(moved, first=first))

    def _all_reduce(self, tokens: int, some: int, routes: Routes) -> Schedule:
        key = ("all-reduce", tokens, some, *routes.items())
        if key not in self._parts:
            size = (self.shape.hidden.count, self.members, tokens, routes)
            update = AllReduce(self.memory, *size, "x0", "x1", some)
            self._parts[key] = update.shared_schedule()
        return self._parts[key]

    def _layer(self, plan: Schedule, tokens: int, blocks: int) -> None:
        """Layer 0 on a chip that has no others to wait for."""
        self._attend(plan, 0, 0, tokens, blocks)
        self._residual(plan, "x0", "x1", tokens)
        self._feed_forward(plan, 0, 0, "x1", tokens)
        self._residual(plan, "x1", "x0", tokens)

    def _moved(self, index: int, address: int, layer: int, slot: int) -> int:
        gamma = self.memory["gamma"].region
        if gamma.index <= index < gamma.index + gamma.slices and (
            gamma.address <= address < gamma.address + gamma.words
        ):
            return address + layer * 2 * self.shape.hidden.count
        return self.memory.moved(index, address, slot * self.shape.layers + layer)

    def view(self, name: str, vectors: int) -> Buffer:
        """A buffer cut to the rows a program with fewer tokens uses."""
        buffer = self.memory[name]
        region = buffer.region
        return Buffer(name, type(region)(region.index, region.address, vectors, region.dtype))

    def _norm(self, plan: Schedule, member: int, number: int, x: str, tokens: int) -> None:
        shape = self.shape
        source, scale = self.memory[x], self.view("scale", tokens)
        count = shape.hidden.count
        reduce = lanes.reduce_alike if self.int8 else lanes.reduce_lanes
        pointwise.rms_scale(
            plan, member, source, count, shape.hidden.total, shape.eps, scale, reduce
        )
        gamma = Rows(self.memory["gamma"], number * count)
        out = (self.memory["xn0"], self.memory["xn1"])
        if not self.int8:
            pointwise.apply_norm(plan, member, source, scale, gamma, count, out)
            return
        peak, inverse, step = (self.view(name, tokens) for name in ("peak", "inverse", "step"))
        quantise.peak(plan, member, source, gamma, count, peak, inverse)
        quantise.rounded(plan, member, source, gamma, count, inverse, out)
        quantise.normalised_step(plan, member, peak, scale, step)

    def _to_int8(self, plan: Schedule, member: int, name: str, blocks: int, tokens: int) -> None:
        """The fp32 rows of a buffer as int8, on both sides, under its name with the side."""
        inverse, step = self.view("inverse", tokens), self.view("step", tokens)
        source, out = self.memory[name], (self.memory[f"{name}0"], self.memory[f"{name}1"])
        quantise.peak(plan, member, source, None, blocks, step, inverse)
        quantise.rounded(plan, member, source, None, blocks, inverse, out)

    def _project(
        self,
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
            flow = self._biased(chain, flow, bias + first // tokens) if name[-1] in "qk" else flow
            for number, out in enumerate(outs):
                # what comes from the VXM goes one way; what comes from the MXM passes all slices
                again = number and flow.alu is not None
                value = chain.vxm("copy", flow) if again else flow
                chain.write(value, Rows(self.memory[out], first, (tokens, 1)))

        self._multiply(plan, member, name, source, tokens, store)

    def _biased(self, chain: Chain, flow: Flow, row: int) -> Flow:
        """A projection's rows with their biases, from bias row `row` on."""
        if not self.shape.biased:
            return flow
        return chain.vxm("add", flow, Rows(self.memory["bias"], row, (1, 0)))

    def _multiply(
        self,
        plan: Schedule,
        member: int,
        name: str,
        source: str,
        tokens: int,
        store: Callable[[Chain, Flow, int], None],
    ) -> None:
        """Place the product of a matrix; `store` gets each run's flow and its first output row."""
        matrix, words = self.matrix(name, member), self.matrices[name].matrix.words
        weights = self.matrices[name].buffer
        if not matrix.outputs:
            return
        chain = Chain(self.spec, f"matmul {name}", member)
        passes, word = [], 0
        for _, count, column in matrix.runs:
            for block in range(matrix.inputs):
                rows = Rows(self.memory[source], block * tokens, (0, 1))
                first, last = block == 0, block == matrix.inputs - 1
                part = Pass(weights, word, count, words, rows, tokens, column)
                passes.append(replace(part, first=first, last=last))
                word += count * words
        base = matrix.runs[0][0]
        flows = matmul(chain, matrix.side, passes)
        for flow, (start, _, _) in zip(flows, matrix.runs, strict=True):
            if self.int8:
                row = self.scales.row_of(name) + start - base
                scales = Rows(self.memory["scales"], row, (1, 0))
                flow = quantise.rescale(chain, flow, self.view("step", tokens), scales)
            store(chain, flow, (start - base) * tokens)
        plan.place(chain)

    def _attend(self, plan: Schedule, member: int, layer: int, tokens: int, blocks: int) -> None:
        self._norm(plan, member, 2 * layer, "x0", tokens)
        queries = len(self.shape.heads.kv_of)
        for name, source, bias in (("q", "xn0", 0), ("k", "xn1", queries)):
            self._project(plan, member, f"{layer}.{name}", source, tokens, name, bias=bias)
        self._values(plan, member, layer, tokens)
        heads, buffer = self.shapes[member].heads, self.memory
        cos, sin = self.view("cos", tokens), self.view("sin", tokens)
        count = len(heads.kv_of)
        pointwise.rotary(plan, member, buffer["k"], WEST, heads.rows, cos, sin, buffer["k16"])
        pointwise.rotary(plan, member, buffer["q"], EAST, count, cos, sin, buffer["q16"])
        for row in range(heads.rows):
            for side, source, cache in ((EAST, "k16", "K"), (WEST, "v16", "V")):
                rows = Rows(buffer[source], row * tokens)
                target = buffer[f"{layer}.{cache}{row}"]
                attention.append_cache(plan, member, side, rows, tokens, buffer["maps"], target)
        attention.attend(plan, member, self.memory, layer, heads, tokens, blocks)
        sums, values = (self.view(n, heads.packs * tokens) for n in ("sums", "values"))
        out = (buffer["o"],) if self.int8 else (buffer["o0"], buffer["o1"])
        attention.normalise(plan, member, values, sums, out)
        if self.int8:
            self._to_int8(plan, member, "o", heads.packs, tokens)
        for side in SIDES:
            self._project(plan, member, f"{layer}.o{side}", f"o{side}", tokens, f"y{side}")

    def _values(self, plan: Schedule, member: int, layer: int, tokens: int) -> None:
        """v16[row, token] = fp16 of the V projection, straight from the array through the VXM."""

        heads = self.shape.heads

        def store(chain: Chain, flow: Flow, first: int) -> None:
            rows = Rows(self.memory["v16"], first, (tokens, 1))
            flow = self._biased(chain, flow, len(heads.kv_of) + heads.rows + first // tokens)
            chain.write(chain.vxm("to_f16", flow), rows)

        self._multiply(plan, member, f"{layer}.v", "xn1", tokens, store)

    def _feed_forward(self, plan: Schedule, member: int, layer: int, x: str, tokens: int) -> None:
        self._norm(plan, member, 2 * layer + 1, x, tokens)
        self._project(plan, member, f"{layer}.gate", "xn0", tokens, "gate0", "gate1")
        self._project(plan, member, f"{layer}.up", "xn1", tokens, "up")
        buffer = self.memory
        gates = buffer["gate0"], buffer["gate1"]
        out = (buffer["h"],) if self.int8 else (buffer["h0"], buffer["h1"])
        for block in range(self.shape.ffn.count):
            first, kind = block * tokens, self.shape.activation
            pointwise.gated(plan, member, gates, buffer["up"], first, tokens, out, kind)
        if self.int8:
            self._to_int8(plan, member, "h", self.shape.ffn.count, tokens)
        for side in SIDES:
            self._project(plan, member, f"{layer}.down{side}", f"h{side}", tokens, f"y{side}")

    def _residual(self, plan: Schedule, before: str, after: str, tokens: int) -> None:
        """after = before + y, on a chip that holds all of y."""
        for side, part in zip(SIDES, halves(self.shape.hidden.count), strict=True):
            if len(part):
                first, count = part.start * tokens, len(part) * tokens
                x, out = (Rows(self.memory[name], first) for name in (before, after))
                operands = [x, Rows(self.memory[f"y{side}"])]
                pointwise.add_rows(plan, 0, operands, out, "residual", count)

    def _head(self, plan: Schedule, member: int) -> None:
        self._norm(plan, member, 2 * self.shape.layers, "x0", 1)
        for side in SIDES:
            self._project(plan, member, f"head{side}", f"xn{side}", 1, f"logits{side}")
