"""ResNet on an emulated chip: weights and image into SRAM, the program run, logits out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chip.core import Chip
from chip.kernels.convolution import reads
from chip.program import Program
from chip.spec import GROQCHIP1, ChipSpec
from chip.wire import pack
from cluster.compiler.image_network import ImageNetwork
from cluster.model.graph.image import Convolution
from cluster.model.resnet import ResNetShape, resnet

I8 = npt.NDArray[np.int8]
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Classified:
    """Logits [classes], cycles and instructions of the program; `events` are its chains."""

    logits: F32
    scheduled_cycles: int
    executed_cycles: int
    instructions: int
    events: tuple[tuple[str, int, int], ...]  # (label, first cycle, end)


def classify(
    shape: ResNetShape, weights: Mapping[str, I8], image: I8, spec: ChipSpec = GROQCHIP1
) -> Classified:
    """Schedule, link and execute the network on one image."""
    net = ImageNetwork(spec, resnet(shape))
    chip = Chip(0, spec)
    program = net.plan.program(0, Program(0, spec.name, 0, {}, net.lane_maps))
    linked = chip.load("resnet", pack(program))
    for op in net.convolutions:
        values = columns(net, op, weights[op.weight.name])
        for buffer in net.weights[op.weight.name]:
            chip.write(buffer.region, values)
    _write_image(net, chip, image)
    chip.begin("resnet")
    for segment in range(len(linked.segments)):
        chip.run(segment, {})
    done = chip.finish()
    _, outs = net.cuts(net.convolutions[-1])
    rows = np.concatenate([chip.read(buffer.region) for buffer in net.logits])
    logits = rows[:, : outs.width].reshape(-1)[: shape.classes]
    ran = net.plan.end_cycle, done.end_cycle, linked.instructions
    return Classified(logits, *ran, tuple(net.plan.events))


def columns(net: ImageNetwork, op: Convolution, weights: I8) -> I8:
    """Columns [vectors, lanes] in the order of loading: output block, tap, input block, output."""
    (ins, outs), taps = net.cuts(op), net.taps(op)
    outputs, beside, times = op.weight.shape[0], net.beside(op.x), net.beside(op.out)
    own = weights.reshape(outputs, -1, taps, taps)
    width = ins.count * ins.width // beside
    padded = np.zeros((times, outs.count * outs.width // times, width, taps, taps), np.int8)
    padded[:, :outputs, : own.shape[1]] = own
    rows_of_taps = padded.reshape(-1, width, taps, taps)
    words = reads(taps, beside)
    tiles = np.zeros((len(rows_of_taps), taps, len(words), beside, width), np.int8)
    for number, (_, mine) in enumerate(words):
        for tap in mine:
            group = tap - (mine.stop - beside)
            tiles[:, :, number, group] = rows_of_taps[..., tap].swapaxes(1, 2)
    cut = tiles.reshape(outs.count, outs.width, -1, ins.count, ins.width)
    rows = cut.transpose(0, 2, 3, 1, 4).reshape(-1, ins.width)
    data = np.zeros((len(rows), net.spec.lanes), np.int8)
    data[:, : ins.width] = rows
    return data


def _write_image(net: ImageNetwork, chip: Chip, image: I8) -> None:
    """Patches by parity: what a host writes over PCIe before each image."""
    rows = patches(image)
    for (side, y, x), buffer in net.stem.inputs.items():
        mine = rows[y::2, x::2][list(net.stem.lines(side, y))]
        values = np.zeros((buffer.region.vectors, net.spec.lanes), np.int8)
        flat = mine.reshape(-1, rows.shape[-1])
        values[: len(flat), : rows.shape[-1]] = flat
        chip.write(buffer.region, values)


def patches(image: I8) -> I8:
    """Patches [lines / 2, columns / 2, 147] of the first convolution, stride 2, 3 zeros around."""
    padded = np.pad(image, ((3, 3), (3, 3), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7), axis=(0, 1))[::2, ::2]
    return np.ascontiguousarray(windows).reshape(*windows.shape[:2], -1)
