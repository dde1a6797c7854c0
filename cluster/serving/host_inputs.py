"""What the host writes before a launch, from its rows, and the logits that it reads after it."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from chip.kernels.window import Window
from cluster.compiler.lower import Lowered
from cluster.compiler.stage_shape import windows
from cluster.compiler.weight_layout import Array
from cluster.generation.rotary import rotary_rows
from cluster.model.graph.graph import Model
from cluster.model.graph.rotary import Rotary, RotaryTable
from cluster.model.graph.shares import share
from cluster.serving.requests import Work, Works

MASKED = np.float32(-30000.0)  # added to a score that must not count: exp gives exactly 0
PAIRS = 8


def host_inputs(
    lowered: Lowered, works: Works, tables: Callable[[Work], dict[str, Array]] | None = None
) -> dict[int, dict[str, Array]]:
    """Tables for every chip of a stage at work, and x for those of the first.

    `works` are those of the stages, or one of all of them. `tables` may remember `host_tables`.
    """
    inputs: dict[int, dict[str, Array]] = {}
    everyone = works * len(lowered.placement) if len(works) == 1 else works
    for work, stage, chips in zip(everyone, lowered.stages, lowered.placement, strict=True):
        if work:
            mine, asked = (
                tables(work) if tables else host_tables(lowered, work),
                stage.memory.given(),
            )
            inputs |= {chip: {name: mine[name] for name in asked} for chip in chips}
    if works[0]:
        x = embedded(lowered, works[0])
        for chip in lowered.placement[0]:
            inputs[chip]["x0"] = x
    return inputs


def host_tables(lowered: Lowered, work: Work) -> dict[str, Array]:
    """What depends on where the rows of a work are: rotary rows, mask, cache words."""
    lanes, found, kind = lowered.plan.spec.lanes, {}, work.kind
    if kind.slots > 1:  # rows of slots that have nothing to do are as if theirs began
        at = {kind.row_of(row.slot): row.position for row in work.rows}
        positions = [at.get(number, 0) for number in range(kind.rows)]
    else:  # a launch has a fixed number of rows: those beyond ours are as if the sequence went on
        positions = [row.position for row in work.rows]
        positions += range(positions[-1] + 1, positions[-1] + 1 + kind.rows - len(positions))
    for table in rotary_tables(lowered.plan.model):
        rows = rotary_rows(positions, table, lanes)
        found[f"cos{table.name}"], found[f"sin{table.name}"] = rows
    for window in _windows(lowered.plan.model):
        found[window.mask] = _mask(window, positions, kind.blocks, lanes)
        for name, blocks in window.maps_of(lowered.plan.context // lanes).items():
            spare = blocks * lanes // PAIRS
            if kind.slots == kind.rows:
                mine = at if kind.slots > 1 else dict(enumerate(positions))
                words = _words_apart(mine, kind.slots, spare)
            else:
                words = np.array(positions) // PAIRS % spare
            found[name] = np.repeat(words.astype(np.uint16)[:, None], lanes, axis=1)
    return found


@cache
def _windows(model: Model) -> tuple[Window, ...]:
    """How far back the layers of a model look."""
    return windows(dict.fromkeys(model.layers))


@cache
def rotary_tables(model: Model) -> tuple[RotaryTable, ...]:
    """The rotary tables of a model."""
    ops = (op for section in dict.fromkeys(model.layers) for op in section.ops)
    return tuple(dict.fromkeys(op.table for op in ops if isinstance(op, Rotary)))


def embedded(lowered: Lowered, work: Work) -> Array:
    """Embeddings as rows (block, row) of stage 0, zero beyond those of the work."""
    layout, lanes = lowered.stages[0].layout_x, lowered.plan.spec.lanes
    x = np.zeros((layout.blocks, work.kind.rows, lanes), np.float32)
    rows = lowered.weights.embedding_rows([row.token for row in work.rows])
    for number, (row, values) in enumerate(zip(work.rows, rows, strict=True)):
        at = number if work.kind.slots == 1 else work.kind.row_of(row.slot)
        x[:, at] = layout.rows(values)
    return x.reshape(-1, lanes)


def _mask(window: Window, positions: Sequence[int], blocks: int, lanes: int) -> Array:
    """Rows (block, row): 0 where a row may look, MASKED elsewhere."""
    first, own = (blocks - window.blocks(blocks)) * lanes, np.array(positions)[:, None]
    keys = np.arange(first, blocks * lanes).reshape(-1, 1, lanes)
    allowed = keys <= own
    if window.tokens is not None:
        allowed &= keys > own - window.tokens
    return np.where(allowed, np.float32(0), MASKED).reshape(-1, lanes).astype(np.float32)


def _words_apart(positions: Mapping[int, int], rows: int, spare: int) -> npt.NDArray[np.int64]:
    """Cache word of each of the eight copies of a row; all but one go to the spare word.

    That is behind all blocks; a row without a position has all its copies there.
    """
    words = np.full((rows, PAIRS), spare)
    for number, position in positions.items():
        words[number, position % PAIRS] = position // PAIRS % spare
    return words.ravel()


def logits_of(lowered: Lowered, outputs: dict[int, dict[str, Array]]) -> npt.NDArray[np.float32]:
    """Logits [rows, vocab] from the ranks of the last stage; of no row after a prefill."""
    plan = lowered.plan
    if not outputs:
        return np.zeros((0, plan.model.vocab), np.float32)
    stage, parts = lowered.stages[-1], []
    head = stage.shape.head
    assert head is not None
    for rank, chip in enumerate(lowered.placement[-1]):
        halves = (values for _, values in sorted(outputs[chip].items()))
        rows = np.concatenate([half.reshape(-1, plan.rows, plan.spec.lanes) for half in halves])
        layout = stage.assigned(head, rank, 1).layout(head.section.out)
        mine = len(share(plan.model.vocab, plan.tp, rank))
        parts.append(layout.elements(rows.swapaxes(0, 1))[:, :mine])
    return np.concatenate(parts, axis=1)
