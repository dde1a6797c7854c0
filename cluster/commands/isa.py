"""`lpu isa [OP]`: the reference of the instruction set, made of the ops themselves."""

import json
from difflib import get_close_matches
from typing import Any

import click

from chip.isa import DTYPES, FORMATS, LOOP_NAMES, OPS, Op, Operand
from chip.own_spec import find
from chip.spec import ChipSpec
from cluster.commands.parameters import NAME
from cluster.errors import UnknownName
from cluster.runs.display import print_rows

# What stands in assembly text for an operand of a kind (chip/isa/op.py says what kinds mean).
WRITTEN = {
    "in": "a stream group, E0..E31 or W0..W31",
    "out": "a stream group, E0..E31 or W0..W31",
    "src": "a stream group, alu0.., or imm",
    "dst": "a stream group, or none (the default): the result stays in its ALU",
    "imm": "the immediate: a number, or 0x and its 32 bits (default 0)",
    "dtype": f"element type: {', '.join(DTYPES)}",
    "format": f"element type: {', '.join(FORMATS)}",
    "map": "a .map of the program",
    "addr": "SRAM word; loops step it",
    "col": "array column; loops step it",
    "slot": "accumulator; loops step it",
    "plane": "plane of the hemisphere; loops step it",
    "port": "C2C port",
    "int": "a whole number",
}


@click.command("isa")
@click.argument("name", required=False, metavar="[OP|UNIT]")
@click.option(
    "--spec", type=NAME, default="groqchip1", show_default=True, help="Chip whose delays to show."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def isa_command(name: str | None, spec: str, as_json: bool) -> None:
    """Print the instructions: all of them, those of a UNIT such as vxm, or one OP in full."""
    chip = find(spec)
    found = _chosen(name)
    if as_json:
        ops = [describe(op, chip) for op in found]
        click.echo(json.dumps({"spec": chip.name, "ops": ops, "loops": LOOP_NAMES}))
    elif name in OPS:
        _print_one(OPS[name], chip)
    else:
        _print_all(found, chip)


def _chosen(name: str | None) -> list[Op]:
    if name is None:
        return list(OPS.values())
    if name in OPS:
        return [OPS[name]]
    found = [op for op in OPS.values() if op.name.partition(".")[0] == name]
    if not found:
        units = sorted({op.partition(".")[0] for op in OPS})
        near = get_close_matches(name, OPS, n=3)
        raise UnknownName("instruction", name, near or units)
    return found


def describe(op: Op, spec: ChipSpec) -> dict[str, Any]:
    """One op as data."""
    return {
        "name": op.name,
        "published": op.published,
        "queue": op.queue,
        "operands": [_operand(op, operand) for operand in op.operands],
        "dtypes": list(op.dtypes),
        "d_func_cycles": spec.d_func(op.timing) if op.timing else None,
        "doc": op.doc,
    }


def _operand(op: Op, operand: Operand) -> dict[str, str]:
    what = WRITTEN.get(operand.kind, operand.kind)
    if operand.kind == "dtype":
        what = f"element type: {', '.join(op.dtypes)}"
    elements = operand.dtype if operand.reads or operand.drives else ""
    return {"name": operand.name, "kind": operand.kind, "elements": elements, "written": what}


def _print_all(found: list[Op], spec: ChipSpec) -> None:
    rows = []
    for op in found:
        delay = spec.d_func(op.timing) if op.timing else "-"
        operands = " ".join(operand.name for operand in op.operands)
        rows.append((op.name, op.published, op.queue, operands, delay, op.meaning))
    print_rows(("instruction", "published", "queue", "operands", "d_func", "meaning"), rows)
    if len(found) == len(OPS):
        print_rows(("published", "is here"), list(LOOP_NAMES.items()))
        click.echo(
            f"{len(found)} instructions. Every one may repeat in two nested loops: x4@10 x8@1+1."
        )


def _print_one(op: Op, spec: ChipSpec) -> None:
    click.echo(f"{op.name}  (published: {op.published})\n\n{op.doc}\n")
    queue = "any queue" if op.queue == "any" else f"a {op.queue} queue"
    click.echo(f"on {queue}" + (
        f"; drives its result {spec.d_func(op.timing)} cycles after issue on {spec.name}"
        if op.timing else ""
    ))  # fmt: skip
    rows = [
        (one["name"], one["written"], one["elements"] or "-")
        for one in (_operand(op, operand) for operand in op.operands)
    ]
    if rows:
        print_rows(("operand", "written", "elements"), rows)
