"""The memory map of a stage and the schedule of a layer, as `lpu model --stage` prints them."""

from collections.abc import Iterator
from dataclasses import replace

from chip.kernels.memory import MemoryMap
from chip.spec import ChipSpec
from cluster.compiler.choose import default_topology, open_graph
from cluster.compiler.limits import CONTEXT_BLOCK, check_weights
from cluster.compiler.place import Places
from cluster.compiler.sizes import CHUNKS, Sizes
from cluster.compiler.stage import Stage
from cluster.compiler.stages import Plan, StagePlan, smallest
from cluster.compiler.wires import Wires
from cluster.encoders.encoding import LENGTHS, plan_encoder
from cluster.errors import BadValue
from cluster.model.graph.counts import MATRIX_BYTES
from cluster.model.graph.graph import Model

MIB = 2**20


def shortest_plan(model: Model, tp: int, spec: ChipSpec, weights: str) -> Plan:
    """The plan with the fewest stages of that width; raises DoesNotFit, or BadValue."""
    if model.has_logits:
        return smallest(model, spec, CONTEXT_BLOCK, tp, weights)
    if tp > 1:
        raise BadValue("--tp", tp, f"must be 1: {model.name} is an encoder, one chip to a stage")
    return plan_encoder(model, spec, None, min(max(LENGTHS), model.context_max), weights)


def memory_lines(model: Model, tp: int, spec: ChipSpec, weights: str) -> Iterator[str]:
    """Every buffer of the fullest stage: what it is, where it rests, what it takes; the sums.

    Buffers with `after` rest where others did that nobody needs any more.
    """
    plan = shortest_plan(model, tp, spec, weights)
    number = max(range(plan.pp), key=lambda n: plan.stages[n].sram_bytes)
    part, stage = plan.stages[number], plan.stage(number)
    memory = stage.memory
    end = part.first + part.layers - 1
    head = " and the head" if part.head else ""
    yield (
        f"{model.name} in {weights}, stage {number} of {plan.pp} x tp {plan.tp}: "
        f"layers {part.first}-{end}{head} on each chip"
    )
    yield ""
    yield f"  {'buffer':24s} {'what':9s} {'rows':>6s} {'type':7s} {'slices':>7s} {'words':>15s}" + (
        f"{'KiB':>9s}"
    )
    for name in sorted(memory.buffers, key=lambda name: _place(memory, name)):
        yield f"  {_buffer_line(memory, name)}"
    yield ""
    kinds = memory.bytes_by_kind()
    for kind, size in kinds.items():
        yield f"  {kind.replace('_', ' '):12s} {size / MIB:8.2f} MiB"
    free = spec.sram_bytes - memory.used_bytes
    yield f"  {'free':12s} {free / MIB:8.2f} MiB of {spec.sram_bytes / MIB:.0f}, before programs"
    mine = plan.parameters(number) * MATRIX_BYTES[weights] / tp
    held = kinds["weights"]
    yield (
        f"  of the weights {mine / MIB:.2f} MiB are a chip's share of the parameters, and "
        f"{(held - mine) / held:.1%} are padding, what ranks hold twice, and constants of kernels"
    )


def _place(memory: MemoryMap, name: str) -> tuple[int, int, str]:
    region = memory.buffers[name].region
    return region.index, region.address, name


def _buffer_line(memory: MemoryMap, name: str) -> str:
    buffer, word_ranges = memory.buffers[name], memory.word_ranges(name)
    region, copies = buffer.region, len(word_ranges[0].further)
    slices = f"{region.index}-{region.index + region.slices - 1}"
    words = f"{region.address}-{region.address + region.words - 1}"
    if buffer.stretches:
        slices, words = "quads", f"{len(buffer.stretches)} runs"
    size = sum(own.slices * own.words for own in word_ranges) * copies * memory.spec.lanes
    kind = f"{region.dtype}{' col' if region.layout == 'columns' else ''}"
    times = f" x {copies}" if copies > 1 else ""
    after = f"  after {', '.join(buffer.after)}" if buffer.after else ""
    return (
        f"{name:24s} {memory.roles[name]:9s} {region.vectors:6d} {kind:7s} {slices:>7s} "
        f"{words:>11s}{times:4s} {size / 1024:8.0f}{after}"
    )


def schedule_lines(model: Model, tp: int, spec: ChipSpec, weights: str) -> Iterator[str]:
    """The chains of one layer for one row: what each does, from which cycle to which.

    Of an encoder it is a whole sequence, and what is before its layers comes first. Ranks whose
    heads make them differ are shown by the first; all-reduces are those of one group by itself.
    """
    stage = _one_layer(model, tp, spec, weights)
    topology = default_topology(tp, tp)
    graph = open_graph(topology, None, (), spec)
    (chips,) = Places(graph).place(tp, 1).placement
    rows = 1 if model.has_logits else stage.shape.chunk
    what = f"{rows} row" if rows == 1 else f"{rows} rows"
    where = f", tp {tp} on {topology}" if tp > 1 else ""
    yield f"{model.name} in {weights}: a layer, {what}, a context of {CONTEXT_BLOCK}{where}"
    begin = 0
    for step in stage.steps(rows, 1, Wires(graph).group(chips).routes):
        yield f"\n{step.what}, cycles {begin} to {begin + step.cycles}"
        part, _ = step.parts[0]
        for label, start, end in sorted(part.events, key=lambda event: event[1:]):
            yield f"  {begin + start:8d} {begin + end:8d}  {label}"
        begin += step.cycles
    yield f"\n{begin} cycles; weights can enter the MXM in {stage.column_cycles} at best"


def _one_layer(model: Model, tp: int, spec: ChipSpec, weights: str) -> Stage:
    """The first layer on a group by itself; one too large for its chips has room all the same."""
    if not model.has_logits:
        whole = shortest_plan(model, tp, spec, weights)
        return replace(whole, stages=(StagePlan(0, 1, False, 0),)).stage(0)
    check_weights(model, spec, weights)
    sizes = Sizes(model, spec, weights=weights)
    wide = not sizes.fits(tp, CHUNKS[0], 1, False)
    return sizes.stage(tp, CHUNKS[0], 1, head=False, wide=wide)
