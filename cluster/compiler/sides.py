"""Which of the two arrays of a chip each product is on, and in which order products are made."""

from collections.abc import Mapping
from dataclasses import replace

from chip.kernels.layout import Layout, halves
from chip.spec import EAST, WEST
from cluster.model.graph.graph import Section
from cluster.model.graph.latent_attention import ATTENTIONS
from cluster.model.graph.linear import Linear
from cluster.model.graph.rotary import Rotary

SIDES = (EAST, WEST)
Sides = dict[str, tuple[int, ...]]


def sides_of(layouts: Mapping[str, Layout], apart: bool, may_cut: bool) -> Sides:
    """The sides of products of one input, by their results: they are shared out.

    A single one is on both; and, where parts of rows are `apart`, the last of an odd number, as no
    side must wait there.
    """
    if len(layouts) == 1 or (apart and len(layouts) % 2):
        *others, last = layouts
        return {**_shared_out({name: layouts[name] for name in others}), last: SIDES}
    return _shared_out(layouts, may_cut and not apart)


def _shared_out(layouts: Mapping[str, Layout], may_cut: bool = False) -> Sides:
    """The side of each of some products of one input, by its result, so that both have as much.

    One of them may be cut by its blocks where the fuller side has less of it so.
    """
    whole, most = _dealt(layouts, [0, 0])
    for name, layout in layouts.items() if may_cut else ():
        parts = [len(part) * layout.width for part in halves(layout.blocks)]
        others = {other: one for other, one in layouts.items() if other != name}
        sides, load = _dealt(others, parts)
        if all(parts) and load < most:
            whole, most = {**sides, name: SIDES}, load
    return whole


def _dealt(layouts: Mapping[str, Layout], load: list[int]) -> tuple[Sides, int]:
    """Each on one side, the largest first; with what the fuller side has then, in columns."""
    found: Sides = {}
    columns = {name: layout.blocks * layout.width for name, layout in layouts.items()}
    for name in sorted(columns, key=lambda name: -columns[name]):
        # of three alike the last, which is V, leaves the side where scores are made; so does that
        # of two beside one that is cut, whatever either side has of it
        alike = sum(size == columns[name] for size in columns.values()) > 1
        first = not found and (alike or load[EAST] == load[WEST])
        side = EAST if first or load[EAST] < load[WEST] else WEST
        load[side] += columns[name]
        found[name] = (side,)
    return found, max(load)


def keys_first(section: Section) -> Section:
    """The section with products of queries behind those of keys and values.

    For these attention waits longer: keys go to the cache before they meet queries, and values are
    transposed. Queries with norms come as they stand: all that looks for a factor goes by the SXM.
    """
    ops = list(section.ops)
    for attention in section.ops:
        if isinstance(attention, ATTENTIONS):
            turn = next(op for op in section.ops if op.out == attention.q)
            makers = [op for op in section.ops if isinstance(turn, Rotary) and op.out == turn.x]
            if any(isinstance(op, Linear) for op in makers):
                for op in (*makers, turn):
                    ops.remove(op)
                    ops.insert(ops.index(attention), op)
    return replace(section, ops=tuple(ops))
