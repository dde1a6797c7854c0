"""Generating text on a machine: host inputs of each launch, prefill, decode, sampling."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cluster.compiler.launch import kind_of
from cluster.compiler.lower import Lowered
from cluster.errors import PromptTooLong
from cluster.generation.rotary import rotary_rows
from cluster.generation.sampling import Sampling
from cluster.lowering.images import Array, lay
from cluster.machines.machine import Digest, Machine
from cluster.mapping.partition import CONTEXT_BLOCK, share

MASKED = np.float32(-30000.0)  # added to a score that must not count: exp gives exactly 0
PAIRS = 8


@dataclass
class Session:
    """One sequence on a loaded machine; `logits` and cycles are those of the last launch."""

    lowered: Lowered
    machine: Machine
    position: int = 0
    prefill_cycles: int = 0
    decode_cycles: list[int] = field(default_factory=list)
    launches: int = 0

    def __post_init__(self) -> None:
        self.digest = Digest(self.lowered)
        self.logits_digest = hashlib.sha256()  # of all logits that a token was chosen from

    def generate(
        self, prompt: Sequence[int], count: int, sampling: Sampling, stop: frozenset[int]
    ) -> Iterator[int]:
        """Yield up to `count` tokens, the stop token included; raises PromptTooLong."""
        limit = self.lowered.plan.context
        if len(prompt) + count > limit + 1 or not prompt:
            raise PromptTooLong(len(prompt), count, limit)
        logits = self.prefill(prompt)
        for step in range(count):
            self.logits_digest.update(logits.tobytes())
            token = sampling.pick(logits, step)
            yield token
            if token in stop or step + 1 == count:
                return
            logits = self.decode(token)

    def prefill(self, prompt: Sequence[int]) -> npt.NDArray[np.float32]:
        """Take in a prompt; logits after its last token.

        All but the last token go in chunks, which need no LM head; the last one is a decode
        launch. Both count as prefill cycles.
        """
        chunk = self.lowered.plan.chunk
        body = prompt[:-1]
        for start in range(0, len(body), chunk):
            self.prefill_cycles += self._launch("prefill", body[start : start + chunk])[1]
        logits, cycles = self._launch("decode", prompt[-1:])
        self.prefill_cycles += cycles
        return logits

    def decode(self, token: int) -> npt.NDArray[np.float32]:
        """One more token; logits after it."""
        logits, cycles = self._launch("decode", [token])
        self.decode_cycles.append(cycles)
        return logits

    def _launch(self, kind: str, ids: Sequence[int]) -> tuple[npt.NDArray[np.float32], int]:
        tokens = 1 if kind == "decode" else self.lowered.plan.chunk
        context = -(-(self.position + len(ids)) // CONTEXT_BLOCK) * CONTEXT_BLOCK
        inputs = host_inputs(self.lowered, ids, tokens, self.position, context)
        result = self.machine.launch(str(kind_of(self.lowered.plan, kind, context)), inputs)
        self.digest.add(result)
        self.position += len(ids)
        self.launches += 1
        return logits_of(self.lowered, result.outputs), result.end_cycle


def host_inputs(
    lowered: Lowered, ids: Sequence[int], tokens: int, position: int, context: int
) -> dict[int, dict[str, Array]]:
    """What the host writes before a launch, by chip: the same tables everywhere, x to stage 0."""
    tables = host_tables(lowered, tokens, position, context)
    inputs = {chip: dict(tables) for chip in lowered.chips}
    x = embedded(lowered, ids, tokens)
    for chip in lowered.placement[0]:
        inputs[chip]["x0"] = x
    return inputs


def host_tables(lowered: Lowered, tokens: int, position: int, context: int) -> dict[str, Array]:
    """What depends on the position of a launch's `tokens` alone: rotary rows, mask, cache words."""
    model, lanes = lowered.plan.model, lowered.plan.spec.lanes
    positions = range(position, position + tokens)
    cosine, sine = rotary_rows(positions, model, lanes)
    return {
        "cos": cosine,
        "sin": sine,
        "mask": _mask(positions, context, lanes),
        "maps": _maps(positions, lowered.plan.context, lanes),
    }


def embedded(lowered: Lowered, ids: Sequence[int], tokens: int) -> Array:
    """Embeddings as rows (block, token) of stage 0, zero beyond `ids`."""
    hidden, lanes = lowered.stages[0].shape.hidden, lowered.plan.spec.lanes
    x = np.zeros((hidden.count, tokens, lanes), np.float32)
    for number, row in enumerate(lowered.weights.embedding_rows(ids)):
        x[:, number] = lay(row, hidden, lanes)
    return x.reshape(-1, lanes)


def _mask(positions: range, context: int, lanes: int) -> Array:
    """Rows (block, token): 0 where a token may look, MASKED elsewhere."""
    keys = np.arange(context).reshape(-1, 1, lanes)
    allowed = keys <= np.array(positions)[None, :, None]
    return np.where(allowed, np.float32(0), MASKED).reshape(-1, lanes).astype(np.float32)


def _maps(positions: range, context: int, lanes: int) -> Array:
    """Cache word of each row sent to the caches; `context` / 8 is the spare word."""
    if len(positions) > 1:
        words = np.array(positions) // PAIRS
    else:
        words = np.full(PAIRS, context // PAIRS)
        words[positions[0] % PAIRS] = positions[0] // PAIRS
    return np.repeat(words.astype(np.uint16)[:, None], lanes, axis=1)


def logits_of(lowered: Lowered, outputs: dict[int, dict[str, Array]]) -> npt.NDArray[np.float32]:
    """Logits of the whole vocabulary from the ranks of the last stage; empty after a prefill."""
    plan = lowered.plan
    if not outputs:
        return np.zeros(0, np.float32)
    vocab = lowered.stages[-1].shape.vocab
    assert vocab is not None
    parts = []
    for rank, chip in enumerate(lowered.placement[-1]):
        rows = np.concatenate([values for _, values in sorted(outputs[chip].items())])
        mine = len(share(plan.model.vocab, plan.tp, rank))
        parts.append(rows[:, : vocab.width].reshape(-1)[:mine])
    return np.concatenate(parts)
