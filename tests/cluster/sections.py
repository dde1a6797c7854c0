"""One section of a graph on one chip, and the same by the interpreter."""

from dataclasses import dataclass

import numpy as np

from chip.core import Chip
from chip.isa import NUMPY_TYPES
from chip.program import Program
from chip.spec import GROQCHIP1
from chip.wire import pack
from cluster.compiler.limits import CONTEXT_BLOCK, WEIGHT_TYPES
from cluster.compiler.rank import ranks_of
from cluster.compiler.stage import Stage
from cluster.compiler.stage_shape import StageShape, compiled
from cluster.compiler.weight_layout import stage_image
from cluster.model import interpreter


@dataclass(frozen=True)
class Drawn:
    """Random weights of sections, by their names; fixed steps are such that some saturate."""

    seed: int = 0

    def array(self, place, weight, rows=slice(None)):
        """Matrices scaled by their width; vectors around one."""
        random = np.random.default_rng([self.seed, *weight.name.encode()])
        drawn = random.standard_normal(weight.shape, np.float32)
        matrix = len(weight.shape) > 1
        if weight.name.endswith(".steps"):
            return np.float32(0.02) + np.abs(drawn) / 100
        found = drawn / np.sqrt(weight.shape[-1]) if matrix else 1 + drawn / 10
        return found.astype(np.float32)


def on_chip(section, x, inputs=None, spec=GROQCHIP1, weights="fp16"):
    """Rows [rows, hidden] that a section makes of x, and its stage.

    Every word that nothing has written holds ones; executed cycles must be the scheduled ones.
    """
    sharded, rows = compiled(section, 1, weights), len(x)
    ranks = ranks_of([sharded], spec.lanes)
    size = CONTEXT_BLOCK, rows, WEIGHT_TYPES[weights]
    stage = Stage(spec, StageShape((sharded,), None, ranks, *size))
    plan, chip = stage.schedule(rows, 1, {}), Chip(0, spec)
    linked = chip.load("it", pack(plan.program(0, Program(0, spec.name, 0, {}, stage.maps))))
    for buffer in stage.memory.buffers.values():
        if buffer.region.layout == "rows":
            dtype = NUMPY_TYPES[buffer.region.dtype]
            chip.write(buffer.region, np.ones((buffer.region.vectors, spec.lanes), dtype))
    for _, region, values in stage_image(stage, 0, Drawn()):
        chip.write(region, values)
    blocks = np.stack([stage.layout_x.rows(row) for row in x], axis=1)
    given = {stage.entry: stage.in_order(blocks)}
    for name, values in (given | (inputs(stage) if inputs else {})).items():
        chip.write(stage.view(name, len(values)).region, values)
    chip.begin("it")
    for segment in range(len(linked.segments)):
        chip.run(segment, {})
    assert chip.finish().end_cycle == plan.end_cycle
    found = chip.read(stage.view("x0", len(blocks.reshape(-1, spec.lanes))).region)
    order = stage.in_order(np.arange(found.shape[0]).reshape(*blocks.shape[:2], 1))
    by_row = found[np.argsort(order[:, 0])].reshape(*blocks.shape).swapaxes(0, 1)
    return stage.layout_x.elements(by_row), stage


def by_interpreter(section, x, weights="fp16"):
    """The same rows in float32, or exact with int8 weights."""
    exact, sharded = weights != "fp16", compiled(section, 1, weights)
    arrays = {weight: Drawn().array(0, weight) for weight in sharded.section.weights}
    stage = interpreter.Stage(sharded, arrays, len(x), exact)
    return stage.run(x, np.arange(len(x)))
