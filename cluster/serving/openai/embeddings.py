"""POST /v1/embeddings: an encoder that is loaded when it is first asked for."""

import base64
import threading
import time
from typing import Any

import numpy as np

from cluster.encoders.embedding import EncoderOnChips, Options, Words, load_encoder
from cluster.encoders.encoding import LENGTHS
from cluster.errors import ClusterError
from cluster.model.graph.source import Weights
from cluster.model.known import known_names
from cluster.runs.display import Bars
from cluster.serving.openai.errors import ApiError
from cluster.serving.openai.schemas import EmbeddingBody


class Embedder:
    """An encoder by name, on chips from its first use on; one sequence at a time."""

    def __init__(self, model: str, machine: str = "local") -> None:
        self.name = known_names().get(model.lower(), model)
        self.names = names_of(model)
        self.context, self.created = max(LENGTHS), int(time.time())
        self._options = Options(model, (), machine=machine)
        self._lock = threading.RLock()
        self._parts: tuple[Weights, Words] | None = None
        self._encoder: EncoderOnChips | None = None

    def load(self, bars: Bars, tokens: int = 1) -> EncoderOnChips:
        """The encoder with programs for so many tokens; loaded, or loaded anew, if they are not.

        Raises what `lpu embed` reports.
        """
        with self._lock:
            weights, words = self._files(bars)
            if self._encoder is None or tokens > self._encoder.lowered.plan.chunk:
                self.close()
                self._encoder = EncoderOnChips.load(self._options, weights, words, tokens, bars)
            return self._encoder

    def _files(self, bars: Bars) -> tuple[Weights, Words]:
        self._parts = self._parts or load_encoder(self._options.model, bars)
        return self._parts

    def embed(self, text: str | list[int]) -> tuple[list[int], list[float], float]:
        """The ids, the embedding and the emulated seconds of a text; raises ClusterError."""
        with self._lock:
            weights, words = self._files(Bars())
            ids = words.ids(text) if isinstance(text, str) else text
            most = min(self.context, weights.model.context_max)
            if not 0 < len(ids) <= most:
                raise ClusterError(f"a text of {len(ids)} tokens; it must be 1 to {most}")
            if any(one >= weights.model.vocab for one in ids):
                raise ClusterError(f"there is a token that is not 0 to {weights.model.vocab - 1}")
            encoder = self.load(Bars(), len(ids))
            vector, cycles, _ = encoder.embed(ids)
        return ids, [float(one) for one in vector], cycles / encoder.lowered.plan.spec.clock_hz

    def close(self) -> None:
        """Release the machine."""
        if self._encoder is not None:
            self._encoder.machine.close()


def names_of(model: str) -> frozenset[str]:
    """All names, in small letters, of the model that a user calls so."""
    name = known_names().get(model.lower(), model)
    same = [alias for alias, its in known_names().items() if its == name]
    return frozenset({model.lower(), name.lower(), *(alias.lower() for alias in same)})


def embeddings(embedder: Embedder, body: EmbeddingBody) -> dict[str, Any]:
    """The response to a request; raises ApiError."""
    if not body.inputs:
        raise ApiError(422, "input: is empty", "input", "invalid_value")
    data, tokens, seconds = [], 0, 0.0
    try:
        for index, text in enumerate(body.inputs):
            ids, vector, taken_s = embedder.embed(text)
            if body.dimensions not in (None, len(vector)):
                said = f"the embeddings have {len(vector)} dimensions, no other number"
                raise ApiError(400, said, "dimensions", "invalid_value")
            tokens, seconds = tokens + len(ids), seconds + taken_s
            shown = _packed(vector) if body.encoding_format == "base64" else vector
            data.append({"object": "embedding", "index": index, "embedding": shown})
    except ClusterError as error:
        raise ApiError(400, str(error), "input", "invalid_value") from None
    used = {"prompt_tokens": tokens, "total_tokens": tokens, "total_time": seconds}
    return {
        "object": "list",
        "data": data,
        "model": body.model,
        "usage": used | {"emulated": True},
    }


def _packed(vector: list[float]) -> str:
    return base64.b64encode(np.array(vector, "<f4").tobytes()).decode()
