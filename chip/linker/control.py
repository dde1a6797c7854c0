"""Instructions of a queue with powered-down lanes (Config), and Ifetch.

Values are computed for all lanes; what lies beyond the powered ones is nobody's: `check_lanes`
sees that it is not read, and the steps here that it is neither written, sent nor summed.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from chip.errors import LanesOff
from chip.isa import NO_STREAM, NUMPY_TYPES
from chip.isa.mem import check_indirect
from chip.isa.mxm import ADD
from chip.linker.fetch import Array, Fetch, as_slice
from chip.linker.graph import Graph, State, Step, made_by
from chip.linker.streams import PRODUCT, Feeds
from chip.linker.timeline import Issue
from chip.linker.weights import Tiles
from chip.spec import ChipSpec
from chip.sram import GROUP

Build = Callable[[Graph, Issue], int]


# --- the rule -------------------------------------------------------------------------------
def check_lanes(issues: list[Issue], feeds: Feeds, spec: ChipSpec) -> None:
    """No instruction reads lanes that its producer had powered down; raises LanesOff."""
    if all(issue.lanes == spec.lanes for issue in issues):
        return
    for (number, _), parts in feeds.items():
        for producer in {int(p) for feed in parts for p in np.unique(feed.producers)}:
            _check_pair(issues[producer], issues[number])
    summed: dict[tuple[int, int], Issue] = {}
    for issue in issues:
        if issue.op.name == "mxm.acc":
            for slot in issue.steps.tolist():
                if issue.arg("mode") == ADD and (issue.unit, slot) in summed:
                    _check_pair(summed[issue.unit, slot], issue)
                summed[issue.unit, slot] = issue


def check_tiles(issues: list[Issue], tiles: dict[int, Tiles], spec: ChipSpec) -> None:
    """No activation meets weights of lanes that were powered down when they were loaded."""
    if all(issue.lanes == spec.lanes for issue in issues):
        return
    for number, met in tiles.items():
        for owner in np.unique(met.loads[:, :, 0]):
            _check_pair(issues[int(owner)], issues[number])


def _check_pair(producer: Issue, consumer: Issue) -> None:
    if producer.lanes < consumer.lanes:
        detail = f"reads {consumer.lanes} lanes, {producer.queue} has powered {producer.lanes}"
        raise consumer.hazard(LanesOff, detail, None, (producer,))


# --- the steps ------------------------------------------------------------------------------
def narrowed(whole: Mapping[str, Build]) -> dict[str, Build]:
    """The builders of each family, by whether an issue has all lanes; and that of Ifetch."""
    narrow: dict[str, Build] = {
        "sxm": _sxm, "mem.r": _gather, "mem.w": _store, "mxm.acc": _acc, "c2c.s": _send
    }  # fmt: skip

    def choose(family: str) -> Build:
        def build(graph: Graph, issue: Issue) -> int:
            powered = issue.lanes == graph.spec.lanes
            return (whole if powered else narrow | without)[family](graph, issue)

        return build

    without = {family: build for family, build in whole.items() if family not in narrow}
    return {family: choose(family) for family in whole} | {"icu": ifetch}


def ifetch(graph: Graph, issue: Issue) -> int:
    """Compare what arrives with the instructions of the queue."""
    (fetch,), needs = _operands(graph, issue)
    image = np.frombuffer(issue.image, np.uint8).reshape(-1, graph.spec.lanes)
    if issue.lanes < graph.spec.lanes:
        raise issue.hazard(LanesOff, f"an Ifetch takes all {graph.spec.lanes} lanes")
    function = issue.op.function

    def make(number: int) -> Step:
        def step(state: State) -> None:
            function(fetch(state.values), image)

        return step

    return graph.add((issue,), needs, make)


def _operands(graph: Graph, issue: Issue) -> tuple[list[Fetch], set[int]]:
    found = [graph.operand(issue, index) for index in issue.op.sources]
    return [fetch for fetch, _ in found], set().union(*(needs for _, needs in found))


def _sxm(graph: Graph, issue: Issue) -> int:
    """Lanes move inside the powered ones; a map over all lanes must keep them together."""
    fetches, needs = _operands(graph, issue)
    powered, function = issue.lanes, issue.op.function
    constants: list[Any] = []
    for operand, value in zip(issue.op.operands, issue.instruction.args, strict=True):
        if operand.kind == "map":
            table = graph.maps[value]
            constants.append(table[:powered] if len(table) == graph.spec.lanes else table)
        elif operand.kind == "int":
            constants.append(min(value, powered))
    if issue.op.name == "sxm.permute" and (constants[0] >= powered).any():
        raise issue.hazard(LanesOff, f"the map takes some of the {powered} lanes from beyond them")

    def make(number: int) -> Step:
        def step(state: State) -> None:
            given = (fetch(state.values)[:, :powered] for fetch in fetches)
            state.values[number] = _padded(function(*constants, *given), graph.spec.lanes)

        return step

    return graph.add((issue,), needs, make)


def _padded(values: Array, lanes: int) -> Array:
    out = np.zeros((len(values), lanes, *values.shape[2:]), values.dtype)
    out[:, : values.shape[1]] = values
    return out


def _send(graph: Graph, issue: Issue) -> int:
    (fetch,), needs = _operands(graph, issue)

    def make(number: int) -> Step:
        def step(state: State) -> None:
            packets = fetch(state.values)[:, : issue.lanes]
            state.sent[state.first + issue.id] = _padded(packets, graph.spec.lanes)

        return step

    return graph.add((issue,), needs, make)


def _gather(graph: Graph, issue: Issue) -> int:
    (maps,), needs = _operands(graph, issue)
    base, unit, powered = issue.arg("base"), issue.unit, issue.lanes

    def make(number: int) -> Step:
        def step(state: State) -> None:
            words = _addresses(graph.spec, issue, maps(state.values), base + state.shift[issue.id])
            whole = np.full((len(words), graph.spec.superlanes), base + state.shift[issue.id])
            whole[:, : words.shape[1]] = words
            values = state.sram.read_tiles(unit, whole)[:, :powered]
            state.values[number] = _padded(values, graph.spec.lanes)

        return step

    return graph.add((issue,), needs, make)


def _addresses(spec: ChipSpec, issue: Issue, maps: Array, base: int) -> Array:
    """Words [n, powered superlanes] of an indirect access."""
    offsets = maps[:, : issue.lanes : spec.superlane_lanes].astype(np.int64)
    check_indirect(issue.unit, issue.arg("base"), issue.arg("words"), offsets)
    return offsets + base


def _store(graph: Graph, issue: Issue) -> int:
    """A write or scatter of the powered lanes; the words keep the others."""
    fetches, needs = _operands(graph, issue)
    powered, unit, local = issue.lanes, issue.unit, issue.id

    def make(number: int) -> Step:
        def step(state: State) -> None:
            data = fetches[-1](state.values)[:, :powered]
            if issue.op.stepped is None:
                first = issue.arg("base") + state.shift[local]
                words = _addresses(graph.spec, issue, fetches[0](state.values), first)
                state.scattered.append((unit, 1, np.unique(words)))
                state.sram.write_tiles(unit, words, data)
            else:
                plane = state.sram.group(unit)[:, :powered, unit % GROUP]
                plane[issue.steps + state.shift[local]] = data
                state.sram.written(unit, issue.steps + state.shift[local])

        return step

    return graph.add((issue,), needs, make)


def _acc(graph: Graph, issue: Issue) -> int:
    fetch, needs = graph.operand(issue, PRODUCT)
    powered, function, mode = issue.lanes, issue.op.function, issue.arg("mode")
    where, dtype, unit = as_slice(issue.steps), NUMPY_TYPES[made_by(issue)], issue.unit

    def make(number: int) -> Step:
        def step(state: State) -> None:
            held = state.accumulators[unit].view(dtype)[:, :powered]
            value = function(held, mode, where, fetch(state.values)[:, :powered])
            if issue.arg("out") != NO_STREAM:
                state.values[number] = _padded(value, graph.spec.lanes)

        return step

    return graph.add((issue,), needs, make)
