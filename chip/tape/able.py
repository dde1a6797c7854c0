"""Which nodes a tape can do."""

from collections.abc import Sequence

from chip.isa import lookup
from chip.jit.rows import can_do
from chip.linker.fetch import Cast, Fetch, Merge, Plane, Scalar, Stack, Take
from chip.linker.graph import Node
from chip.linker.jobs import Append, Columns, Job, Lanes, Pointwise, Products, Read, Store, Sums

FORMATS = ("f16", "i8")


def taped(nodes: Sequence[Node]) -> list[bool]:
    """Whether each node's job can be done by records; columns only if all their products can."""
    able = [_able(node.job) for node in nodes]
    for node in nodes:
        if not isinstance(node.job, Products) or not _able(node.job):
            for need in node.needs:
                if isinstance(nodes[need].job, Columns):
                    able[need] = False
    for number, node in enumerate(nodes):
        if isinstance(node.job, Products) and node.job.kept is not None:
            able[number] = able[number] and able[node.job.kept]
    return able


def _able(job: Job | None) -> bool:
    match job:
        case Pointwise(op=op, sources=sources, element=element):
            known = len(sources) < 3 and (op == "vxm.copy" or can_do(lookup(op), element))
            return known and all(map(_simple, sources))
        case Products(source=source, columns=columns):
            return columns.format in FORMATS and _simple(source)
        case Lanes(source=source) | Store(source=source) | Sums(source=source):
            return _simple(source)
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
