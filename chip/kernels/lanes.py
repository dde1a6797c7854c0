"""Lane maps, and reductions over lanes as rounds of rotate (SXM) and combine (VXM)."""

from chip.schedule import Chain, Flow
from chip.spec import EAST

LANES = 320
ROUNDS = ((80, 4), (20, 4), (5, 4), (1, 5))  # (stride, copies): after them every lane has the total
SWAP, KEEP = 0, 1  # indices into MAPS
_SHIFTS = tuple(sorted({stride * copy for stride, copies in ROUNDS for copy in range(copies)}))

# Lane maps of every decoder program: partner swap and identity inside a superlane, rotations.
MAPS: tuple[tuple[int, ...], ...] = (
    tuple(lane ^ 1 for lane in range(16)),
    tuple(range(16)),
    *(tuple((lane + shift) % LANES for lane in range(LANES)) for shift in _SHIFTS),
)
RUN_LIMIT = 64  # vectors per chain: a longer run would need other streams in every round


def reduce_lanes(chain: Chain, op: str, value: Flow, dtype: str) -> Flow:
    """Combine all lanes of a VXM result with `op`; every lane of the result holds the total.

    Each round drives the value to the SXM, which returns rotated copies that are combined in a
    tree: 16 groups of 20 lanes, then of 5, then single lanes.
    """
    for stride, copies in ROUNDS:
        chain.emit(value, EAST)
        rotated = [
            chain.sxm("permute", 2 + _SHIFTS.index(stride * copy), value, EAST)
            for copy in range(copies)
        ]
        value = _tree(chain, op, rotated, dtype)
    return value


def _tree(chain: Chain, op: str, values: list[Flow], dtype: str) -> Flow:
    """Combine pairwise; an odd one out waits in an ALU."""
    while len(values) > 1:
        pairs = zip(values[::2], values[1::2], strict=False)
        level = [chain.vxm(op, a, b, dtype=dtype) for a, b in pairs]
        if len(values) % 2:
            level.append(chain.vxm("copy", values[-1], dtype=dtype))
        values = level
    return values[0]
