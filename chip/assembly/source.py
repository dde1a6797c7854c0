"""Where in a file something stands, and the {sums} inside its words."""

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lark import Token, Tree

from chip.assembly.parse import Node, parse_sum
from chip.errors import AssemblyError

Env = Mapping[str, int]
_BRACES = re.compile(r"\{([^{}]*)\}")
_INTEGER = re.compile(r"0x[0-9a-fA-F]+|\d+")
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "pow": operator.pow,
}
MAX_NUMBER = 2**63


@dataclass(frozen=True)
class Source:
    """A file being assembled."""

    path: str
    folder: Path

    def error(self, at: Token | Node, what: str) -> AssemblyError:
        """The error `what` at a token, or where the tree of an expression begins."""
        place = at if isinstance(at, Token) else at.meta
        line, column = getattr(place, "line", None), getattr(place, "column", None)
        return AssemblyError(self.path, line or 1, column or 1, what)

    def text(self, token: Token, env: Env) -> str:
        """The word of a token, each {sum} replaced by its number."""

        def number(found: re.Match[str]) -> str:
            column = (token.column or 1) + found.start() + 1
            tree = parse_sum(found[1], self.path, token.line or 1, column)
            return str(self._sum(tree, env, token))

        return _BRACES.sub(number, token)

    def integer(self, token: Token, env: Env) -> int:
        """The number that a word is."""
        text = self.text(token, env)
        if not _INTEGER.fullmatch(text):
            raise self.error(token, f"{text!r} is not a whole number")
        return int(text, 0 if text.startswith("0x") else 10)

    def span(self, token: Token, env: Env) -> range:
        """The numbers of a word such as 3 or 0..7."""
        first, dots, last = self.text(token, env).partition("..")
        ends = (first, last if dots else first)
        if not all(_INTEGER.fullmatch(end) for end in ends):
            raise self.error(token, f"{token} is not a number, or a range such as 0..7")
        return range(int(first), int(ends[1]) + 1)

    def whole(self, tree: Node, env: Env) -> int:
        """The whole number that a sum of numbers and variables comes to."""
        return self._sum(tree, env, tree)

    def _sum(self, node: Node, env: Env, at: Token | Node) -> int:
        if node.data in OPERATORS and node.data != "div":
            left, right = (self._sum(child, env, at) for child in trees(node))
            large = node.data == "pow" and (right > 64 or right < 0)
            if large or (node.data in ("floordiv", "mod") and right == 0):
                raise self.error(at, f"{left} {node.data} {right} is no whole number of use")
            value = int(OPERATORS[node.data](left, right))
        elif node.data == "neg":
            value = -self._sum(next(trees(node)), env, at)
        elif node.data == "number" and _INTEGER.fullmatch(str(node.children[0])):
            value = int(str(node.children[0]), 0 if "x" in str(node.children[0]) else 10)
        elif node.data == "name" and str(node.children[0]) in env:
            value = env[str(node.children[0])]
        elif node.data == "name":
            known = ", ".join(sorted(env)) or "none"
            raise self.error(at, f"{node.children[0]} is not defined here; known are {known}")
        else:
            raise self.error(at, "only whole numbers, variables, + - * // % and ** can stand here")
        if abs(value) >= MAX_NUMBER:
            raise self.error(at, f"{str(value)[:20]}.. is too large")
        return value


def trees(node: Node) -> Iterator[Node]:
    """The children of a node that are expressions."""
    return (child for child in node.children if isinstance(child, Tree))
