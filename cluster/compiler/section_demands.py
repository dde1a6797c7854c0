"""What the kernels of a section ask for in the memory of a chip, found by trials."""

from collections.abc import Collection
from dataclasses import replace
from functools import lru_cache

from chip.kernels.attention import Heads
from chip.kernels.attention_to_all import SIDE_BY_SIDE, SumLanes, by_powers
from chip.kernels.conflicts import Conflicts
from chip.kernels.experts import Experts
from chip.kernels.lanes import LANES, MAPS, LaneMap, group_maps, hurried_maps
from chip.kernels.layout import even
from chip.kernels.memory import most_column_words
from chip.kernels.ranks import turn_maps
from chip.kernels.trial import Demands, Trial, TrialMemory, Unplaced, conflicts
from chip.kernels.work import CACHE, Request, Work
from chip.program import word_columns
from chip.spec import ChipSpec
from cluster.compiler.assign import Assigned, Copy, Product
from cluster.compiler.kernels import in_turn, place
from cluster.compiler.rank import Rank
from cluster.compiler.shard import Sharded
from cluster.model.graph.attention import Attention
from cluster.model.graph.collective import AllReduce
from cluster.model.graph.experts import ExpertLinear
from cluster.model.graph.graph import Section
from cluster.model.graph.grouped_route import GroupedRoute
from cluster.model.graph.norm import Norm
from cluster.model.graph.own_experts import OwnExperts
from cluster.model.graph.route import Route

MIXTURE = (Route, GroupedRoute, OwnExperts, ExpertLinear)
TRIED_ROWS = 8  # of a trial of longer launches
TRIED_SLOTS = 2  # of launches with tokens of several: one for each array
TRIED_BLOCKS = 3  # context blocks after which every two buffers that take turns have met the others


def lane_maps(sections: Collection[Sharded], weights: str) -> tuple[tuple[int, ...], ...]:
    """Lane maps that the kernels of these sections use."""
    ops = [op for sharded in sections for op in sharded.section.ops]
    sizes = {op.x.dims[-1].size for op in ops if isinstance(op, Norm) and op.over == ("head_dim",)}
    routers = (op for op in ops if isinstance(op, GroupedRoute) and op.kept < op.groups)
    sizes |= {op.experts // op.groups for op in routers}
    hurried: list[LaneMap] = []
    if any(isinstance(op, Attention) and op.takes_sequence for op in ops):
        sizes |= set(SIDE_BY_SIDE)
        hurried = [*hurried_maps(LANES)]
    for op in ops:
        if isinstance(op, Attention) and op.takes_sequence:
            count, size = (dim.size for dim in op.q.dims)
            hurried += SumLanes.of(by_powers(Heads(tuple(range(count)), count, size))).maps
    routed = (even(op.scores.width, weights) for op in ops if isinstance(op, Route | GroupedRoute))
    turned = {min(layout.width, layout.total) for layout in routed}
    hurried += [lanes for count in sorted(turned) for lanes in turn_maps(count)]
    extra = (lanes for size in sorted(sizes) for lanes in group_maps(size))
    return tuple(dict.fromkeys((*MAPS, *extra, *hurried)))


@lru_cache(maxsize=256)
def asked(
    spec: ChipSpec, sharded: Sharded, rank: Rank, prefix: str, chunk: int, blocks: int,
    weights: str, carried: tuple[Copy, ...], slots: int = 1, part_rows: int = 0,
) -> Demands:  # fmt: skip
    """What a section's kernels ask for in launches of up to `chunk` tokens, and what meets what.

    The tokens of up to as many `slots` share a launch, or they go in parts of `part_rows`.
    """
    whole = sharded.section.takes_sequence or part_rows > 0
    some = chunk, blocks, weights, carried, slots, part_rows
    lives, requests = requested(spec, sharded, rank, prefix, *some)
    size = chunk if whole else min(chunk, TRIED_ROWS), min(blocks, TRIED_BLOCKS)
    met = _met(spec, sharded, rank, prefix, *size, weights, carried, slots, part_rows)
    return Demands(requests, lives, met, len(sharded.section.ops))


@lru_cache(maxsize=256)
def requested(
    spec: ChipSpec, sharded: Sharded, rank: Rank, prefix: str, chunk: int, blocks: int,
    weights: str, carried: tuple[Copy, ...], slots: int = 1, part_rows: int = 0,
) -> tuple[dict[str, tuple[int, int]], tuple[Request, ...]]:  # fmt: skip
    """The ops between which each buffer is used, and all requests."""
    rows = chunk if sharded.section.takes_sequence or part_rows else 1
    work, memory = _unplaced(spec, sharded, prefix, rows, chunk, blocks, weights)
    most = min(chunk, part_rows or chunk)
    own = most, weights, carried, part_rows > 0
    assigned = Assigned(sharded.section, rank, spec, *own)
    _try(replace(work, most_slots=slots, part_rows=part_rows), memory, assigned)
    if slots > 1:
        some = replace(work, rows=TRIED_SLOTS, slots=TRIED_SLOTS, most_slots=slots)
        _try(some, memory, assigned)
    lives = {name: (min(ops), max(ops)) for name, ops in memory.lives.items()}
    return lives, tuple(memory.requests.values())


def _matrix_words(assigned: Assigned) -> tuple[list[int], list[int]]:
    """Words of 16 slices that each matrix takes, of those east and of those west."""
    words: tuple[list[int], list[int]] = ([], [])
    for op in assigned.section.ops:
        for matrix in assigned.all_matrices(op) if isinstance(op, Product) else ():
            if isinstance(op, ExpertLinear):
                experts = Experts(matrix, op.held, op.chosen, op.adds)
                words[matrix.side].append(experts.words)
            else:
                words[matrix.side].append(matrix.vectors // word_columns(matrix.dtype))
    return words


def column_words(
    spec: ChipSpec,
    sharded: Sharded,
    rank: Rank,
    prefix: str,
    chunk: int,
    blocks: int,
    weights: str,
    slots: int,
    rows: int,
) -> tuple[list[int], list[int]]:
    """Words of 16 slices, east and west, of each matrix of a section, and its caches of `slots`.

    So many `rows` of them share a launch.
    """
    assigned = Assigned(sharded.section, rank, spec, chunk, weights)
    words = _matrix_words(assigned)
    if max(map(sum, words)) <= most_column_words(spec):  # else there is no room anyway
        work, memory = _unplaced(spec, sharded, prefix, 1, chunk, blocks, weights)
        work = replace(work, most_slots=rows)
        for op in sharded.section.ops:
            if op.cached_elements:
                place(work, assigned, op)
        for request in memory.requests.values():
            if request.role == CACHE:
                each = -(-request.vectors // word_columns(request.dtype))
                words[request.side].append(slots * each)
    return words


def _unplaced(
    spec: ChipSpec, sharded: Sharded, prefix: str, rows: int, chunk: int, blocks: int, weights: str
) -> tuple[Work, TrialMemory]:
    """Work that only asks, and what notes the requests."""
    memory, maps = TrialMemory(spec), lane_maps((sharded,), weights)
    size = rows, blocks, chunk, blocks, weights, prefix, maps
    return Work(Unplaced(spec), memory, 0, *size), memory


@lru_cache(maxsize=256)
def _met(
    spec: ChipSpec, sharded: Sharded, rank: Rank, prefix: str, rows: int, blocks: int,
    weights: str, carried: tuple[Copy, ...], slots: int, part_rows: int,
) -> Conflicts:  # fmt: skip
    """What meets what, in trials with a token over some blocks, and with some over one.

    Where slots share launches, also with tokens of two of them.
    """
    trials, some = [], [(1, blocks, 1), (rows, 1, 1)]
    some += [(TRIED_SLOTS, 1, TRIED_SLOTS)] * (slots > 1)
    whole, most = sharded.section.takes_sequence or part_rows, min(rows, part_rows or rows)
    own = most, weights, carried, part_rows > 0
    assigned = Assigned(sharded.section, rank, spec, *own)
    for count, context, of in some[1:] if whole else dict.fromkeys(some):
        trial, memory = Trial(spec, close=part_rows > 0 and weights == "i8"), TrialMemory(spec)
        size = count, context, rows, blocks, weights, prefix, lane_maps((sharded,), weights)
        _try(Work(trial, memory, 0, *size, of, slots, part_rows), memory, assigned)
        trials.append(trial)
    return conflicts(trials)


def _try(work: Work, memory: TrialMemory, assigned: Assigned) -> None:
    ops = assigned.section.ops
    mixture = any(isinstance(op, ExpertLinear) for op in ops)
    for op, how in in_turn(ops):
        memory.ops = _side_by_side(assigned.section, ops.index(op))
        if isinstance(op, AllReduce):  # its schedule depends on the network
            assigned.read(work, op, op.y)
            assigned.made(work, op.out)
            if mixture and isinstance(work.plan, Trial):
                work.plan.wait()  # experts meet nobody from before it
        else:
            place(work, assigned, op, how)


def _side_by_side(section: Section, number: int) -> tuple[int, int]:
    """The first and the last op that is at work beside one: a router with all of its experts.

    What these ask for does not share words, so that none waits until another is done with them.
    """
    mixture = [n for n, op in enumerate(section.ops) if isinstance(op, MIXTURE)]
    return (mixture[0], mixture[-1]) if number in mixture else (number, number)
