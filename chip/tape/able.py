"""Which nodes a tape can do."""

from collections.abc import Sequence

from chip.linker.fetch import Cast, Fetch, Merge, Plane, Scalar, Stack, Take
from chip.linker.graph import Node
from chip.linker.jobs import Append, Columns, Job, Lanes, Pointwise, Products, Read, Store, Sums
from chip.numerics import opcodes as code

# (op, operands, result) of the VXM ops with an opcode; `vxm.copy` of any type is another.
POINTWISE = {
    ("vxm.add", "f32", "f32"): code.ADD,
    ("vxm.sub", "f32", "f32"): code.SUB,
    ("vxm.mul", "f32", "f32"): code.MUL,
    ("vxm.max", "f32", "f32"): code.MAX,
    ("vxm.min", "f32", "f32"): code.MIN,
    ("vxm.max", "f16", "f16"): code.MAX16,
    ("vxm.min", "f16", "f16"): code.MIN16,
    ("vxm.exp", "f32", "f32"): code.EXP,
    ("vxm.tanh", "f32", "f32"): code.TANH,
    ("vxm.rsqrt", "f32", "f32"): code.RSQRT,
    ("vxm.recip", "f32", "f32"): code.RECIP,
    ("vxm.to_f16", "f32", "f16"): code.TO_F16,
    ("vxm.to_f32", "f16", "f32"): code.TO_F32,
    ("vxm.to_f32", "i32", "f32"): code.FROM_I32,
    ("vxm.to_i8", "f32", "i8"): code.TO_I8,
    ("vxm.abs", "f32", "f32"): code.ABS,
    ("vxm.add", "i32", "i32"): code.ADD_I32,
}
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
        case Pointwise(op=op, sources=sources, element=element, made=made):
            known = op == "vxm.copy" or (op, element, made) in POINTWISE
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
