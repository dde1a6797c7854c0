"""From the nodes of a stretch to tapes: jobs become records where there is an opcode for them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import singledispatchmethod

import numpy as np
import numpy.typing as npt

from chip.isa import NUMPY_TYPES
from chip.isa.mxm import PLANES
from chip.linker.graph import made_by
from chip.linker.jobs import Append, Columns, Lanes, Pointwise, Products, Read, Store, Sums
from chip.linker.windows import Stretch, Template
from chip.numerics import opcodes as code
from chip.program import WEIGHT_SLICES, word_columns
from chip.spec import ChipSpec
from chip.sram import GROUP
from chip.tape.able import POINTWISE, taped
from chip.tape.operands import Shape, Values
from chip.tape.order import runs
from chip.tape.records import Operand, Records, lane_runs

Integers = npt.NDArray[np.int64]
ACCUMULATORS = 2 * PLANES
PARTS = WEIGHT_SLICES // GROUP
FORMATS = {"f16": code.FP16, "i8": code.INT8}
SCRATCH_BYTES = 1 << 24  # a pass takes no more products when it has this many


@dataclass(frozen=True)
class Tape:
    """Records [n, WIDTH] and the node each belongs to."""

    records: Integers
    owners: tuple[int, ...]


@dataclass(frozen=True)
class Encoded:
    """Per group its tapes, and between them the nodes that run their Python step.

    `views` are values of tapes that steps need, `imports` values of steps that tapes need: slots
    and shapes by node. `weights` are first SRAM groups of resting weights; `log_bytes` is room for
    the addresses of appended rows, after how many there are of each append.
    """

    groups: tuple[tuple[Tape | int, ...], ...]
    tables: Integers
    constants: npt.NDArray[np.uint8]
    arena_bytes: int
    scratch_bytes: int
    log_bytes: int
    views: dict[int, tuple[int, Shape]]
    imports: dict[int, tuple[int, Shape]]
    weights: frozenset[int]
    appends: tuple[tuple[int, int, int], ...]  # group, slice, place in the log


def encoded(stretch: Stretch, spec: ChipSpec) -> Encoded:
    """The tapes of a stretch, made when first asked for."""
    if not stretch.made:
        stretch.made.append(_Encoder(stretch.template, spec).encode(stretch.groups))
    found: Encoded = stretch.made[0]
    return found


class _Encoder:
    def __init__(self, template: Template, spec: ChipSpec) -> None:
        self.template, self.spec = template, spec
        self.nodes = template.graph.nodes
        self.records = Records(spec.lanes)
        self.taped = taped(self.nodes)
        self.resting: set[int] = set()
        self.values = Values(self.records, {})
        for number in range(len(self.nodes)):
            shape = self._shape(number)
            if shape is not None:
                self.values.shapes[number] = shape
        self.scratch = self.scratch_bytes = self.log = 0
        self.weights: set[int] = set()
        self.appends: list[tuple[int, int, int]] = []
        self.group = 0

    def _shape(self, number: int) -> Shape | None:
        """Of a node's value; None if it has none."""
        node = self.nodes[number]
        match node.job:
            case Read(words=words, element=element):
                return Shape(len(words), element)
            case Pointwise(made=made, rows=rows):
                return Shape(rows, made)
            case Lanes(element=element, rows=rows):
                return Shape(rows, element)
            case Products(tile=tile, made=made):
                return Shape(len(tile), made)
            case Sums(slots=slots, element=element, emits=True):
                return Shape(len(slots), element)
            case Columns(words=words):
                return Shape(words.size, "u8", words.size * PARTS * self.records.word_bytes)
            case None:
                issue = self.template.issues[node.issues[0]]
                if issue.op.driven is not None or issue.op.name == "mxm.abc":
                    return Shape(issue.instruction.count, made_by(issue))
        return None

    # --- order and lifetimes ----------------------------------------------------------------
    def encode(self, groups: Sequence[Sequence[int]]) -> Encoded:
        self.resting = self._resting(groups)
        is_product: Callable[[int], bool] = lambda n: (  # noqa: E731
            self.taped[n] and isinstance(self.nodes[n].job, Products)
        )
        ordered = [runs(group, self.template.before, is_product) for group in groups]
        last = self._last_uses(ordered)
        made: list[tuple[Tape | int, ...]] = []
        position = 0
        for self.group, found in enumerate(ordered):
            items: list[Tape | int] = []
            owners: list[int] = []
            for run in found:
                if self.taped[run[0]]:
                    self._run(run, owners)
                else:
                    self._close(items, owners)
                    items.append(run[0])
                    if run[0] in last and run[0] in self._imported():
                        self.values.make(run[0])
                self.values.drop_temporary()
                for node in self._done(position, last):
                    self.values.drop(node)
                position += 1
            self._close(items, owners)
            made.append(tuple(items))
        return self._result(tuple(made))

    def _resting(self, groups: Sequence[Sequence[int]]) -> set[int]:
        """Columns that nobody writes until their products are over: these need no copy."""
        segment = {node: number for number, group in enumerate(groups) for node in group}
        found = {n for n, node in enumerate(self.nodes) if isinstance(node.job, Columns)}
        for node, before in self.template.before.items():
            for need in found & before:
                alike = segment[node] == segment[need] and self.taped[node]
                if not (isinstance(self.nodes[node].job, Products) and alike):
                    found.discard(need)
        return found

    def _last_uses(self, ordered: list[list[list[int]]]) -> dict[int, int]:
        last: dict[int, int] = {}
        position = 0
        for group in ordered:
            for run in group:
                for node in run:
                    for need in self.nodes[node].needs:
                        last[need] = position
                    last.setdefault(node, position)
                position += 1
        self._ends: dict[int, list[int]] = {}
        for node, end in last.items():
            self._ends.setdefault(end, []).append(node)
        return last

    def _done(self, position: int, last: dict[int, int]) -> list[int]:
        return [n for n in self._ends.get(position, ()) if n in self.values.slots]

    def _imported(self) -> set[int]:
        """Nodes that run their step and feed a tape."""
        if not hasattr(self, "_imports"):
            self._imports = {
                need
                for n, node in enumerate(self.nodes)
                if self.taped[n]
                for need in node.needs
                if not self.taped[need]
            }
        return self._imports

    def _run(self, run: list[int], owners: list[int]) -> None:
        """Records of a run; operands of products come first, so that these stand together."""
        rows = self.records.rows
        products: list[tuple[int, list[int]]] = []
        self.scratch = unit = 0
        for node in run:
            if self.scratch > SCRATCH_BYTES:
                self._together(products, owners)
                self.scratch = unit = 0
            job, before = self.nodes[node].job, len(rows)
            if isinstance(job, Products):
                products.append((node, self._product(node, job, unit)))
                unit += job.columns.words.size
            else:
                self.write(job, node)
            owners += [node] * (len(rows) - before)
        self._together(products, owners)

    def _together(self, products: list[tuple[int, list[int]]], owners: list[int]) -> None:
        """Records of products that are one pass of all threads."""
        for number, (node, record) in enumerate(products):
            record[code.LEFT] = len(products) - number
            self.records.rows.append(record)
            owners.append(node)
        products.clear()
        self.scratch_bytes = max(self.scratch_bytes, self.scratch)

    def _close(self, items: list[Tape | int], owners: list[int]) -> None:
        if self.records.rows:
            records = np.array(self.records.rows, np.int64)
            items.append(Tape(records, tuple(owners)))
            self.records.rows = []
            owners.clear()

    def _result(self, groups: tuple[tuple[Tape | int, ...], ...]) -> Encoded:
        slots, shapes = self.values.slots, self.values.shapes
        needed = {
            need for n, node in enumerate(self.nodes) if not self.taped[n] for need in node.needs
        }
        tables = self.records.tables or [np.zeros(1, np.int64)]
        return Encoded(
            groups=groups,
            tables=np.concatenate(tables),
            constants=np.frombuffer(b"".join(self.records.constants) or bytes(64), np.uint8),
            arena_bytes=self.values.arena.size,
            scratch_bytes=self.scratch_bytes,
            log_bytes=self.log,
            views={n: (slots[n], shapes[n]) for n in needed if n in slots and self.taped[n]},
            imports={n: (slots[n], shapes[n]) for n in self._imported() if n in slots},
            weights=frozenset(self.weights),
            appends=tuple(self.appends),
        )

    # --- records ----------------------------------------------------------------------------
    @singledispatchmethod
    def write(self, job: object, node: int) -> None:
        """Append the records of a job."""
        raise KeyError(job)

    @write.register
    def _(self, job: Read, node: int) -> None:
        size = NUMPY_TYPES[job.element].itemsize
        a = self.records.in_sram(job.index, job.words, job.local)
        out = self.values.whole(node)
        step = GROUP // size
        self.records.add(code.COPY, len(job.words), out, a, SIZE=size, FROM=step, TO=1, TOUCHED=-1)

    @write.register
    def _(self, job: Store, node: int) -> None:
        size = NUMPY_TYPES[job.element].itemsize
        a = self.values.operand(job.source, len(job.words), job.element)
        out = self.records.in_sram(job.index, job.words, job.local)
        step, group = GROUP // size, job.index // GROUP
        self.records.add(
            code.COPY, len(job.words), out, a, SIZE=size, FROM=1, TO=step, TOUCHED=group
        )

    @write.register
    def _(self, job: Pointwise, node: int) -> None:
        sources = [self.values.operand(s, job.rows, job.element) for s in job.sources]
        out = self.values.whole(node)
        if job.op == "vxm.copy":
            size = NUMPY_TYPES[job.made].itemsize
            self.records.add(
                code.COPY, job.rows, out, sources[0], SIZE=size, FROM=1, TO=1, TOUCHED=-1
            )
        else:
            op = POINTWISE[job.op, job.element, job.made]
            self.records.add(op, job.rows, out, *sources)

    @write.register
    def _(self, job: Lanes, node: int) -> None:
        a = self.values.operand(job.source, job.rows, job.element)
        size = NUMPY_TYPES[job.element].itemsize
        runs = lane_runs(job.lanes)
        where = self.records.table(runs if len(runs) else job.lanes)
        out = self.values.whole(node)
        self.records.add(code.LANES, job.rows, out, a, SIZE=size, MAP=where, RUNS=len(runs))

    @write.register
    def _(self, job: Sums, node: int) -> None:
        rows, size = len(job.slots), 4 * self.spec.lanes
        a = self.values.operand(job.source, rows, job.element)
        base = code.GROUPS + -(-self.spec.slices // GROUP) + job.unit
        held = self.records.rows_of(base, 0, size, job.slots)
        if job.mode:
            op = code.ADD if job.element == "f32" else code.ADD_I32
            self.records.add(op, rows, held, held, a)
        elif np.ptp(job.slots) == 0:  # the last of those that are set is what stays
            last = self.records.row(a, rows - 1)
            self.records.add(code.COPY, 1, held, last, SIZE=4, FROM=1, TO=1, TOUCHED=-1)
        else:
            self.records.add(code.COPY, rows, held, a, SIZE=4, FROM=1, TO=1, TOUCHED=-1)
        if job.emits:
            out = self.values.whole(node)
            new = held if job.mode else a  # a setting ACC may name a slot twice
            self.records.add(code.COPY, rows, out, new, SIZE=4, FROM=1, TO=1, TOUCHED=-1)

    @write.register
    def _(self, job: Columns, node: int) -> None:
        """A copy of the words, where they may change before the last product with them."""
        if node in self.resting:
            return
        words, size = job.words.ravel(), self.records.word_bytes
        offset = self.values.make(node)
        for part in range(PARTS):
            a = self.records.in_sram(job.index + part * GROUP, words, job.local)
            out: Operand = (code.ARENA, offset + part * len(words) * size, size, -1, -1)
            self.records.add(code.COPY, len(words), out, a, SIZE=4, FROM=1, TO=1, TOUCHED=-1)

    @write.register
    def _(self, job: Append, node: int) -> None:
        pairs, rows = job.map_words.shape
        region, maps, data = job.locals
        self.appends.append((self.group, job.index, self.log))
        log = code.GROUPS + -(-self.spec.slices // GROUP) + ACCUMULATORS
        self.records.add(
            code.APPEND,
            pairs * rows,
            (log, self.log, 0, -1, -1),
            self.records.in_sram(job.data_slice, job.data_words.ravel(), data),
            self.records.in_sram(job.map_slice, job.map_words.ravel(), maps),
            REGION_SHIFT=region,
            REGION_BASE=job.base,
            REGION_WORDS=job.count,
            FIRST_GROUP=job.index // GROUP,
            PAIRS=pairs,
        )
        self.log += 8 * (1 + pairs * rows * self.spec.superlanes)

    def _product(self, node: int, job: Products, unit: int) -> list[int]:
        columns, lanes = job.columns, self.spec.lanes
        tiles, loads = columns.words.shape
        fp16 = columns.format == "f16"
        a = self.values.operand(job.source, job.rows, columns.format)
        order = np.argsort(job.tile, kind="stable")
        starts = np.searchsorted(job.tile[order], np.arange(tiles + 1))
        x_bytes = 8 * (lanes + code.X_ABOUT) if fp16 else 8 * lanes
        x_scratch, self.scratch = self.scratch, self.scratch + -(-job.rows * x_bytes // 64) * 64
        out_scratch = self.scratch
        self.scratch += 4 * lanes * len(job.tile)
        rows, table = self.records.rows, self.records.table
        record = self.records.add(
            code.PRODUCTS, len(job.tile), self.values.whole(node), a,
            FORMAT=FORMATS[columns.format], TILES=tiles, LOADS=loads,
            TABLE_FIRST=table(job.first_column), STARTS=table(starts), ORDER=table(order),
            X_ROWS=job.rows, UNIT=unit, X_SCRATCH=x_scratch, OUT_SCRATCH=out_scratch,
            ZEROED=loads * word_columns(columns.format) < lanes,
        )  # fmt: skip
        for name, value in self._place(job).items():
            record[getattr(code, name)] = value
        rows.pop()
        return record

    def _place(self, job: Products) -> dict[str, int]:
        """Where the words are: at rest, or kept in the arena."""
        columns, table = job.columns, self.records.table
        if job.kept is None or job.kept in self.resting:
            group = columns.index // GROUP
            if job.kept is None:
                self.weights.add(group)
            return {
                "TABLE_WORDS": table(columns.words), "PARTS_BASE": code.GROUPS + group,
                "PARTS_SHIFT": columns.local, "STATS": -1 if job.kept in self.resting else group,
            }  # fmt: skip
        count, offset = columns.words.size, self.values.make(job.kept)
        size = count * self.records.word_bytes
        return {
            "TABLE_WORDS": table(np.arange(count)), "PARTS_BASE": code.ARENA,
            "PARTS_OFFSET": offset, "PARTS_STEP": size, "PARTS_SHIFT": -1,
            "STATS": -1,
        }  # fmt: skip
