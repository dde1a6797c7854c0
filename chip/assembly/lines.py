"""One instruction as written: its operands read, its cycle still open."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple

from lark import Token

from chip.assembly.operands import DEFAULTS, read_operand
from chip.assembly.parse import Node, parts
from chip.assembly.source import Env, Source
from chip.isa import DTYPES, OPS, STREAM_CODES, WIDTHS, Op, Operand
from chip.program import ONCE

Loop = tuple[int, int, int]
_LOOP = re.compile(r"x(\d+)(?:@(\d+))?(?:([+-])(-?\d+))?")
_WHEN = re.compile(
    r"@(?:(\d+)|(%\w+)|([A-Za-z_]\w*(?:\.\w+)?))(?:([+-])(\d+))?(?:>([a-z0-9_.]+:\d+))?"
)


@dataclass(frozen=True)
class When:
    """An issue cycle: a number, the arrival of a value, or the cycle of a label; plus `shift`.

    With `target`, it is the cycle in which the result passes that queue's unit.
    """

    number: int | None
    value: str
    label: str
    shift: int
    target: str


@dataclass(frozen=True, eq=False)
class Line:
    """An instruction of one queue. An operand of `args` is None where its value says the stream.

    `names` are the values that operands read or drive, by operand; -1 is the result of an op
    without a driven operand. `member` counts the units of a queue range.
    """

    op: Op
    queue: str
    member: int
    args: tuple[int | None, ...]
    loops: tuple[Loop, Loop]
    names: Mapping[int, str]
    label: str
    when: When | None
    at: Token


@dataclass(frozen=True, eq=False)
class Written:
    """A line as it stands in a source: its tree, its tokens by kind, and the variables there."""

    source: Source
    node: Node
    tokens: Mapping[str, Token]
    env: Env


class _Given(NamedTuple):
    """What is written for an operand: the token, the stream or number, and the value's name."""

    token: Token
    base: str = ""
    value: str = ""


def read_line(written: Written, queue: str, member: int, maps: Mapping[str, object]) -> Line:
    """The line of a tree `placed`, for one queue; raises AssemblyError."""
    source, node, tokens, env = written.source, written.node, written.tokens, written.env
    op = _op(source, tokens["OP"], queue)
    numbers = {name: number for number, name in enumerate(maps)}
    given = _given(source, node, env, op)
    args: list[int | None] = []
    names: dict[int, str] = {}
    dtype = ""
    for index, operand in enumerate(op.operands):
        mine = given.get(index, _Given(tokens["OP"]))
        if mine.value:
            names[index] = _named(source, mine.token, operand, mine.value)
        found = _argument(source, op, operand, mine, dtype, numbers)
        if operand.kind == "dtype" and found is not None and found < len(DTYPES):
            dtype = DTYPES[found]
        args.append(_member(operand, found, member))
    if -1 in given:
        token, _, value = given[-1]
        if op.driven is not None or not op.timing:
            raise source.error(token, f"{op.name} drives nothing that -> could name")
        names[-1] = _named(source, token, None, value)
    label = source.text(tokens["LABEL"], env)[:-1] if "LABEL" in tokens and not member else ""
    when = _when(source, tokens["WHEN"], env) if "WHEN" in tokens else None
    loops = _loops(source, node, env)
    return Line(op, queue, member, tuple(args), loops, names, label, when, tokens["OP"])


def _op(source: Source, token: Token, queue: str) -> Op:
    name = str(token)
    if name not in OPS:
        near = get_close_matches(name, OPS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise source.error(token, f"unknown instruction {name}{hint}")
    op, family = OPS[name], queue.partition(":")[0]
    if op.queue not in ("any", family):
        raise source.error(token, f"{name} belongs on a {op.queue} queue, not on {queue}")
    return op


def _given(source: Source, node: Node, env: Env, op: Op) -> dict[int, _Given]:
    """What is given by operand, from positions and from names."""
    found: dict[int, _Given] = {}
    for child in node.children:
        if isinstance(child, Token) or child.data not in ("operand", "drives"):
            continue
        *assign, word = parts(child)
        base, percent, value = source.text(word, env).partition("%")
        if child.data == "drives":
            index = -1
        elif assign:
            index = _index(source, assign[0], op)
        else:
            index = next((n for n in range(len(op.operands)) if n not in found), len(op.operands))
        if index >= len(op.operands) or index in found:
            names = " ".join(o.name for o in op.operands) or "none"
            raise source.error(word, f"{word} is one operand too many; {op.name} has {names}")
        if percent and not value.isidentifier() and not value.isdecimal():
            raise source.error(word, f"%{value} is not the name of a value")
        found[index] = _Given(word, base, value)
    return found


def _index(source: Source, token: Token, op: Op) -> int:
    name = str(token)[:-1]
    for index, operand in enumerate(op.operands):
        if operand.name == name:
            return index
    known = ", ".join(o.name for o in op.operands) or "none"
    raise source.error(token, f"{op.name} has no operand {name}; it has {known}")


def _named(source: Source, token: Token, operand: Operand | None, value: str) -> str:
    if operand is not None and not (operand.reads or operand.drives):
        raise source.error(token, f"{operand.name} is no stream: it cannot carry %{value}")
    return value


def _argument(
    source: Source,
    op: Op,
    operand: Operand,
    given: _Given,
    dtype: str,
    maps: Mapping[str, int],
) -> int | None:
    if given.base:
        try:
            return read_operand(operand, given.base, dtype, maps)
        except ValueError as error:
            raise source.error(given.token, str(error)) from None
    if given.value and operand.reads:
        return None  # the stream is where the value is driven
    if operand.kind in DEFAULTS:
        return DEFAULTS[operand.kind]
    raise source.error(given.token, f"{op.name} needs {operand.name}=")


def _member(operand: Operand, value: int | None, member: int) -> int | None:
    """Byte streams of a queue range follow each other."""
    bytes_wide = operand.kind in ("in", "out") and WIDTHS.get(operand.dtype) == 1
    if value is None or not member or not bytes_wide or value >= STREAM_CODES:
        return value
    return value + member


def _loops(source: Source, node: Node, env: Env) -> tuple[Loop, Loop]:
    tokens = [c for c in node.children if isinstance(c, Token) and c.type == "LOOP"]
    if len(tokens) > 2:
        raise source.error(tokens[2], "loops nest two deep")
    loops = []
    for token in tokens:
        found = _LOOP.fullmatch(source.text(token, env))
        if found is None:
            raise source.error(token, f"{token} is not a loop such as x4@1+1")
        count, interval, sign, step = found.groups()
        signed = int(step or 0) * (-1 if sign == "-" else 1)
        loops.append((int(count), int(interval or 1), signed))
    return (ONCE, ONCE, *loops)[-2], (ONCE, ONCE, *loops)[-1]


def _when(source: Source, token: Token, env: Env) -> When:
    found = _WHEN.fullmatch(source.text(token, env))
    if found is None:
        what = f"{token} is not a cycle such as @12, @%value, @label+3 or @20>vxm:0"
        raise source.error(token, what)
    number, value, label, sign, shift, target = found.groups()
    signed = int(shift or 0) * (-1 if sign == "-" else 1)
    known = None if number is None else int(number)
    return When(known, (value or "")[1:], label or "", signed, target or "")
