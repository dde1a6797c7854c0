"""An encoder on a cluster: stages of whole layers, one program per chip and sequence length."""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import networkx as nx
import numpy as np

from chip.board import Cable
from chip.kernels.attention import Heads
from chip.kernels.encoder import EncoderStage
from chip.kernels.encoder_shape import EncoderShape
from chip.kernels.lanes import MAPS
from chip.kernels.memory import SramFull
from chip.kernels.shape import blocks
from chip.kernels.transfer import Hop, transfer
from chip.own_spec import identity
from chip.program import Program, Region
from chip.schedule import Rows, Schedule
from chip.spec import ChipSpec
from chip.wire import pack
from cluster.compiler.clocking import Clocking, clocking
from cluster.compiler.launch import Launch
from cluster.compiler.timeline import LaunchTimeline
from cluster.compiler.weight_layout import Array
from cluster.compiler.wires import Wires
from cluster.encoders.images import encoder_image
from cluster.errors import BadValue, DoesNotFit
from cluster.machines.machine import Machine, Result
from cluster.model.bert import EncoderSpec, EncoderWeights
from cluster.model.spec import F32

LENGTHS = (32, 64, 128, 256)  # tokens of the programs; a sequence uses the shortest that holds it
MASKED = np.float32(-30000)


@dataclass(frozen=True)
class EncoderPlan:
    """Layers of each stage; `tokens` are the lengths for which there are programs."""

    model: EncoderSpec
    spec: ChipSpec
    layers: tuple[int, ...]
    lengths: tuple[int, ...]

    def stage(self, number: int) -> EncoderStage:
        """Memory map and kernels of one stage; raises DoesNotFit."""
        model, last = self.model, len(self.layers) - 1
        heads = Heads(tuple(range(model.heads)), model.heads, model.head_dim, self.spec.lanes)
        shape = EncoderShape(
            blocks(model.hidden), heads, blocks(model.ffn), self.layers[number], model.eps,
            max(self.lengths), number == 0, number == last,
        )  # fmt: skip
        try:
            return EncoderStage(self.spec, shape)
        except SramFull as error:
            advice = f"{error}; use more chips"
            raise DoesNotFit(number, error.needs_bytes, error.has_bytes, advice) from error


@dataclass(frozen=True)
class Encoding:
    """Everything a machine needs to run an encoder: launches, cables, constants."""

    plan: EncoderPlan
    placement: tuple[tuple[int, ...], ...]
    launches: dict[str, Launch]
    cables: tuple[Cable, ...]
    stages: tuple[EncoderStage, ...]
    weights: EncoderWeights = field(repr=False)
    clocking: Clocking | None = None

    @property
    def chips(self) -> tuple[int, ...]:
        """Chips that hold layers."""
        return tuple(sorted(chip for group in self.placement for chip in group))

    @property
    def transit_chips(self) -> tuple[int, ...]:
        """Chips that only pass vectors on."""
        used = {chip for launch in self.launches.values() for chip in launch.programs}
        return tuple(sorted(used - set(self.chips)))

    def sram_bytes(self, stage: int) -> int:
        """Bytes of SRAM that the chip of a stage uses."""
        return self.stages[stage].memory.used_bytes

    def constants(
        self, wanted: Container[int] | None = None
    ) -> Iterator[tuple[int, Region, Array]]:
        """(chip, region, values) of everything that rests in SRAM before the first launch."""
        first = 0
        for (chip,), stage in zip(self.placement, self.stages, strict=True):
            if wanted is None or chip in wanted:
                for region, values in encoder_image(stage, self.weights, first):
                    yield chip, region, values
            first += stage.shape.layers


def plan_encoder(model: EncoderSpec, spec: ChipSpec, chips: int | None, tokens: int) -> EncoderPlan:
    """Cut the layers over `chips` chips, the fewest that hold them where None.

    Raises BadValue and DoesNotFit.
    """
    most = min(max(LENGTHS), model.tokens_max)
    if not 1 <= tokens <= most:
        raise BadValue("--tokens", tokens, f"must be 1 to {most}")
    if chips is not None and not 1 <= chips <= model.layers:
        raise BadValue("--chips", chips, f"must be 1 to {model.layers}, the layers of {model.name}")
    longest = next(n for n in LENGTHS if n >= tokens)
    lengths = tuple(n for n in LENGTHS if n <= longest)
    for count in [chips] if chips else range(1, model.layers + 1):
        cut = [model.layers * n // count for n in range(count + 1)]
        layers = tuple(b - a for a, b in pairwise(cut))
        plan = EncoderPlan(model, spec, layers, lengths)
        try:
            for number in {0, len(layers) - 1}:
                plan.stage(number)
            return plan
        except DoesNotFit as error:
            failed = error
    raise failed


def lower_encoder(
    plan: EncoderPlan, chips: Sequence[int], graph: nx.Graph, weights: EncoderWeights
) -> Encoding:
    """Schedule and encode every length; stage n is on chip `chips[n]`."""
    wires = Wires(graph)
    stages = tuple(plan.stage(number) for number in range(len(plan.layers)))
    placement = tuple((chip,) for chip in chips)
    used = wires.pipeline(placement).used
    clocks = clocking(graph, used, wires.ports, plan.spec)
    launches = {
        launch_name(tokens): _launch(plan, stages, chips, wires, clocks, tokens)
        for tokens in plan.lengths
    }
    cables = wires.cables(clocks)
    return Encoding(plan, placement, launches, cables, stages, weights, clocks)


def launch_name(tokens: int) -> str:
    """Name of the launch for sequences of up to `tokens` tokens."""
    return f"encode@{tokens}"


def _launch(
    plan: EncoderPlan,
    stages: tuple[EncoderStage, ...],
    chips: Sequence[int],
    wires: Wires,
    clocks: Clocking | None,
    tokens: int,
) -> Launch:
    timeline = LaunchTimeline(clocks)
    for number, (stage, chip) in enumerate(zip(stages, chips, strict=True)):
        timeline.stage(stage.schedule(tokens, timeline.pace), [chip])
        if number + 1 < len(chips):
            route = wires.hops(wires.path(chip, chips[number + 1]))
            timeline.crossing([_boundary(stage, stages[number + 1], route, tokens)], None)
    programs = {}
    holder = dict(zip(chips, stages, strict=True))
    for chip, part in timeline.chips():
        queues, found = part.queues(), holder.get(chip)
        regions = ({}, {}, ()) if found is None else _regions(found, tokens)
        when = part.start_cycle, part.startup(chip), part.interval_cycles
        spec = identity(plan.spec)
        programs[chip] = pack(Program(chip, spec, when[0], queues, MAPS, *regions, *when[1:]))
    clocked = timeline.startup_cycles, timeline.stalled_cycles
    name, ends, counts = launch_name(tokens), timeline.end_cycles, timeline.instructions
    return Launch(name, *clocked, programs, ends, counts)


def _boundary(
    stage: EncoderStage,
    following: EncoderStage,
    route: list[Hop],
    tokens: int,
) -> Schedule:
    plan = Schedule(stage.spec)
    count = stage.shape.hidden.count * tokens
    hops = tuple(route)
    transfer(plan, hops, Rows(stage.memory["x0"]), Rows(following.memory["x0"]), count)
    return plan


def _regions(
    stage: EncoderStage, tokens: int
) -> tuple[dict[str, Region], dict[str, Region], tuple[Region, ...]]:
    """Inputs, outputs and constants of a program."""
    memory, shape = stage.memory, stage.shape

    def cut(name: str, vectors: int) -> Region:
        region = memory[name].region
        return Region(region.index, region.address, vectors, region.dtype)

    inputs = {"mask": cut("mask", tokens)}
    if shape.first:
        inputs["x0"] = cut("x0", shape.hidden.count * tokens)
    outputs = {}
    if shape.last:
        inputs |= {name: memory[name].region for name in ("poolmask", "poolscale")}
        outputs["embedding"] = memory["embedding"].region
    tables = ("gamma", "beta", "bias0", "bias1", "headmask", "ones", "identity")
    constants = [placed.buffer.region for placed in stage.matrices.values()]
    constants += [memory[name].region for name in tables]
    return inputs, outputs, tuple(constants)


def encoder_inputs(encoding: Encoding, ids: Sequence[int]) -> tuple[str, dict[int, dict[str, F32]]]:
    """(launch, what the host writes before it, by chip) for one sequence; raises BadValue."""
    plan, lanes = encoding.plan, encoding.plan.spec.lanes
    lengths = [n for n in plan.lengths if n >= len(ids)]
    if not ids or not lengths:
        most = max(plan.lengths)
        raise BadValue("--text", f"{len(ids)} tokens", f"must be 1 to {most} tokens; see --tokens")
    tokens, hidden = lengths[0], encoding.stages[0].shape.hidden
    keys = np.where(np.arange(lanes) < len(ids), np.float32(0), MASKED)
    mask = np.broadcast_to(keys, (tokens, lanes)).astype(np.float32)
    x = np.zeros((hidden.count, tokens, lanes), np.float32)
    for number, row in enumerate(encoding.weights.embeddings(ids)):
        x[:, number] = lay(row, hidden, lanes)
    inputs: dict[int, dict[str, Array]] = {chip: {"mask": mask} for chip in encoding.chips}
    inputs[encoding.placement[0][0]]["x0"] = x.reshape(-1, lanes)
    last = inputs[encoding.placement[-1][0]]
    last["poolmask"] = (np.arange(lanes) < len(ids)).astype(np.float16)[None]
    last["poolscale"] = np.full((1, lanes), 1 / len(ids), np.float32)
    return launch_name(tokens), inputs


def embed(encoding: Encoding, machine: Machine, ids: Sequence[int]) -> tuple[F32, int, Result]:
    """(sentence embedding [hidden], executed cycles, the launch's result) of one sequence."""
    name, inputs = encoder_inputs(encoding, ids)
    result = machine.launch(name, inputs)
    rows = result.outputs[encoding.placement[-1][0]]["embedding"]
    model, hidden = encoding.plan.model, encoding.stages[-1].shape.hidden
    vector = rows[:, : hidden.width].reshape(-1)[: model.hidden]
    return vector, result.end_cycle, result
