"""Text to a tree of lines, by grammar.lark; a syntax error says where, and what could be there."""

from functools import cache
from pathlib import Path
from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput, UnexpectedToken

from chip.errors import AssemblyError

Node = Tree[Token]
# What a person would call the terminals of the grammar.
_NAMES = {
    "_NL": "the end of the line",
    "$END": "the end of the file",
    "OP": "an instruction",
    "QUEUE": "a queue such as mem.r:3",
    "WHEN": "a cycle such as @12",
    "WORD": "a word",
    "NAME": "a name",
    "LABEL": "a label such as add:",
    "NUMBER": "a number",
    "VALUE": "a value such as %sum",
    "LOOP": "a loop such as x4@1+1",
    "ASSIGN": "name=",
    "STRING": "a string",
    "EQUAL": "'='",
}


def parts(node: Node) -> list[Any]:
    """The tokens and trees below a node; the grammar says which."""
    return list(node.children)


@cache
def _grammar() -> Lark:
    text = Path(__file__).with_name("grammar.lark").read_text(encoding="utf-8")
    return Lark(text, parser="lalr", start=["start", "sum"], propagate_positions=True)


def parse(text: str, path: str) -> Node:
    """The tree of a program; raises AssemblyError with file, line and column."""
    try:
        return _grammar().parse(text + "\n", start="start")
    except UnexpectedInput as error:
        raise AssemblyError(path, *_place(error, text), _unexpected(error)) from None


def parse_sum(text: str, path: str, line: int, column: int) -> Node:
    """The tree of one expression, which stands at a line and column of a file."""
    try:
        return _grammar().parse(text, start="sum")
    except UnexpectedInput as error:
        ended = isinstance(error, UnexpectedToken) and error.token.type == "$END"
        at = column + (len(text) if ended else max(0, error.column - 1))
        raise AssemblyError(path, line, at, _unexpected(error)) from None


def _place(error: UnexpectedInput, text: str) -> tuple[int, int]:
    if error.line is None or error.line < 1:  # the input ends too early
        return text.count("\n") + 1, len(text.rpartition("\n")[2]) + 1
    return error.line, error.column


def _unexpected(error: UnexpectedInput) -> str:
    if isinstance(error, UnexpectedToken):
        found = (
            "the end of the line" if error.token.type in ("_NL", "$END") else repr(str(error.token))
        )
        expected = error.accepts or error.expected
    else:
        found, expected = (
            repr(getattr(error, "char", "?")),
            getattr(error, "allowed", None) or set(),
        )
    names = sorted({_NAMES.get(name, _literal(name)) for name in expected})
    few = f", expected {' or '.join(names)}" if 0 < len(names) <= 6 else ""
    return f"unexpected {found}{few}"


def _literal(name: str) -> str:
    """The text of an anonymous terminal, such as '.for' or 'slice'."""
    for terminal in _grammar().terminals:
        if terminal.name == name:
            return repr(terminal.pattern.value)
    return name.lower()
