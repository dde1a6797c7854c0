"""The one reference of all models: their graphs, interpreted in plain NumPy.

In float32 it is the emulator's oracle and speed baseline; `exact` it computes graphs with int8
weights bit for bit as chips do, each rank of a tensor-parallel group for itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cluster.compiler.quantise import quantise
from cluster.compiler.shard import Sharded, shard
from cluster.errors import ClusterError, PromptTooLong
from cluster.model.graph.graph import Section
from cluster.model.graph.op import F32
from cluster.model.graph.source import Weights
from cluster.model.interpreter import Caches, Stage


@dataclass
class Held:
    """A sequence that waits: its length, and its caches by stage."""

    position: int
    caches: list[list[Caches]]


class Reference:
    """Forward pass of one sequence with KV caches of `context` tokens.

    `tp` ranks cut the graph as chips do; `exact` computes it with int8 weights as chips compute,
    with activations of `integers` i8 or i16, those with `fixed` steps or not. All weights stay in
    memory as float32 (0.54 GB for SmolLM2).
    """

    def __init__(
        self, weights: Weights, context: int = 1024, tp: int = 1, exact: bool = False,
        integers: str = "i8", fixed: bool = False,
    ) -> None:  # fmt: skip
        self.model, self.context, self.tp = weights.model, context, tp
        self.position = 0
        self._weights = weights
        cut: dict[Section, Sharded] = {}
        self._stages: list[Stage] = []
        for place, section in self.model.places:
            if section not in cut:
                cut[section] = shard(quantise(section, integers, fixed) if exact else section, tp)
            read = cut[section].section.weights
            arrays = {weight: weights.array(place, weight) for weight in read}
            self._stages.append(Stage(cut[section], arrays, context, exact))

    def reset(self) -> None:
        """Forget all tokens."""
        self.position = 0

    def swap(self, other: Held | None) -> Held:
        """Go on with another sequence, or begin one; return this one."""
        stages = [None] * len(self._stages) if other is None else other.caches
        pairs = zip(self._stages, stages, strict=True)
        mine = Held(self.position, [stage.swap(caches) for stage, caches in pairs])
        self.position = other.position if other else 0
        return mine

    def forward(self, ids: Sequence[int]) -> F32:
        """Append tokens; return what the head says of the last: logits [vocab].

        Raises PromptTooLong when the cache is full.
        """
        result: F32 = self.rows(ids, last=True)[-1]
        return result

    def rows(self, ids: Sequence[int], last: bool = False) -> F32:
        """Append tokens; return what the head says of each of them, or only of the last."""
        if self.position + len(ids) > self.context:
            raise PromptTooLong(self.position + len(ids), 0, self.context)
        x = self._weights.embedding_rows(ids)
        positions = np.arange(self.position, self.position + len(ids))
        for stage in self._stages[:-1]:
            x = stage.run(x, positions)
        head = self._stages[-1]
        if last and not any(op.mixes_rows for op in head.section.ops):
            x, positions = x[-1:], positions[-1:]
        x = head.run(x, positions)
        self.position += len(ids)
        return x

    def generate(self, ids: Sequence[int], n: int, eos: int | None = None) -> list[int]:
        """Return up to `n` greedy tokens after `ids`, from an empty cache; `eos` ends it."""
        if not ids:
            raise ClusterError("the prompt is empty")
        self.reset()
        output: list[int] = []
        while len(output) < n:
            token = int(np.argmax(self.forward(output[-1:] or ids)))
            output.append(token)
            if token == eos:
                break
        return output
