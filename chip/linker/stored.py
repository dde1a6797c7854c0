"""Linked programs as bytes, and back: for those who would link the same ones once more.

What is no number or text is an entry of one list: its kind, and its parts. A part that is an entry
itself is written as a list of its number, and stands before those that it is part of; so what is
shared stays shared. Of such bytes nothing is ever made but what `_MAKERS` makes.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from chip.errors import ProgramError
from chip.isa import Op, lookup
from chip.linker import Block, Linked, Startup, Transfer, fetch, node_ops
from chip.linker.fragment import Fragment, Step
from chip.own_spec import chip_of, identity
from chip.program import Instruction, Program, Region
from chip.spec import ChipSpec
from chip.wire import pack_value, unpack_value

Value = Any  # whatever linked programs are made of
_PLAIN = (type(None), bool, int, float, str, bytes)
_CLASSES: dict[str, Value] = {
    kind.__name__: kind
    for kind in (
        *node_ops.NodeOp.__args__, node_ops.Resting, node_ops.Streamed,
        fetch.Scalar, fetch.Take, fetch.Plane, fetch.Layer, fetch.Cast, fetch.Merge, fetch.Stack,
        Step, Fragment, Block, Transfer, Startup, Region, Instruction, Program, Linked,
    )
}  # fmt: skip
_NUMBERS = "iufb"  # kinds of arrays that are only bytes


def pack_linked(programs: Mapping[bytes, Linked]) -> bytes:
    """Bytes of linked programs by a key of each, but for what their queues hold."""
    writer = _Writer()
    keys = [[key, writer.part(linked)] for key, linked in programs.items()]
    return pack_value([writer.entries, keys])


def unpack_linked(data: bytes) -> dict[bytes, Linked]:
    """What `pack_linked` packed, with None for queues; raises ProgramError where damaged."""
    found: list[Value] = []
    try:
        entries, keys = unpack_value(data)
        for kind, *parts in entries:
            whole = (found[part[0]] if type(part) is list else part for part in parts)
            found.append(_MAKERS[kind](*whole))
        return {key: found[number] for key, (number,) in keys}
    except ProgramError:
        raise
    except Exception as error:  # whatever damaged bytes can do is one error to us
        raise ProgramError(f"corrupt data: {type(error).__name__}: {error}") from None


class _Writer:
    """Entries, equal ones once."""

    def __init__(self) -> None:
        self.entries: list[list[Value]] = []
        self._numbers: dict[bytes, int] = {}
        self._met: dict[object, int] = {}  # what is compared by identity, and need not be walked

    def part(self, value: Value) -> Value:
        """A value as part of an entry."""
        if type(value) in _PLAIN:
            return value
        by_identity = getattr(type(value), "__eq__", None) is object.__eq__
        if by_identity and value in self._met:
            return [self._met[value]]
        entry = self._entry(value)
        number = self._numbers.setdefault(pack_value(entry), len(self.entries))
        if number == len(self.entries):
            self.entries.append(entry)
        if by_identity:
            self._met[value] = number
        return [number]

    def _entry(self, value: Value) -> list[Value]:
        match value:
            case np.ndarray():
                assert value.dtype.kind in _NUMBERS, value.dtype
                return ["array", value.dtype.str, value.tobytes(), *value.shape]
            case np.generic():
                return ["number", value.dtype.str, value.tobytes()]
            case np.dtype():
                return ["dtype", value.str]
            case slice():
                return ["slice", value.start, value.stop, value.step]
            case tuple():
                return ["tuple", *map(self.part, value)]
            case dict():
                return ["dict", *(self.part(one) for item in value.items() for one in item)]
            case Op():
                return ["op", value.name]
            case ChipSpec():
                return ["spec", identity(value)]
        kind = type(value).__name__
        assert _CLASSES[kind] is type(value), value
        names = [field.name for field in fields(_CLASSES[kind]) if field.init]
        kept = (None if name == "queues" else getattr(value, name) for name in names)
        return [kind, *map(self.part, kept)]


def _array(dtype: str, content: bytes, *shape: int) -> Value:
    return np.frombuffer(content, _number_type(dtype)).reshape(shape)


def _number_type(name: str) -> Value:
    dtype = np.dtype(name)
    if dtype.kind not in _NUMBERS:
        raise ProgramError(f"array of type {name!r}")
    return dtype


_MAKERS: dict[str, Callable[..., Value]] = {
    "array": _array,
    "number": lambda dtype, content: _array(dtype, content)[()],
    "dtype": _number_type,
    "slice": slice,
    "tuple": lambda *parts: parts,
    "dict": lambda *parts: dict(zip(parts[::2], parts[1::2], strict=True)),
    "op": lookup,
    "spec": chip_of,
    **_CLASSES,
}
