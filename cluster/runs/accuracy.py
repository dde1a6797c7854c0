"""`lpu run --accuracy`: how far the logits of a run are from float32, which the host computes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cluster.model.graph.source import Weights
from cluster.model.reference import Reference
from cluster.serving.engine import Logits, Pick


@dataclass
class Accuracy:
    """The logits of one answer beside those of float32 with the weights as their file has them.

    Tokens are chosen by those of the chips, so that both speak of the same text.
    """

    reference: Reference
    _next: list[int]  # tokens that float32 has not seen yet
    _largest: list[float] = field(default_factory=list)
    _squares: list[float] = field(default_factory=list)  # means over the vocabulary
    _same: int = 0

    @classmethod
    def of(cls, weights: Weights, context: int, prompt: Sequence[int]) -> "Accuracy":
        """Begin with a prompt; caches of the reference hold `context` tokens."""
        return cls(Reference(weights, context), list(prompt))

    def beside(self, pick: Pick) -> Pick:
        """The same choice of tokens, with each row of logits compared."""

        def compared(logits: Logits, step: int) -> int:
            wanted = self.reference.forward(self._next)
            off = np.abs(logits - wanted)
            self._largest.append(float(off.max()))
            self._squares.append(float(np.square(off).mean()))
            self._same += int(np.argmax(logits) == np.argmax(wanted))
            self._next = [pick(logits, step)]
            return self._next[0]

        return compared

    def report(self) -> dict[str, Any]:
        """What `lpu run --json` says of it: distances of logits, and equal first choices."""
        return {
            "logit_distance_max": max(self._largest),
            "logit_distance_rms": float(np.sqrt(np.mean(self._squares))),
            "tokens": len(self._largest),
            "tokens_as_float32": self._same,
        }


def accuracy_line(found: Mapping[str, Any]) -> str:
    """The same in a line."""
    return (
        f"logits at most {found['logit_distance_max']:.3g} from float32, "
        f"{found['logit_distance_rms']:.2g} on average (rms); "
        f"{found['tokens_as_float32']} of {found['tokens']} tokens are its first choice, too"
    )
