"""Programs as msgpack bytes: the only file that imports msgpack.

A program carries its own table of mnemonics and its instructions index into it, so adding an op to
the ISA never renumbers old programs, and an unknown mnemonic fails at load, by name.
Equal instructions are stored once; a queue is a list of indices. What differs between chips that
run the same program, the chip, the start and the sequence that leads to it, stays outside the body.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any, BinaryIO

import msgpack
import numpy as np

from chip.errors import ProgramError, SpecError, UnknownChip
from chip.isa import DTYPES, FORMATS, NO_STREAM, NUMPY_TYPES, STREAM_CODES, Op, lookup
from chip.isa.mxm import PLANES
from chip.isa.sxm import ZERO
from chip.own_spec import chip_of
from chip.program import ONCE, WAITS, Instruction, Ints, Program, Queues, Region

Plain = Any  # what msgpack gives, until it has been looked through
MAGIC, VERSION = "lpu-program", 2
# Bounds that keep a corrupt program from costing time and memory before it is refused.
MAX_CYCLES = 2**40  # of a queue, and of the start: 20 minutes
MAX_STEP = 2**24  # of a loop's address step, either way
MAX_ISSUES = 2**25  # of all queues together: 88 slices x 8,192 words, read 46 times
# What values of an operand kind are below; of others MAX_STEP.
LIMITS = {
    "in": STREAM_CODES, "out": STREAM_CODES, "src": NO_STREAM, "dst": NO_STREAM + 1,
    "dtype": len(DTYPES), "format": len(FORMATS), "plane": PLANES, "imm": 2**32, "int": MAX_CYCLES,
}  # fmt: skip


def pack(program: Program) -> bytes:
    """Canonical bytes of a program: equal programs give equal bytes."""
    ops: dict[str, int] = {}
    table, queues = _canonical(program.listing)
    rows = [_row(instruction, ops) for instruction in table]
    body = {
        "spec": program.spec,
        "ops": list(ops),
        "instructions": rows,
        "queues": queues,
        "maps": [list(entries) for entries in program.maps],
        "inputs": {name: _region(region) for name, region in sorted(program.inputs.items())},
        "outputs": {name: _region(region) for name, region in sorted(program.outputs.items())},
        "constants": [_region(region) for region in program.constants],
        "deskew_interval": program.deskew_interval_cycles,
    }
    startup = _startup_rows(program.startup)
    head = [MAGIC, VERSION, program.chip, program.start_cycle, startup, msgpack.packb(body)]
    return bytes(msgpack.packb(head))


def _canonical(listing: Queues) -> tuple[list[Instruction], dict[str, list[int]]]:
    """Instructions in the order in which queues, by name, first hold them; and their numbers."""
    held = [listing.numbers[name] for name in sorted(listing)]
    used, first = np.unique(np.concatenate([np.zeros(0, np.int64), *held]), return_index=True)
    table: dict[Instruction, int] = {}
    numbers = np.zeros(len(listing.table), np.int64)
    for number in used[np.argsort(first)].tolist():
        numbers[number] = table.setdefault(listing.table[number], len(table))
    return [*table], {name: numbers[listing.numbers[name]].tolist() for name in sorted(listing)}


def body_of(data: bytes) -> bytes:
    """The part of a program's bytes that does not say which chip runs it, and from when."""
    body: bytes = _head(data)[5]
    return body


def header_of(data: bytes) -> tuple[int, int, tuple[Instruction, ...]]:
    """(chip, start cycle, start sequence) of a program; raises ProgramError."""
    _, _, chip, start, startup, _ = _head(data)
    number, cycle = _number(chip, 2**31, "chip"), _number(start, MAX_CYCLES, "start")
    return number, cycle, _startup(startup)


def with_header(
    data: bytes, chip: int, start_cycle: int, startup: tuple[Instruction, ...] = ()
) -> bytes:
    """The same program for another chip and start."""
    head = [*_head(data)[:2], chip, start_cycle, _startup_rows(startup), _head(data)[5]]
    return bytes(msgpack.packb(head))


def _startup_rows(startup: tuple[Instruction, ...]) -> list[list[Plain]]:
    return [[instruction.op, *instruction.args] for instruction in startup]


def _startup(rows: Plain) -> tuple[Instruction, ...]:
    if not isinstance(rows, list) or not all(isinstance(row, list) and row for row in rows):
        raise ProgramError("a start sequence is a list of instructions")
    found = tuple(_instruction([0, row[1:]], [lookup(row[0])]) for row in rows)
    for instruction in found:
        check_instruction(instruction, "queue icu", 0)
    return found


def _head(data: bytes) -> list[Plain]:
    try:
        head = msgpack.unpackb(data)
    except Exception as error:
        raise ProgramError(f"corrupt program: {type(error).__name__}: {error}") from None
    if not isinstance(head, list) or len(head) != 6 or head[0] != MAGIC:
        raise ProgramError("not an LPU program")
    if head[1] != VERSION:
        raise ProgramError(f"program version {head[1]!r}, this chip reads {VERSION}")
    if not isinstance(head[5], bytes):
        raise ProgramError("a program without a body")
    return head


def unpack(data: bytes) -> Program:
    """Decode and check a program; ProgramError names what is wrong with it."""
    try:
        *_, body = _head(data)
        plain = msgpack.unpackb(body, strict_map_key=True, use_list=False)
        program = _program(plain, *header_of(data))
        check_program(program)
    except ProgramError:
        raise
    except Exception as error:  # whatever corrupt bytes can do to a decoder is one error to us
        raise ProgramError(f"corrupt program: {type(error).__name__}: {error}") from None
    return program


def later(body: bytes) -> Queues:
    """The queues of a body that has been read and checked before; they are read when asked for."""
    return _Later(body)


class _Later(Queues):
    """Queues that are read from the body of a program when somebody asks for them."""

    def __init__(self, body: bytes) -> None:
        object.__setattr__(self, "_body", body)

    def __getattr__(self, name: str) -> Plain:
        if name not in ("table", "numbers"):
            raise AttributeError(name)
        head = msgpack.packb([MAGIC, VERSION, 0, 0, [], self.__dict__["_body"]])
        read = unpack(head).listing
        self.__dict__.update(table=read.table, numbers=read.numbers)
        return self.__dict__[name]


def _program(
    body: dict[str, Plain], chip: int, start: int, startup: tuple[Instruction, ...]
) -> Program:
    ops = [lookup(name) for name in body["ops"]]
    table = tuple(_instruction(row, ops) for row in body["instructions"])
    return Program(
        chip=chip,
        spec=body["spec"],
        start_cycle=start,
        queues=Queues(
            table,
            {
                name: np.array(_numbers(held, len(table), "instruction"), np.int64)
                for name, held in body["queues"].items()
            },
        ),
        maps=tuple(tuple(_numbers(entries, ZERO + 1, "map")) for entries in body["maps"]),
        inputs={name: _stored(fields) for name, fields in body["inputs"].items()},
        outputs={name: _stored(fields) for name, fields in body["outputs"].items()},
        constants=tuple(_stored(fields) for fields in body["constants"]),
        startup=startup,
        deskew_interval_cycles=_number(body["deskew_interval"], MAX_CYCLES, "deskew interval"),
    )


def _number(value: Plain, limit: int, what: str) -> int:
    if type(value) is not int or not 0 <= value < limit:
        raise ProgramError(f"{what} is {value!r}, not a number below {limit}")
    return value


def _numbers(values: tuple[Plain, ...], limit: int, what: str) -> tuple[int, ...]:
    """The values, all of which are numbers below a limit; raises ProgramError."""
    sound = not len(values) or set(map(type, values)) == {int}
    if not sound or min(values, default=0) < 0 or max(values, default=-1) >= limit:
        for value in values:
            _number(value, limit, what)
    return values


def _row(instruction: Instruction, table: dict[str, int]) -> list[Plain]:
    code = table.setdefault(instruction.op, len(table))
    row: list[Plain] = [code, list(instruction.args)]
    if instruction.loops != (ONCE, ONCE) or any(instruction.names):
        row.append([list(loop) for loop in instruction.loops])
    if any(instruction.names):
        row.append(list(instruction.names))
    return row


def _instruction(row: list[Plain], ops: list[Plain]) -> Instruction:
    code, args, *rest = row
    op = ops[_number(code, len(ops), "instruction")]
    outer, inner = rest[0] if rest else (ONCE, ONCE)
    names = tuple(rest[1]) if len(rest) > 1 else ()
    numbers = (*args, *outer, *inner, *names)
    if len(args) != len(op.operands) or len(outer) != 3 or len(inner) != 3 or len(rest) > 2:
        raise ProgramError(f"wrong number of operands: {args}", op.name)
    if len(names) not in (0, len(op.sources) + bool(op.timing)):
        raise ProgramError(f"wrong number of names: {names}", op.name)
    if set(map(type, numbers)) != {int}:
        raise ProgramError("operands and loops are integers", op.name)
    return Instruction(op.name, tuple(args), (tuple(outer), tuple(inner)), names)


def _region(region: Region) -> list[Plain]:
    return [region.index, region.address, region.vectors, region.dtype, region.layout]


def _stored(fields: list[Plain]) -> Region:
    *numbers, dtype, layout = fields
    index, address, vectors = (_number(number, 2**31, "region") for number in numbers)
    return Region(index, address, vectors, dtype, layout)


def check_program(program: Program) -> None:
    """Raise ProgramError for what can be seen to be wrong without linking."""
    try:
        spec = chip_of(program.spec)
    except (SpecError, UnknownChip) as error:
        raise ProgramError(f"program for {error}") from None
    names = (*program.queues, *program.inputs, *program.outputs)
    if not all(isinstance(name, str) and name.isprintable() for name in names):
        raise ProgramError("names of queues and regions are printable strings")
    for region in (*program.inputs.values(), *program.outputs.values(), *program.constants):
        region.check(spec.slices, spec.slice_words)
    if not _is_sound(program.listing, len(program.maps)):
        _check_one_by_one(program)


def _is_sound(listing: Queues, maps: int) -> bool:
    """Whether `_check_one_by_one` would find nothing wrong: the same rules, on whole columns."""
    table, (names, of) = listing.table, listing.ops
    ops = [lookup(name) for name in names]
    alike: list[list[Instruction]] = [[] for _ in ops]
    for one, number in zip(table, of.tolist(), strict=True):
        alike[number].append(one)
    try:
        if not all(_are_sound(op, ones, maps) for op, ones in zip(ops, alike, strict=True)):
            return False
        loops = _columns([loop for one in table for loop in one.loops], 3)
    except OverflowError:
        return False
    counts, intervals, steps = loops.T
    if (
        (counts < 1).any()
        or (intervals < 1).any()
        or (steps != np.clip(steps, -MAX_STEP, MAX_STEP)).any()
    ):
        return False
    repeats, apart = (column.reshape(-1, 2).astype(np.float64) for column in (counts, intervals))
    cycles, issues = 1 + ((repeats - 1) * apart).sum(axis=1), repeats.prod(axis=1)
    cycles[listing.is_any(*WAITS)] = [one.args[0] for one in table if one.op in WAITS]
    total = 0.0
    for name, numbers in listing.numbers.items():
        families = {ops[n].queue for n in np.unique(of[numbers]).tolist()}
        total += issues[numbers].sum()
        if cycles[numbers].sum() > MAX_CYCLES or total > MAX_ISSUES:
            return False
        if not families <= {"any", name.partition(":")[0]}:
            return False
    return True


def _are_sound(op: Op, ones: list[Instruction], maps: int) -> bool:
    """Whether an op can take these operands, and repeats if these do; raises OverflowError."""
    if op.control and not op.sources and any(one.count > 1 for one in ones):
        return False
    values = _columns([one.args for one in ones], len(op.operands))
    for operand, column in zip(op.operands, values.T, strict=True):
        limit = maps if operand.kind == "map" else LIMITS.get(operand.kind, MAX_STEP)
        if column.min() < 0 or column.max() >= limit:
            return False
        if operand.kind == "dtype":
            types = {DTYPES[number] for number in np.unique(column).tolist()}
            if not types <= {*op.dtypes}:
                return False
    return True


def _columns(rows: list[tuple[int, ...]], width: int) -> Ints:
    """Rows of so many integers as an array; raises OverflowError."""
    return np.fromiter(chain.from_iterable(rows), np.int64).reshape(len(rows), width)


def _check_one_by_one(program: Program) -> None:
    """Raise ProgramError for the first instruction that is wrong, or that is too much."""
    issues, listing = 0.0, program.listing
    for name, numbers in listing.numbers.items():
        where, held = f"queue {name}", np.unique(numbers, return_counts=True)
        cycles = 0.0  # Python's floats do not wrap around
        for number, times in zip(*(column.tolist() for column in held), strict=True):
            instruction = listing.table[number]
            cycles += float(times) * check_instruction(instruction, where, len(program.maps))
            issues += float(times) * instruction.count
        if cycles > MAX_CYCLES:
            raise ProgramError(f"more than {MAX_CYCLES} cycles", where)
        if issues > MAX_ISSUES:
            raise ProgramError(f"more than {MAX_ISSUES} issues up to here", where)


def check_instruction(instruction: Instruction, where: str, maps: int) -> int:
    """Check one instruction on its own; returns the cycles its queue is taken."""
    op = lookup(instruction.op)
    family = where.removeprefix("queue ").partition(":")[0]
    if op.queue not in ("any", family):
        raise ProgramError(f"{op.name} belongs to a {op.queue} queue", where)
    for n, interval, step in instruction.loops:
        if n < 1 or interval < 1 or abs(step) > MAX_STEP:
            raise ProgramError(f"loop of {n} every {interval} cycles, step {step}", where)
    if op.control and instruction.count > 1 and not op.sources:
        raise ProgramError(f"{op.name} does not repeat", where)
    for operand, value in zip(op.operands, instruction.args, strict=True):
        limit = maps if operand.kind == "map" else LIMITS.get(operand.kind, MAX_STEP)
        if not 0 <= value < limit:
            raise ProgramError(f"{op.name} {operand.name}={value}", where)
        if operand.kind == "dtype" and DTYPES[value] not in op.dtypes:
            known = ", ".join(op.dtypes)
            raise ProgramError(f"{op.name} of {DTYPES[value]}, it takes {known}", where)
    return instruction.queue_cycles


# --- other data: what a recording consists of ----------------------------------------------------
_ARRAY = 1  # msgpack extension type


def pack_value(value: Plain) -> bytes:
    """Bytes of plain data: numbers, strings, bytes, lists, maps, and arrays of the chip's types."""
    return bytes(msgpack.packb(value, default=_array_out, strict_types=False))


def unpack_value(data: bytes) -> Plain:
    """What `pack_value` packed; raises ProgramError where damaged."""
    try:
        return msgpack.unpackb(data, ext_hook=_array_in, strict_map_key=False, use_list=True)
    except ProgramError:
        raise
    except Exception as error:
        raise ProgramError(f"corrupt data: {type(error).__name__}: {error}") from None


def unpack_values(file: BinaryIO) -> Iterator[Plain]:
    """The values of a file that holds one after another; raises ProgramError where damaged."""
    try:
        size = 2**31 - 1
        yield from msgpack.Unpacker(
            file, ext_hook=_array_in, strict_map_key=False, max_buffer_size=size
        )
    except ProgramError:
        raise
    except Exception as error:
        raise ProgramError(f"corrupt recording: {type(error).__name__}: {error}") from None


def _array_out(value: Plain) -> msgpack.ExtType:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{type(value).__name__} cannot be packed")
    parts = [value.dtype.str, list(value.shape), np.ascontiguousarray(value).tobytes()]
    return msgpack.ExtType(_ARRAY, msgpack.packb(parts))


def _array_in(code: int, data: bytes) -> Plain:
    dtype, shape, content = msgpack.unpackb(data)
    if code != _ARRAY or dtype not in {kind.str for kind in NUMPY_TYPES.values()}:
        raise ProgramError(f"array of type {dtype!r}")
    return np.frombuffer(content, dtype).reshape(shape)
