"""The length of prefill chunks: long ones load weights seldom, short ones fill stages sooner."""

from dataclasses import replace
from math import ceil

from chip.kernels.memory import SramFull
from cluster.compiler.bound import step_bound
from cluster.compiler.clocking import Pacing
from cluster.compiler.launch import in_steps, prefill_kind
from cluster.compiler.limits import CONTEXT_BLOCK
from cluster.compiler.sizes import CHUNKS, Sizes
from cluster.compiler.stages import Plan
from cluster.compiler.wiring import Pipeline

PROMPT_TOKENS = 128  # of the prompt that is to be taken in soonest, if the context holds it


def with_best_chunk(
    plan: Plan, pipeline: Pipeline, clocks: Pacing | None, sizes: Sizes | None = None
) -> Plan:
    """The plan of one sequence with the chunk for which a prompt takes the fewest cycles by bounds.

    None is longer than that of the plan, for which there is room. Plans of several sequences, and
    those whose chunks go through all stages one after another, keep what they have.
    """
    if plan.slots > 1 or not in_steps(plan, prefill_kind(plan.chunk, 0), pipeline.apart):
        return plan
    sizes = sizes or Sizes(plan.model, plan.spec, plan.context, plan.weights)
    sizes = sizes.cutting if plan.cut else sizes.whole
    start = clocks.start_cycle if clocks else 0
    tokens = min(PROMPT_TOKENS, plan.context) - 1

    def cycles(chunk: int) -> int:
        steps = plan.pp + ceil(tokens / chunk) - 1
        kind = prefill_kind(chunk, CONTEXT_BLOCK)
        return steps * step_bound(plan, pipeline, kind, start).cycles

    for chunk in sorted((one for one in CHUNKS if one < plan.chunk), key=cycles):
        if cycles(chunk) >= cycles(plan.chunk):
            break
        try:
            return _with_chunk(plan, chunk, sizes)
        except SramFull:
            continue  # what is smaller may lie less well
    return plan


def _with_chunk(plan: Plan, chunk: int, sizes: Sizes) -> Plan:
    """The plan with another chunk, and what its stages take with it; raises SramFull."""
    stages = []
    for one in plan.stages:
        laid = sizes.laid(plan.tp, chunk, one.layers, one.head)
        size = sum(laid.kinds.values())
        stages.append(replace(one, sram_bytes=size, anywhere=laid.anywhere))
    return replace(plan, chunk=chunk, stages=tuple(stages))
