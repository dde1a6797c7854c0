"""From the nodes of a fragment to tapes: records where there is a kernel for a node."""

from collections.abc import Sequence
from functools import singledispatchmethod

import numpy as np

from chip.isa import NUMPY_TYPES, lookup
from chip.isa.mxm import PLANES
from chip.jit.activations import spreader
from chip.jit.layout import (
    APPEND,
    ARENA,
    FP16,
    GATHER,
    GROUPS,
    INT8,
    NOTHING,
    PRODUCTS,
    QUARTERS,
    RECORD,
    ROWS,
    SHARED,
    STATISTICS,
    Operand,
    Record,
    x_bytes,
)
from chip.jit.rows import copy_kernel, row_kernel
from chip.jit.words import multiplier
from chip.linker.fetch import Ints
from chip.linker.fragment import Fragment
from chip.linker.node_ops import (
    Accumulate,
    Append,
    Columns,
    Gather,
    GatheredColumns,
    MoveLanes,
    NodeOp,
    Pointwise,
    Products,
    Read,
    Resting,
    Store,
)
from chip.program import word_columns
from chip.spec import ChipSpec
from chip.sram import GROUP, Places
from chip.tape.able import taped
from chip.tape.arena import Arena
from chip.tape.operands import Values
from chip.tape.order import Kind
from chip.tape.plan import Plan
from chip.tape.records import Records
from chip.tape.tapes import Encoded, Tape, shape_of
from chip.tape.tasks import MOST_TASKS, Task, staying

ACCUMULATORS = 2 * PLANES
FORMATS = {"f16": FP16, "i8": INT8}
ADDITION = lookup("vxm.add")
SCRATCH_BYTES = 1 << 24  # a pass takes no more products when it has this many


def encode(fragment: Fragment, spec: ChipSpec) -> Encoded:
    """The tapes of a fragment."""
    return _Encoder(fragment, spec).encode()


class _Encoder:
    def __init__(self, fragment: Fragment, spec: ChipSpec) -> None:
        self.nodes, self.spec = fragment.steps, spec
        self.records = Records(spec.lanes)
        self.taped = taped(self.nodes, spec.lanes)
        self.plan = Plan.of(fragment, self.taped)
        shapes = {n: shape_of(node, spec.lanes) for n, node in enumerate(self.nodes)}
        self.values = Values(self.records, {n: shape for n, shape in shapes.items() if shape})
        for number in self.plan.in_place:
            op = self.nodes[number].op
            if isinstance(op, Read):
                self.values.resting[number] = self.records.word(op.index, op.local), op.words
        self.arenas = [Arena() for _ in range(MOST_TASKS)]
        self.shared = False  # whether threads share what is being written
        self.scratch = self.scratch_bytes = self.log = 0
        self.weights: set[int] = set()
        self.places: dict[Places, int] = {}
        self.appends: list[tuple[int, int, int]] = []
        self.group = 0

    # --- units ------------------------------------------------------------------------------
    def encode(self) -> Encoded:
        made: list[tuple[Tape | int, ...]] = []
        position = 0
        for group, parts in enumerate(self.plan.groups):
            self.group = group
            items: list[Tape | int] = []
            for kind, nodes, found in parts:
                if kind == Kind.STEP:
                    self._close(items)
                    items += nodes
                    for node in self.plan.imports.intersection(nodes):
                        self.values.make(node)
                elif kind == Kind.ROWS:
                    self._tasks(found)
                elif kind == Kind.PRODUCTS:
                    self._products(nodes)
                else:
                    for node in nodes:
                        self._write(node, None)
                self.values.drop_temporary()
                for node in self.plan.ends[position]:
                    if node in self.values.slots:
                        self.values.drop(node)
                position += 1
            self._close(items)
            made.append(tuple(items))
        return self._result(tuple(made))

    def _write(self, node: int, rows: Ints | None) -> None:
        """The records of a node, or of some of its rows."""
        self.records.owner = node
        self.write(self.nodes[node].op, node, rows)

    def _tasks(self, tasks: Sequence[Task]) -> None:
        """Records of rows that work apart: behind one that says where each task begins."""
        rows, head = self.records.records, len(self.records.records)
        self.shared, starts = len(tasks) > 1, []
        if self.shared:
            self.records.add(Record(SHARED, 0, NOTHING, NOTHING))
        for number, task in enumerate(tasks):
            starts.append(len(rows) - head)
            self.values.begin(self._base(number), self.arenas[number])
            self._task(task)
            self.values.end()
        if self.shared:
            table = self.records.table(np.array([*starts, len(rows) - head]))
            rows[head] = rows[head]._replace(tiles=len(tasks), start_table=table)
        self.shared = False

    def _task(self, task: Task) -> None:
        last = {need: node for node, _ in task for need in self.nodes[node].needs}
        for node, rows in task:
            if node in self.plan.in_place:
                continue
            if node in self.plan.within and node in self.values.shapes:
                self.values.make_own(node, rows)
            self._write(node, rows)
            self.values.drop_temporary()
            for need in (node, *self.nodes[node].needs):
                if need in self.values.own and last.get(need, node) == node:
                    self.values.drop_own(need)

    def _products(self, nodes: Sequence[int]) -> None:
        """Records of products; their operands come first, so that these stand together."""
        products: list[tuple[int, Record]] = []
        self.scratch = load = 0
        for node in nodes:
            if self.scratch > SCRATCH_BYTES:
                self._together(products)
                self.scratch = load = 0
            op, self.records.owner = self.nodes[node].op, node
            assert isinstance(op, Products)
            assert isinstance(op.weights, Resting)
            products.append((node, self._product(node, op, op.weights, load)))
            load += op.weights.columns.words.size
        self._together(products)

    def _together(self, products: list[tuple[int, Record]]) -> None:
        """Records of products that are one pass of all threads."""
        for number, (node, record) in enumerate(products):
            self.records.owner = node
            self.records.add(record._replace(left=len(products) - number))
        products.clear()
        self.scratch_bytes = max(self.scratch_bytes, self.scratch)

    def _close(self, items: list[Tape | int]) -> None:
        if self.records.records:
            records = np.array(self.records.records, RECORD)
            items.append(Tape(records, tuple(self.records.owners)))
            self.records.records, self.records.owners = [], []

    def _base(self, task: int) -> int:
        """Of the arena of a task: behind SRAM, accumulators and log."""
        return GROUPS + -(-self.spec.slices // GROUP) + ACCUMULATORS + 1 + task

    def _result(self, groups: tuple[tuple[Tape | int, ...], ...]) -> Encoded:
        slots, shapes = self.values.slots, self.values.shapes
        # A gather that fails is a step once more, which says what is wrong with its map.
        steps = (
            node
            for n, node in enumerate(self.nodes)
            if not self.taped[n] or isinstance(node.op, Gather | GatheredColumns)
        )
        needed = {need for node in steps for need in node.needs}
        tables = self.records.tables or [np.zeros(1, np.int64)]
        return Encoded(
            groups=groups,
            tables=np.concatenate(tables),
            constants=np.frombuffer(b"".join(self.records.constants) or bytes(64), np.uint8),
            arena_bytes=self.values.common.size,
            task_bytes=max(arena.size for arena in self.arenas),
            scratch_bytes=self.scratch_bytes,
            log_bytes=self.log,
            views={n: (slots[n], shapes[n]) for n in needed if n in slots and self.taped[n]},
            imports={n: (slots[n], shapes[n]) for n in self.plan.imports if n in slots},
            weights=frozenset(self.weights),
            places=tuple(self.places),
            appends=tuple(self.appends),
        )

    # --- records ----------------------------------------------------------------------------
    @singledispatchmethod
    def write(self, op: NodeOp, node: int, rows: Ints) -> None:
        """Append the records of rows of a node, or of all of it where it is not done by rows."""
        raise KeyError(op)

    @write.register
    def _(self, op: Read, node: int, rows: Ints) -> None:
        size = NUMPY_TYPES[op.element].itemsize
        a = self.records.in_sram(op.index, op.words[rows], op.local)
        out = self.values.placed(node, rows)
        self.records.add(
            Record(ROWS, len(rows), out, a, kernel=copy_kernel(size, GROUP // size, 1))
        )

    @write.register
    def _(self, op: Store, node: int, rows: Ints) -> None:
        size = NUMPY_TYPES[op.element].itemsize
        a = self.values.operand(op.source, rows, op.element)
        out = self.records.in_sram(op.index, op.words[rows], op.local)
        kernel = copy_kernel(size, 1, GROUP // size, self.shared)
        self.records.add(Record(ROWS, len(rows), out, a, kernel=kernel, touched=op.index // GROUP))

    @write.register
    def _(self, op: Pointwise, node: int, rows: Ints) -> None:
        sources = [self.values.operand(s, rows, op.element) for s in op.sources]
        out = self.values.placed(node, rows)
        if op.op.copies:
            self._copy(len(rows), out, sources[0], NUMPY_TYPES[op.made].itemsize)
        else:
            kernel = row_kernel(op.op, op.element, op.made)
            a, b = sources[0], sources[-1]
            self.records.add(Record(ROWS, len(rows), out, a, b, kernel=kernel))

    @write.register
    def _(self, op: MoveLanes, node: int, rows: Ints) -> None:
        a = self.values.operand(op.sources[0], rows, op.element)
        assert op.lanes is not None
        kernel, lanes = self.records.moves(NUMPY_TYPES[op.element].itemsize, op.lanes)
        self.records.add(
            Record(ROWS, len(rows), self.values.placed(node, rows), a, lanes, kernel=kernel)
        )

    @write.register
    def _(self, op: Accumulate, node: int, rows: Ints) -> None:
        a = self.values.operand(op.source, rows, op.element)
        base = GROUPS + -(-self.spec.slices // GROUP) + op.unit
        first = Operand(base, 0, 4 * self.spec.lanes)
        held = self.records.chosen(first, op.slots[rows])
        if op.mode:
            kernel = row_kernel(ADDITION, op.element, op.element)
            self.records.add(Record(ROWS, len(rows), held, held, a, kernel=kernel))
        else:
            stay = np.intersect1d(staying(op), rows)
            last = a if len(stay) == len(rows) else self.values.operand(op.source, stay, op.element)
            if len(stay):
                self._copy(len(stay), self.records.chosen(first, op.slots[stay]), last, 4)
        if op.emits:
            self._copy(len(rows), self.values.placed(node, rows), held if op.mode else a, 4)

    @write.register
    def _(self, op: Columns, node: int, _rows: None) -> None:
        """A copy of the words, where they may change before the last product with them."""
        if node in self.plan.in_place:
            return
        words, size = op.words.ravel(), self.records.word_bytes
        offset = self.values.make(node)
        for quarter, (index, further) in enumerate(op.places):
            a = self.records.in_sram(index, words + further, op.local)
            out = Operand(ARENA, offset + quarter * len(words) * size, size)
            self._copy(len(words), out, a, 4)

    @write.register
    def _(self, op: Gather, node: int, _rows: None) -> None:
        out, rows = self.values.placed(node), self.values.shapes[node].rows
        a, at = self.values.operand(op.map, np.arange(rows), "u16"), (op.unit, op.base)
        self._gather(op, Record(GATHER, rows, out, a, width=1, byte=op.unit % GROUP), *at)

    @write.register
    def _(self, op: GatheredColumns, node: int, _rows: None) -> None:
        """As a copy of columns that may change: quarter by quarter."""
        rows, size = np.arange(op.rows), self.records.word_bytes
        a = self.values.operand(op.map, rows, "u16")
        offset = self.values.make(node)
        for quarter, (index, further) in enumerate(op.places):
            out = Operand(ARENA, offset + quarter * op.rows * size, size)
            self._gather(op, Record(GATHER, op.rows, out, a), index, op.base + further)

    def _gather(self, op: Gather | GatheredColumns, record: Record, index: int, base: int) -> None:
        """Append the record with where its region is: from slice `index` and word `base` on."""
        self.records.add(
            record._replace(
                region_shift=op.local,
                region_base=base,
                region_words=op.count,
                first_group=index // GROUP,
            )
        )

    @write.register
    def _(self, op: Append, node: int, _rows: None) -> None:
        pairs, rows = op.map_words.shape
        region, maps, data = op.locals
        self.appends.append((self.group, op.index, self.log))
        log = GROUPS + -(-self.spec.slices // GROUP) + ACCUMULATORS
        self.records.add(
            Record(
                APPEND,
                pairs * rows,
                Operand(log, self.log, 0),
                self.records.in_sram(op.data_slice, op.data_words.ravel(), data),
                self.records.in_sram(op.map_slice, op.map_words.ravel(), maps),
                region_shift=region,
                region_base=op.base,
                region_words=op.count,
                first_group=op.index // GROUP,
                pairs=pairs,
            )
        )
        self.log += 8 * (1 + pairs * rows * self.spec.superlanes)

    def _copy(self, rows: int, out: Operand, a: Operand, size: int) -> None:
        self.records.add(Record(ROWS, rows, out, a, kernel=copy_kernel(size)))

    def _product(self, node: int, op: Products, weights: Resting, load: int) -> Record:
        columns, lanes, table = weights.columns, self.spec.lanes, self.records.table
        tiles, loads = columns.words.shape
        format = FORMATS[columns.format]
        a = self.values.operand(op.source, np.arange(op.rows), columns.format)
        order = np.argsort(op.tile, kind="stable")
        starts = np.searchsorted(op.tile[order], np.arange(tiles + 1))
        size = -(-op.rows * x_bytes(format, lanes) // 64) * 64
        x_scratch, self.scratch = self.scratch, self.scratch + size
        out_scratch, self.scratch = self.scratch, self.scratch + 4 * lanes * len(op.tile)
        statistics_scratch = self.scratch
        self.scratch += STATISTICS.itemsize * tiles * loads
        record = Record(
            PRODUCTS,
            len(op.tile),
            self.values.placed(node),
            a,
            format=format,
            spread=spreader(format),
            multiply=multiplier(format),
            tiles=tiles,
            loads=loads,
            column_table=table(op.first_column),
            start_table=table(starts),
            order_table=table(order),
            x_rows=op.rows,
            first_load=load,
            x_scratch=x_scratch,
            out_scratch=out_scratch,
            statistics_scratch=statistics_scratch,
            zeroed=int(loads * word_columns(columns.format) < lanes),
        )
        return self._placed(record, weights)

    def _resting_at(self, columns: Columns, constant: bool) -> tuple[int, int]:
        """The first of the four bases of columns, and where what is known of them is kept.

        That is -1 for what is not in 16 neighbours and may be written: compiled code forgets only
        words of neighbours.
        """
        groups, group = -(-self.spec.slices // GROUP), columns.places[0][0] // GROUP
        if columns.neighbours:
            self.weights.add(group)
            return GROUPS + group, group
        number = self.places.setdefault(columns.places, len(self.places))
        first = self._base(MOST_TASKS) + QUARTERS * number
        return first, groups + number if constant else -1

    def _placed(self, record: Record, weights: Resting) -> Record:
        """The record with where its words are: at rest, or copied to the arena by their reader."""
        columns, reader, table = weights.columns, weights.reader, self.records.table
        if reader is None or reader in self.plan.in_place:
            base, number = self._resting_at(columns, reader is None)
            return record._replace(
                word_table=table(columns.words),
                quarters_base=base,
                quarters_shift=columns.local,
                statistics=number,
            )
        count = columns.words.size
        return record._replace(
            word_table=table(np.arange(count)),
            quarters_base=ARENA,
            quarters_offset=self.values.make(reader),
            quarters_step=count * self.records.word_bytes,
        )
