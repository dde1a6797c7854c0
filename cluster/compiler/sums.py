"""How partial sums travel between the nodes of a tensor group: who can choose, and what it costs.

A group of whole nodes adds up what the chips of a node have, and nodes exchange these sums. Each is
rounded once to the format chosen, that of the own node too; additions stay in fp32. In fp16 that
moves a result by at most 2^-11 of the magnitudes of its nodes' sums, added up; a sum of a node from
65,520 on becomes infinite, and so do logits that follow from it, which sampling refuses.
"""

from fractions import Fraction

from chip.kernels.allreduce import team_of
from cluster.compiler.limits import NODE_CHIPS
from cluster.errors import BadValue
from cluster.model.graph.graph import Model
from topology.collectives.sums import FP32, SUM_BYTES, SUM_FORMATS

OPTION = "--sums-between-nodes"
# Measured of SmolLM2 on two nodes; `tests/test_smollm2.py` fails where it is no longer so: how far
# logits of the float32 reference move at most; how far those of the int8 one are from float32 in
# the mean, whatever the format.
MEASURED_LOGITS = {"fp16": 0.070}
MEASURED_INT8 = 0.84


def check_sums(sums: str, tp: int | None = None) -> None:
    """Raise BadValue for an unknown format, or for one that changes nothing in groups of `tp`."""
    if sums not in SUM_FORMATS:
        raise BadValue(OPTION, sums, f"must be one of {', '.join(SUM_FORMATS)}")
    if sums != FP32 and tp is not None and not sums_nodes(tp):
        rule = f"needs tensor groups of whole nodes, as --tp {2 * NODE_CHIPS} or {4 * NODE_CHIPS}"
        raise BadValue(OPTION, sums, f"{rule}: in groups of {tp} no node sends its sum to another")


def sums_nodes(tp: int) -> bool:
    """Whether the nodes of a group add up what their own chips have, and exchange the sums."""
    return team_of(tp) < tp


def least_received(tp: int, sums: str) -> Fraction:
    """Of a row of fp32, what each rank takes in at least of the sums that others make.

    All but its own share; what comes of other nodes, in the format of sums.
    """
    nodes = tp // team_of(tp)
    between = Fraction(SUM_FORMATS[sums].bytes_each, SUM_BYTES)
    return (tp - nodes + (nodes - 1) * between) / tp


def sums_notes(model: Model, tp: int) -> list[str]:
    """What a plan says of a format other than fp32."""
    if model.sums == FP32:
        return []
    if not sums_nodes(tp):
        return [f"in groups of {tp} no node sends its sum to another: {OPTION} changes nothing"]
    moved = MEASURED_LOGITS[model.sums]
    return [
        f"sums between nodes are {model.sums}: each is rounded once, by at most 1/2,048 of it, and "
        f"infinite from 65,520 on; measured on SmolLM2, logits move by at most {moved:.3f} in "
        f"float32; in int8 they are {MEASURED_INT8} from float32 in the mean, with fp32 as well"
    ]
