"""What data is made of: sums over arrays [vectors, lanes], evaluated with NumPy in 64 bits.

This is the host's side: it fills memory before the launch and says what must be there after it.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lark import Token

from chip.arrays import Array, DType
from chip.assembly.parse import Node, parts
from chip.assembly.source import OPERATORS, Env, Source, trees
from chip.isa import NUMPY_TYPES

Value = Any  # a number, text, bytes, an array or `Bits`
MAX_LENGTH = 1 << 22  # elements of an array: a whole slice is 2.6 million


@dataclass(frozen=True)
class Shape:
    """What a function may ask for: vectors and lanes of the region, and the folder of the file."""

    vectors: int
    lanes: int
    folder: Path


def _random(shape: Shape, seed: int, low: int = 0, high: int = 255) -> Array:
    size = (shape.vectors, shape.lanes)
    return np.random.default_rng(int(seed)).integers(int(low), int(high), size, endpoint=True)


def _normal(shape: Shape, seed: int, scale: float = 1.0) -> Array:
    rng = np.random.default_rng(int(seed))
    return scale * rng.standard_normal((shape.vectors, shape.lanes))


def _iota(shape: Shape, count: int | None = None) -> Array:
    return np.arange(shape.lanes if count is None else min(int(count), MAX_LENGTH))


def _npy(shape: Shape, file: str) -> Array:
    found = np.load(shape.folder / file, allow_pickle=False)
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{file} holds several arrays, one is expected")
    return found


def _matmul(shape: Shape, a: Value, b: Value) -> Array:
    return np.asarray(np.matmul(a, b))


def _transpose(shape: Shape, a: Value, *axes: int) -> Array:
    return np.transpose(a, axes or None)


def _first(shape: Shape, a: Value, lanes: int) -> Array:
    return np.asarray(np.asarray(a)[..., : int(lanes)])


def _row(shape: Shape, a: Value, number: int) -> Array:
    return np.asarray(np.asarray(a)[int(number)])


def _roll(shape: Shape, a: Value, lanes: int) -> Array:
    return np.roll(a, int(lanes), axis=-1)


def _lanewise(function: Callable[..., Value]) -> Callable[..., Value]:
    return lambda shape, a: function(a, axis=-1, keepdims=True)


def _plain(function: Callable[..., Value]) -> Callable[..., Value]:
    return lambda shape, *arguments: function(*arguments)


FUNCTIONS: Mapping[str, Callable[..., Value]] = {
    "random": _random,
    "normal": _normal,
    "iota": _iota,
    "rows": lambda shape: np.arange(shape.vectors)[:, None],
    "eye": lambda shape: np.eye(shape.vectors, shape.lanes),
    "npy": _npy,
    "hex": lambda shape, text: bytes.fromhex(text),
    "bits": lambda shape, a: Bits(np.asarray(a)),
    "matmul": _matmul,
    "first": _first,
    "row": _row,
    "roll": _roll,
    "transpose": _transpose,
    "reshape": lambda shape, a, *sides: np.reshape(a, sides),
    **{name: _plain(getattr(np, name)) for name in ("abs", "exp", "sqrt", "tanh", "floor")},
    **{name: _plain(getattr(np, name)) for name in ("maximum", "minimum", "where")},
    **{name: _lanewise(getattr(np, name)) for name in ("sum", "max", "min", "mean")},
}


@dataclass(frozen=True)
class Bits:
    """Whole numbers that are the bits of elements, such as those of a NaN."""

    array: Array


Regions = Callable[[str], Value]  # values of a region by name; None if there is none


def evaluate(source: Source, node: Node, env: Env, regions: Regions, shape: Shape) -> Value:
    """A number, an array or Bits; raises AssemblyError at the part that cannot be."""

    def value(node: Node) -> Value:
        try:
            with np.errstate(all="ignore"):
                return of(node)
        except (ValueError, TypeError, IndexError, OverflowError, ZeroDivisionError) as error:
            raise source.error(node, f"{node.data}: {error}") from None
        except OSError as error:
            raise source.error(node, f"{error.filename}: {error.strerror or error}") from None

    def of(node: Node) -> Value:
        if node.data in OPERATORS:
            left, right = (value(child) for child in trees(node))
            if node.data == "pow":
                left = np.float64(left)
            return OPERATORS[node.data](left, right)
        if node.data == "neg":
            return -value(next(trees(node)))
        if node.data == "number":
            text = str(node.children[0])
            return int(text, 0) if text.startswith("0x") else json_number(text)
        if node.data == "list":
            return _stacked([np.asarray(value(child)) for child in trees(node)])
        if node.data == "call":
            return called(node)
        return named(node.children[0])

    def named(token: Value) -> Value:
        if token.type == "STRING":
            return json.loads(token)
        name = source.text(token, env)
        if name in env:
            return env[name]
        if name in ("nan", "inf"):
            return float(name)
        found = regions(name)
        if found is None:
            raise source.error(token, f"{name} is neither a variable nor data of a chip")
        return found

    def called(node: Node) -> Value:
        token = node.children[0]
        if str(token) not in FUNCTIONS:
            known = ", ".join(sorted(FUNCTIONS))
            raise source.error(_as_token(token), f"unknown function {token}; known are {known}")
        given: list[Value] = []
        keys: dict[str, Value] = {}
        for argument in trees(node):
            *key, tree = parts(argument)
            if key:
                keys[str(key[0])] = value(tree)
            else:
                given.append(value(tree))
        function = FUNCTIONS[str(token)]
        inspect.signature(function).bind(shape, *given, **keys)
        return function(shape, *given, **keys)

    return value(node)


def json_number(text: str) -> int | float:
    """A decimal number, whole if it is written so."""
    return int(text) if text.isdecimal() else float(text)


def _as_token(token: Value) -> Token:
    assert isinstance(token, Token)
    return token


def _stacked(parts: list[Array]) -> Array:
    """Elements side by side; rows of different lengths are filled up with zeros."""
    if not parts:
        return np.zeros(0, np.int64)
    if len({part.shape for part in parts}) == 1:
        return np.stack(parts)
    width = max(part.size for part in parts)
    return np.stack([np.pad(part.ravel(), (0, width - part.size)) for part in parts])


def as_vectors(value: Value, vectors: int | None, lanes: int, dtype: str) -> Array:
    """Values as [vectors, lanes] of an element type; raises ValueError.

    One number fills everything, a row is repeated, and rows that are too short end in zeros.
    """
    if isinstance(value, bytes):
        whole = np.frombuffer(value, NUMPY_TYPES[dtype]).reshape(-1, lanes)
        return as_vectors(Bits(whole.view(f"<u{whole.itemsize}")), vectors, lanes, dtype)
    bits = isinstance(value, Bits)
    array = np.asarray(value.array if bits else value)
    if array.size > MAX_LENGTH:
        raise ValueError(f"{array.size} elements, at most {MAX_LENGTH}")
    if array.ndim > 2 or (array.ndim and array.shape[-1] > lanes):
        raise ValueError(f"an array {list(array.shape)} is not [vectors, {lanes} lanes]")
    if array.ndim == 0:
        array = np.full((1, lanes), array)
    rows = np.atleast_2d(array)
    count = len(rows) if vectors is None else vectors
    if len(rows) not in (1, count):
        raise ValueError(f"{len(rows)} vectors for a region of {count}")
    rows = np.pad(rows, ((0, 0), (0, lanes - rows.shape[1])))
    converted = _bits_of(rows, dtype) if bits else _converted(rows, dtype)
    return np.ascontiguousarray(np.broadcast_to(converted, (count, lanes)))


def _bits_of(rows: Array, dtype: str) -> Array:
    kind = NUMPY_TYPES[dtype]
    return _whole(rows, np.dtype(f"<u{kind.itemsize}")).view(kind)


def _converted(rows: Array, dtype: str) -> Array:
    kind = NUMPY_TYPES[dtype]
    if kind.kind == "f":
        with np.errstate(all="ignore"):
            return rows.astype(kind)
    return _whole(rows, kind)


def _whole(rows: Array, kind: DType) -> Array:
    limits = np.iinfo(kind)
    wrong = (rows != np.floor(rows)) | (rows < limits.min) | (rows > limits.max)
    if wrong.any():
        raise ValueError(f"{rows[wrong][0]} is no {kind.name} ({limits.min} to {limits.max})")
    return rows.astype(kind)
