"""Which nodes have records."""

from collections.abc import Sequence

from chip.jit.rows import can_do
from chip.linker.fetch import Cast, Fetch, Merge, Plane, Scalar, Stack, Take
from chip.linker.fragment import Step
from chip.linker.node_ops import (
    Accumulate,
    Append,
    Columns,
    Gather,
    GatheredColumns,
    MoveLanes,
    NodeOp,
    Pointwise,
    Products,
    Read,
    Resting,
    Store,
)

FORMATS = ("f16", "i8")


def taped(nodes: Sequence[Step], lanes: int) -> list[bool]:
    """Whether each node can be done by records; columns only if all their products can."""
    able = [_able(node.op, lanes) for node in nodes]
    for number, node in enumerate(nodes):
        if not isinstance(node.op, Products) or not able[number]:
            for need in node.needs:
                if isinstance(nodes[need].op, Columns | GatheredColumns):
                    able[need] = False
    for number, node in enumerate(nodes):
        reader = reader_of(node.op)
        if reader is not None:
            able[number] = able[number] and able[reader]
    return able


def reader_of(op: NodeOp) -> int | None:
    """The node that has read the columns of products, if they were read beforehand."""
    if isinstance(op, Products) and isinstance(op.weights, Resting):
        return op.weights.reader
    return None


def _able(op: NodeOp, lanes: int) -> bool:
    match op:
        case Pointwise(op=what, sources=sources, element=element):
            known = len(sources) < 3 and (what.copies or can_do(what, element))
            return known and all(map(_simple, sources))
        case Products(source=source, weights=Resting(columns=columns), powered=powered):
            return columns.format in FORMATS and powered == lanes and _simple(source)
        case MoveLanes(lanes=moves, sources=sources):
            return moves is not None and _simple(sources[0])
        case Store(source=source, powered=powered) | Accumulate(source=source, powered=powered):
            return powered == lanes and _simple(source)
        case Gather(map=addresses, powered=powered):
            return powered == lanes and _simple(addresses)
        case GatheredColumns(map=addresses, format=format):
            return format in FORMATS and _simple(addresses)
        case Read() | Columns() | Append():
            return True
    return False


def _simple(fetch: Fetch) -> bool:
    """Whether an operand can be brought in shape by records."""
    match fetch:
        case Scalar() | Take() | Plane():
            return True
        case Cast(source=source):
            return _simple(source)
        case Merge(parts=parts):
            return all(_simple(part) for _, part in parts)
        case Stack(planes=planes, dtype=dtype):
            return dtype is not None and all(map(_simple, planes))
    return False
