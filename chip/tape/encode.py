"""From the nodes of a fragment to tapes: records where there is a kernel for a node."""

from collections import defaultdict
from collections.abc import Callable, Sequence
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
    PRODUCTS,
    QUARTERS,
    RECORD,
    ROWS,
    STATISTICS,
    Operand,
    Record,
    x_bytes,
)
from chip.jit.rows import copy_kernel, row_kernel
from chip.jit.words import multiplier
from chip.linker.fragment import Fragment, Step
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
from chip.tape.operands import Values
from chip.tape.order import last_uses, runs
from chip.tape.records import Records
from chip.tape.tapes import Encoded, Shape, Tape

ACCUMULATORS = 2 * PLANES
FORMATS = {"f16": FP16, "i8": INT8}
ADDITION = lookup("vxm.add")
SCRATCH_BYTES = 1 << 24  # a pass takes no more products when it has this many


def encode(fragment: Fragment, spec: ChipSpec) -> Encoded:
    """The tapes of a fragment."""
    return _Encoder(fragment.steps, spec).encode(fragment.groups)


class _Encoder:
    def __init__(self, steps: tuple[Step, ...], spec: ChipSpec) -> None:
        self.nodes, self.spec = steps, spec
        self.records = Records(spec.lanes)
        self.taped = taped(self.nodes, spec.lanes)
        # Nodes that are interpreted and feed a tape.
        pairs = ((n, need) for n, node in enumerate(self.nodes) for need in node.needs)
        self.imports = {need for n, need in pairs if self.taped[n] and not self.taped[need]}
        self.in_place: set[int] = set()
        self.values = Values(self.records, {})
        for number in range(len(self.nodes)):
            shape = self._shape(number)
            if shape is not None:
                self.values.shapes[number] = shape
        self.scratch = self.scratch_bytes = self.log = 0
        self.weights: set[int] = set()
        self.places: dict[Places, int] = {}
        self.appends: list[tuple[int, int, int]] = []
        self.group = 0

    def _shape(self, number: int) -> Shape | None:
        """Of a node's value; None if it has none."""
        node = self.nodes[number]
        match node.op:
            case Read(words=words, element=element):
                return Shape(len(words), element)
            case Pointwise(made=made, rows=rows):
                return Shape(rows, made)
            case Products(tile=tile, made=made):
                return Shape(len(tile), made)
            case Accumulate(slots=slots, element=element, emits=emits):
                return Shape(len(slots), element) if emits else None
            case Columns(words=words):
                return Shape(words.size, "u8", words.size * QUARTERS * self.records.word_bytes)
            case GatheredColumns(rows=rows):
                return Shape(rows, "u8", rows * QUARTERS * self.records.word_bytes)
        return Shape(node.rows, node.element) if node.element else None

    # --- order and lifetimes ----------------------------------------------------------------
    def encode(self, groups: Sequence[Sequence[int]]) -> Encoded:
        self.in_place = self._in_place(groups)
        is_product: Callable[[int], bool] = lambda n: (  # noqa: E731
            self.taped[n] and isinstance(self.nodes[n].op, Products)
        )
        before = [node.before for node in self.nodes]
        ordered = [runs(group, before, is_product) for group in groups]
        last = last_uses(ordered, lambda n: self.nodes[n].needs)
        ends: defaultdict[int, list[int]] = defaultdict(list)
        for node, end in last.items():
            ends[end].append(node)
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
                    if run[0] in last and run[0] in self.imports:
                        self.values.make(run[0])
                self.values.drop_temporary()
                for node in ends[position]:
                    if node in self.values.slots:
                        self.values.drop(node)
                position += 1
            self._close(items, owners)
            made.append(tuple(items))
        return self._result(tuple(made))

    def _in_place(self, groups: Sequence[Sequence[int]]) -> set[int]:
        """Columns that nobody writes until their products are over: these need no copy."""
        segment = {node: number for number, group in enumerate(groups) for node in group}
        found = {n for n, node in enumerate(self.nodes) if isinstance(node.op, Columns)}
        for node, step in enumerate(self.nodes):
            for need in found.intersection(step.before):
                alike = segment[node] == segment[need] and self.taped[node]
                if not (isinstance(self.nodes[node].op, Products) and alike):
                    found.discard(need)
        return found

    def _run(self, run: list[int], owners: list[int]) -> None:
        """Records of a run; operands of products come first, so that these stand together."""
        rows = self.records.records
        products: list[tuple[int, Record]] = []
        self.scratch = load = 0
        for node in run:
            if self.scratch > SCRATCH_BYTES:
                self._together(products, owners)
                self.scratch = load = 0
            op, before = self.nodes[node].op, len(rows)
            if isinstance(op, Products) and isinstance(op.weights, Resting):
                products.append((node, self._product(node, op, op.weights, load)))
                load += op.weights.columns.words.size
            else:
                self.write(op, node)
            owners += [node] * (len(rows) - before)
        self._together(products, owners)

    def _together(self, products: list[tuple[int, Record]], owners: list[int]) -> None:
        """Records of products that are one pass of all threads."""
        for number, (node, record) in enumerate(products):
            self.add(record._replace(left=len(products) - number))
            owners.append(node)
        products.clear()
        self.scratch_bytes = max(self.scratch_bytes, self.scratch)

    def _close(self, items: list[Tape | int], owners: list[int]) -> None:
        if self.records.records:
            items.append(Tape(np.array(self.records.records, RECORD), tuple(owners)))
            self.records.records = []
            owners.clear()

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
            arena_bytes=self.values.arena.size,
            scratch_bytes=self.scratch_bytes,
            log_bytes=self.log,
            views={n: (slots[n], shapes[n]) for n in needed if n in slots and self.taped[n]},
            imports={n: (slots[n], shapes[n]) for n in self.imports if n in slots},
            weights=frozenset(self.weights),
            places=tuple(self.places),
            appends=tuple(self.appends),
        )

    # --- records ----------------------------------------------------------------------------
    def add(self, record: Record) -> None:
        """Append a record."""
        self.records.records.append(record)

    @singledispatchmethod
    def write(self, op: NodeOp, node: int) -> None:
        """Append the records of a node."""
        raise KeyError(op)

    @write.register
    def _(self, op: Read, node: int) -> None:
        size = NUMPY_TYPES[op.element].itemsize
        a = self.records.in_sram(op.index, op.words, op.local)
        out = self.values.whole(node)
        self.add(Record(ROWS, len(op.words), out, a, kernel=copy_kernel(size, GROUP // size, 1)))

    @write.register
    def _(self, op: Store, node: int) -> None:
        size, rows = NUMPY_TYPES[op.element].itemsize, len(op.words)
        a = self.values.operand(op.source, rows, op.element)
        out = self.records.in_sram(op.index, op.words, op.local)
        kernel = copy_kernel(size, 1, GROUP // size)
        self.add(Record(ROWS, rows, out, a, kernel=kernel, touched=op.index // GROUP))

    @write.register
    def _(self, op: Pointwise, node: int) -> None:
        sources = [self.values.operand(s, op.rows, op.element) for s in op.sources]
        out = self.values.whole(node)
        if op.op.copies:
            self._copy(op.rows, out, sources[0], NUMPY_TYPES[op.made].itemsize)
        else:
            kernel = row_kernel(op.op, op.element, op.made)
            a, b = sources[0], sources[-1]
            self.add(Record(ROWS, op.rows, out, a, b, kernel=kernel))

    @write.register
    def _(self, op: MoveLanes, node: int) -> None:
        a = self.values.operand(op.sources[0], op.rows, op.element)
        assert op.lanes is not None
        kernel, lanes = self.records.moves(NUMPY_TYPES[op.element].itemsize, op.lanes)
        self.add(Record(ROWS, op.rows, self.values.whole(node), a, lanes, kernel=kernel))

    @write.register
    def _(self, op: Accumulate, node: int) -> None:
        rows, size = len(op.slots), 4 * self.spec.lanes
        a = self.values.operand(op.source, rows, op.element)
        base = GROUPS + -(-self.spec.slices // GROUP) + op.unit
        held = self.records.rows_of(base, 0, size, op.slots)
        if op.mode:
            kernel = row_kernel(ADDITION, op.element, op.element)
            self.add(Record(ROWS, rows, held, held, a, kernel=kernel))
        elif np.ptp(op.slots) == 0:  # the last of those that are set is what stays
            self._copy(1, held, self.records.row(a, rows - 1), 4)
        else:
            self._copy(rows, held, a, 4)
        if op.emits:
            # a setting ACC may name a slot twice
            self._copy(rows, self.values.whole(node), held if op.mode else a, 4)

    @write.register
    def _(self, op: Columns, node: int) -> None:
        """A copy of the words, where they may change before the last product with them."""
        if node in self.in_place:
            return
        words, size = op.words.ravel(), self.records.word_bytes
        offset = self.values.make(node)
        for quarter, (index, further) in enumerate(op.places):
            a = self.records.in_sram(index, words + further, op.local)
            out = Operand(ARENA, offset + quarter * len(words) * size, size)
            self._copy(len(words), out, a, 4)

    @write.register
    def _(self, op: Gather, node: int) -> None:
        out, rows = self.values.whole(node), self.values.shapes[node].rows
        a = self.values.operand(op.map, rows, "u16")
        record = Record(GATHER, rows, out, a, width=1, byte=op.unit % GROUP)
        self._gather(op, record, op.unit, op.base)

    @write.register
    def _(self, op: GatheredColumns, node: int) -> None:
        """As a copy of columns that may change: quarter by quarter."""
        a, size = self.values.operand(op.map, op.rows, "u16"), self.records.word_bytes
        offset = self.values.make(node)
        for quarter, (index, further) in enumerate(op.places):
            out = Operand(ARENA, offset + quarter * op.rows * size, size)
            self._gather(op, Record(GATHER, op.rows, out, a), index, op.base + further)

    def _gather(self, op: Gather | GatheredColumns, record: Record, index: int, base: int) -> None:
        """Append the record with where its region is: from slice `index` and word `base` on."""
        self.add(
            record._replace(
                region_shift=op.local,
                region_base=base,
                region_words=op.count,
                first_group=index // GROUP,
            )
        )

    @write.register
    def _(self, op: Append, node: int) -> None:
        pairs, rows = op.map_words.shape
        region, maps, data = op.locals
        self.appends.append((self.group, op.index, self.log))
        log = GROUPS + -(-self.spec.slices // GROUP) + ACCUMULATORS
        self.add(
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
        self.add(Record(ROWS, rows, out, a, kernel=copy_kernel(size)))

    def _product(self, node: int, op: Products, weights: Resting, load: int) -> Record:
        columns, lanes, table = weights.columns, self.spec.lanes, self.records.table
        tiles, loads = columns.words.shape
        format = FORMATS[columns.format]
        a = self.values.operand(op.source, op.rows, columns.format)
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
            self.values.whole(node),
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
        first = GROUPS + groups + ACCUMULATORS + 1 + QUARTERS * number
        return first, groups + number if constant else -1

    def _placed(self, record: Record, weights: Resting) -> Record:
        """The record with where its words are: at rest, or copied to the arena by their reader."""
        columns, reader, table = weights.columns, weights.reader, self.records.table
        if reader is None or reader in self.in_place:
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
