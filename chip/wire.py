"""Programs as msgpack bytes: the only file that imports msgpack.

A program carries its own table of mnemonics and its rows index into it, so adding an op to the
ISA never renumbers old programs, and an unknown mnemonic fails at load, by name.
"""

from typing import Any

import msgpack

from chip.errors import ProgramError
from chip.isa import STREAM_CODES, lookup
from chip.program import ONCE, Instruction, Program, Region
from chip.spec import SPECS

MAGIC, VERSION = "lpu-program", 1


def pack(program: Program) -> bytes:
    """Canonical bytes of a program: equal programs give equal bytes."""
    table: dict[str, int] = {}
    queues = {
        name: [_row(instruction, table) for instruction in program.queues[name]]
        for name in sorted(program.queues)
    }
    body = {
        "magic": MAGIC,
        "version": VERSION,
        "chip": program.chip,
        "spec": program.spec,
        "start": program.start_cycle,
        "ops": list(table),
        "queues": queues,
        "maps": [list(entries) for entries in program.maps],
        "inputs": {name: _region(region) for name, region in sorted(program.inputs.items())},
        "outputs": {name: _region(region) for name, region in sorted(program.outputs.items())},
        "constants": [_region(region) for region in program.constants],
    }
    return bytes(msgpack.packb(body))


def unpack(data: bytes) -> Program:
    """Decode and check a program; ProgramError names what is wrong with it."""
    try:
        body = msgpack.unpackb(data, strict_map_key=True)
        if not isinstance(body, dict) or body.get("magic") != MAGIC:
            raise ProgramError("not an LPU program")
        if body["version"] != VERSION:
            raise ProgramError(f"program version {body['version']}, this chip reads {VERSION}")
        program = _program(body)
    except ProgramError:
        raise
    except Exception as error:  # whatever corrupt bytes can do to a decoder is one error to us
        raise ProgramError(f"corrupt program: {type(error).__name__}: {error}") from None
    _check(program)
    return program


def _program(body: dict[str, Any]) -> Program:
    ops = [lookup(name) for name in body["ops"]]
    return Program(
        chip=int(body["chip"]),
        spec=str(body["spec"]),
        start_cycle=int(body["start"]),
        queues={
            str(name): tuple(_instruction(row, ops) for row in rows)
            for name, rows in body["queues"].items()
        },
        maps=tuple(tuple(int(lane) for lane in entries) for entries in body["maps"]),
        inputs={str(k): Region(*v) for k, v in body["inputs"].items()},
        outputs={str(k): Region(*v) for k, v in body["outputs"].items()},
        constants=tuple(Region(*v) for v in body["constants"]),
    )


def _row(instruction: Instruction, table: dict[str, int]) -> list[Any]:
    code = table.setdefault(instruction.op, len(table))
    row: list[Any] = [code, list(instruction.args)]
    if instruction.loops != (ONCE, ONCE) or any(instruction.names):
        row.append([list(loop) for loop in instruction.loops])
    if any(instruction.names):
        row.append(list(instruction.names))
    return row


def _instruction(row: list[Any], ops: list[Any]) -> Instruction:
    code, args, *rest = row
    op = ops[code]
    outer, inner = rest[0] if rest else (ONCE, ONCE)
    names = tuple(rest[1]) if len(rest) > 1 else ()
    numbers = (*args, *outer, *inner, *names)
    if len(args) != len(op.operands) or len(outer) != 3 or len(inner) != 3:
        raise ProgramError(f"wrong number of operands: {args}", op.name)
    if not all(isinstance(number, int) for number in numbers) or code < 0:
        raise ProgramError("operands and loops are integers", op.name)
    return Instruction(op.name, tuple(args), (tuple(outer), tuple(inner)), names)


def _region(region: Region) -> list[Any]:
    return [region.index, region.address, region.vectors, region.dtype, region.layout]


def _check(program: Program) -> None:
    if program.spec not in SPECS:
        known = ", ".join(SPECS)
        raise ProgramError(f"program for unknown chip {program.spec!r}; known: {known}")
    spec = SPECS[program.spec]
    for region in (*program.inputs.values(), *program.outputs.values(), *program.constants):
        region.check(spec.slices, spec.slice_words)
    for name, queue in program.queues.items():
        for instruction in queue:
            _check_instruction(instruction, name, len(program.maps))


def _check_instruction(instruction: Instruction, queue: str, maps: int) -> None:
    op = lookup(instruction.op)
    family = queue.partition(":")[0]
    if op.queue not in ("any", family):
        raise ProgramError(f"{op.name} belongs to a {op.queue} queue", f"queue {queue}")
    for n, interval, _ in instruction.loops:
        if n < 1 or interval < 1:
            raise ProgramError(f"loop of {n} every {interval} cycles", f"queue {queue}")
    for operand, value in zip(op.operands, instruction.args, strict=True):
        if value < 0 or (operand.kind == "map" and value >= maps):
            raise ProgramError(f"{op.name} {operand.name}={value}", f"queue {queue}")
        if operand.kind in ("in", "out") and value >= STREAM_CODES:
            raise ProgramError(f"{op.name} {operand.name}: no stream {value}", f"queue {queue}")
