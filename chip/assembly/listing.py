"""Programs as text that assembles to the same programs, to the bit."""

import json
import re
from collections.abc import Iterator

import numpy as np

from chip.arrays import Array
from chip.assembly.image import Image
from chip.assembly.operands import DEFAULTS, TABLES, write_operand
from chip.barrier import SYNC, issue_cycles
from chip.isa import DTYPES, lookup
from chip.program import ONCE, Instruction, Program, Region, fill_queue
from chip.spec import SPECS

SHOWN = 400  # different numbers that are written out; more become their bytes
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def disassemble(image: Image) -> str:
    """The text of an image: `assemble` makes the same image of it."""
    return "\n".join([*_head(image), *_chips(image)]) + "\n"


def _head(image: Image) -> Iterator[str]:
    yield f".spec {image.spec if image.spec in SPECS else json.dumps(image.spec)}"
    network = image.network
    if network.topology:
        profile = [f"profile {network.profile}"] if network.profile else []
        yield " ".join(
            [".topology", network.topology, *profile, *(f"link {x}" for x in network.links)]
        )
    else:
        for c in image.cables:
            ends = f"{c.chip}:{c.port} {c.other_chip}:{c.other_port}"
            yield f".cable {ends} latency {c.latency_cycles} interval {c.cycles_per_vector}"


def _chips(image: Image) -> Iterator[str]:
    for chip, program in sorted(image.programs.items()):
        yield f"\n.chip {chip}"
        if program.start_cycle:
            yield f".start {program.start_cycle}"
        if program.deskew_interval_cycles:
            yield f".deskew {program.deskew_interval_cycles}"
        if program.startup:
            yield from (".startup", *(f"    {line(one)}" for one in program.startup))
        for number, entries in enumerate(program.maps):
            yield f".map m{number} = [{', '.join(map(str, entries))}]"
        yield from _regions(image, chip, program)
        for queue, instructions in sorted(program.queues.items(), key=_by_unit):
            yield f"\n{queue}"
            yield from (f"    {line}" for line in queue_lines(instructions))
        for check in image.checks:
            if check.chip == chip:
                within = f" within {check.within!r}" if check.within else ""
                yield f".expect {_quoted(check.name)} = {_array(check.values)}{within}"


def _by_unit(item: tuple[str, object]) -> tuple[str, int]:
    family, _, unit = item[0].partition(":")
    return family, int(unit)


def _regions(image: Image, chip: int, program: Program) -> Iterator[str]:
    values = {fill.region: fill.values for fill in image.fills if fill.chip == chip}
    constants = {f"c{number:04d}": region for number, region in enumerate(program.constants)}
    kinds = {"data": program.inputs, "constant": constants, "output": program.outputs}
    shown: set[Region] = set()
    for kind, regions in kinds.items():
        for name, region in sorted(regions.items()):
            content = values.get(region) if region not in shown else None
            shown.add(region)
            yield f".{kind} {_quoted(name)} {_region(region, content)}"


def _region(region: Region, values: Array | None) -> str:
    text = f"{region.dtype} slice {region.index} address {region.address} vectors {region.vectors}"
    if region.layout == "columns":
        text += " columns"
    return text if values is None else f"{text} = {_array(values)}"


def _quoted(name: str) -> str:
    return name if _NAME.fullmatch(name) else json.dumps(name)


def queue_lines(queue: tuple[Instruction, ...]) -> Iterator[str]:
    """Lines of a queue: with cycles, unless its NOPs are not those that cycles would give."""
    if any(one.op == SYNC for one in queue):  # what follows waits for other queues
        yield from map(line, queue)
        return
    placed = [(c, i) for c, i in issue_cycles(queue) if i.op != "icu.nop"]
    if fill_queue(placed, "") == queue:
        width = len(str(placed[-1][0])) + 1 if placed else 0
        yield from (f"{'@' + str(cycle):<{width}}  {line(one)}" for cycle, one in placed)
    else:
        yield from map(line, queue)


def line(instruction: Instruction) -> str:
    """An instruction as text."""
    op = lookup(instruction.op)
    sources = {operand: slot for slot, operand in enumerate(op.sources)}
    names, dtype, words = instruction.names, "", [instruction.op]
    for index, (operand, value) in enumerate(zip(op.operands, instruction.args, strict=True)):
        if operand.kind == "dtype" and value < len(DTYPES):
            dtype = DTYPES[value]
        slot = sources.get(index, len(names) - 1 if index == op.driven else len(names))
        name = names[slot] if names and slot < len(names) else 0
        text = write_operand(operand, value, dtype) + (f"%{name}" if name else "")
        if name or value != DEFAULTS.get(operand.kind):
            words.append(text if operand.kind in TABLES else f"{operand.name}={text}")
    words += [f"x{n}@{d}{s:+d}" for n, d, s in _shown(instruction)]
    if names and op.driven is None and op.timing and names[-1]:
        words.append(f"-> %{names[-1]}")
    return " ".join(words)


def _shown(instruction: Instruction) -> tuple[tuple[int, int, int], ...]:
    outer, inner = instruction.loops
    if outer != ONCE:
        return outer, inner
    return (inner,) if inner != ONCE else ()


def _array(values: Array) -> str:
    """An expression that gives these elements, bit for bit; equal rows are written once."""
    rows = values[:1] if len(values) > 1 and _same(values) else values
    plain = rows.view(np.dtype(f"<u{rows.dtype.itemsize}"))
    if np.count_nonzero(plain != plain[:, :1]) > SHOWN:
        return f'hex("{np.ascontiguousarray(rows).tobytes().hex()}")'
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        kind = np.dtype(f"<u{values.dtype.itemsize}")
        return f"bits({_rows(rows.view(kind))})"
    return _rows(rows)


def _rows(rows: Array) -> str:
    if rows.size and (rows == rows[0, 0]).all() and not np.signbit(rows[0, 0]):
        return _number(rows[0, 0])
    texts = []
    for row in rows:
        bits = row.view(np.dtype(f"<u{row.dtype.itemsize}"))
        used = np.flatnonzero(bits)
        kept = row[: used[-1] + 1] if len(used) else row[:1]
        texts.append(f"[{', '.join(map(_number, kept))}]")
    return texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"


def _same(values: Array) -> bool:
    plain = values.view(np.dtype(f"<u{values.dtype.itemsize}"))
    return bool((plain == plain[0]).all())


def _number(value: object) -> str:
    """Shortest text of one element."""
    text = str(value)
    return text.removesuffix(".0") if text != "-0.0" else text
