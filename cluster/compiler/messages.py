"""What `topology.collectives` lists, for `chip.kernels`: members, ports and rows."""

from collections.abc import Callable, Mapping

from chip.isa import WIDTHS
from chip.kernels.collective_items import Addition, Items, Message, Span
from chip.kernels.transfer import Hop
from topology.collectives import Collective
from topology.collectives.spelled import Message as Sent
from topology.collectives.spelled import Span as Vectors
from topology.collectives.spelled import spelled

SUM_TYPES = {"fp32": "f32", "fp16": "f16"}  # of chips, by the names of topology
ROW_VECTORS = WIDTHS["f32"]  # an fp32 row crosses a cable as one vector per byte plane
Hops = Callable[[int, int, int], Hop]  # chip, the next chip, cable -> the hop between members


def items_of(timed: Collective, hop: Hops, members: Mapping[int, int]) -> Items:
    """The messages and additions of a timed collective of fp32 rows, between members."""
    found: list[Message | Addition] = []
    types = dict.fromkeys(timed.messages.narrow, SUM_TYPES[timed.messages.job.sums_between])

    def rows(vectors: Vectors) -> Span:
        slot, first, length = vectors
        size = first // ROW_VECTORS, length // ROW_VECTORS
        return Span(slot, *size, types.get(slot, "f32"))

    for item in spelled(timed):
        target = rows(item.target)
        if isinstance(item, Sent):
            ways = zip(item.path, item.path[1:], item.cables, strict=False)
            found.append(
                Message(
                    *(tuple(hop(*way) for way in ways), rows(item.source), target, item.lands),
                    *(item.start_cycle, item.after, item.step),
                )
            )
        else:
            operands = tuple(o if isinstance(o, int) else rows(o) for o in item.operands)
            member = members[item.chip]
            found.append(Addition(member, target, operands, item.start_cycle, item.after))
    return Items(found)
