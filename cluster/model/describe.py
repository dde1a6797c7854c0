"""A model's graph as text that a reader checks against the paper, and as data."""

from collections.abc import Iterator
from dataclasses import asdict, fields
from math import prod
from typing import Any

from cluster.model.graph.graph import Model, Section
from cluster.model.graph.op import Op
from cluster.model.graph.rotary import RotaryTable
from cluster.model.graph.values import Dim, Value, Weight

FP16_BYTES = 2


def lines(model: Model) -> Iterator[str]:
    """The graph line by line: equal layers once."""
    sizes = ", ".join(f"{name} {size}" for name, size in dimensions(model).items())
    yield f"{model.name}: {model.architecture}, {model.parameters:,} parameters, {sizes}"
    cached = f"a token caches {model.cached_elements * FP16_BYTES:,} bytes in fp16"
    yield f"context of up to {model.context_max:,} tokens, {cached}"
    if model.stand_in:
        yield from (f"note: {note}" for note in model.stand_in.notes)
    tables = model.embedding
    parts = [_weight(t) for t in (tables.table, tables.positions, tables.kinds) if t]
    scaled = f", times {tables.scale:.8g}" if tables.scale != 1.0 else ""
    yield ""
    yield f"embedding: x = {' + '.join(parts)}{scaled} (looked up by the host)"
    for title, section in titled(model):
        count = sum(prod(weight.shape) for weight in section.weights)
        yield ""
        yield f"{title}: {count:,} parameters"
        yield from (f"  {line(op)}" for op in section.ops)
    if model.tied_head:
        yield "  (the head's matrix is the embedding's)"


def dimensions(model: Model) -> dict[str, int]:
    """Sizes of all dimensions by name, the largest where layers differ."""
    found: dict[str, int] = {}
    for section, _ in model.distinct:
        for op in section.ops:
            for dim in op.out.dims:
                found[dim.name] = max(dim.size, found.get(dim.name, 0))
    return found | {"layers": len(model.layers)}


def titled(model: Model) -> Iterator[tuple[str, Section]]:
    """Each section that differs from those before it, with its places in words."""
    numbers: list[tuple[Section, list[int]]] = []
    if model.opening:
        yield "opening", model.opening
    for number, layer in enumerate(model.layers):
        for known, places in numbers:
            if known is layer or known == layer:
                places.append(number)
                break
        else:
            numbers.append((layer, [number]))
    for layer, places in numbers:
        each = " each" if len(places) > 1 else ""
        yield f"layer{'s' if each else ''} {spans(places)}{each}", layer
    yield "head", model.head


def spans(numbers: list[int]) -> str:
    """Numbers in order as runs.

    >>> spans([0, 1, 2, 5, 7, 8])
    '0-2, 5, 7-8'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def line(op: Op) -> str:
    """One op: `q [heads 8 x head_dim 64] = linear(h, wq [8 x 64, 512])`."""
    arguments = [_argument(*pair) for pair in _settings(op)]
    return f"{op.out.name} [{_dims(op.out.dims)}] = {op.kind}({', '.join(arguments)})"


def _settings(op: Op) -> Iterator[tuple[str, Any]]:
    for field in fields(op):
        value = getattr(op, field.name)
        if field.name != "out" and value is not None:
            yield field.name, value


def _argument(name: str, value: Any) -> str:
    if isinstance(value, Value):
        return value.name
    if isinstance(value, Weight):
        return _weight(value)
    if isinstance(value, RotaryTable):
        return f"theta={value.theta:.8g}{_scaling(value)}"
    if isinstance(value, float):
        return f"{name}={value:.8g}"
    return f"{name}={value}"


def _scaling(table: RotaryTable) -> str:
    scaling = table.scaling
    if scaling is None:
        return ""
    beyond = f" beyond {scaling.original_context}" if scaling.kind in ("llama3", "yarn") else ""
    return f", {scaling.kind} x {scaling.factor:g}{beyond}"


def _weight(weight: Weight) -> str:
    sides = [side for side in (weight.out, weight.inner) if side]
    sizes = (" x ".join(str(dim.size) for dim in side) for side in sides)
    return f"{weight.name} [{', '.join(sizes)}]"


def _dims(dims: tuple[Dim, ...]) -> str:
    return " x ".join(f"{dim.name} {dim.size}" for dim in dims)


def as_data(model: Model) -> dict[str, Any]:
    """The same as one JSON object."""
    return {
        "name": model.name,
        "architecture": model.architecture,
        "parameters": model.parameters,
        "dimensions": dimensions(model),
        "context_max": model.context_max,
        "cached_bytes_per_token": model.cached_elements * FP16_BYTES,
        "tied_head": model.tied_head,
        "stand_in": asdict(model.stand_in) if model.stand_in else None,
        "sections": [
            {
                "places": title.partition(" each")[0],
                "ops": [{"kind": op.kind, "text": line(op)} for op in section.ops],
                "parameters": sum(prod(weight.shape) for weight in section.weights),
            }
            for title, section in titled(model)
        ],
    }
