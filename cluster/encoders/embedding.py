"""One run of an encoder: load, embed every sentence, compare with the reference, report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tokenizers import Tokenizer

from chip.own_spec import find
from cluster.compiler.choose import default_topology
from cluster.encoders.encoding import LENGTHS, Encoding, embed, lower_encoder, plan_encoder
from cluster.errors import BadValue, ModelError
from cluster.machines.clocked import Clocked
from cluster.machines.launch_log import LaunchLog
from cluster.machines.machine import Digest, LocalMachine, Machine
from cluster.model import bert_reference
from cluster.model.bert import EncoderWeights, RandomEncoder, SafetensorsEncoder, encoder_spec
from cluster.model.fetch import fetch_minilm
from cluster.runs.display import Bars
from topology import parse

SIMILAR = 0.999  # cosine to the float32 reference below which --check fails


@dataclass(frozen=True)
class Options:
    """The command line of an embedding."""

    model: str
    texts: Sequence[str]
    tokens: int | None = None
    chips: int | None = None
    topology: str | None = None
    spec: str = "groqchip1"
    machine: str = "local"
    check: bool = False


class Words(Protocol):
    """Text to ids."""

    def ids(self, text: str) -> list[int]:
        """Return the ids of a sentence with its special tokens."""


class WordPiece:
    """The tokeniser of a checkpoint, from its tokenizer.json."""

    def __init__(self, path: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def ids(self, text: str) -> list[int]:
        """Return the ids of a sentence between [CLS] and [SEP]."""
        return list(self._tokenizer.encode(text).ids)


class Characters:
    """Token n is ASCII character n: for encoders with random weights."""

    def ids(self, text: str) -> list[int]:
        """Return the codes; what is not ASCII becomes `?`."""
        return list(text.encode("ascii", "replace"))


def load_encoder(name: str, bars: Bars) -> tuple[EncoderWeights, Words]:
    """Return weights and tokeniser; raises UnknownName, FetchError or ModelError."""
    spec = encoder_spec(name)
    if spec.name == "tiny-encoder":
        return RandomEncoder(spec), Characters()
    if spec.name != "minilm-l6":
        raise ModelError(name, "is known as a shape only", "embed with minilm or tiny-encoder")
    path = fetch_minilm(progress=lambda done, total: bars.step("fetch", done, total)).path
    return SafetensorsEncoder(path, spec), WordPiece(path.with_name("tokenizer.json"))


def embed_sentences(options: Options, bars: Bars) -> dict[str, Any]:
    """Embed all texts; the report that `lpu embed` prints."""
    weights, words = load_encoder(options.model, bars)
    ids = [words.ids(text) for text in options.texts]
    for text, mine in zip(options.texts, ids, strict=True):
        if not 0 < len(mine) <= min(max(LENGTHS), weights.spec.tokens_max):
            raise BadValue("--text", f"{text[:30]!r}", f"has {len(mine)} tokens, at most 256 fit")
    tokens = options.tokens or max(map(len, ids))
    plan = plan_encoder(weights.spec, find(options.spec), options.chips, tokens)
    topology = options.topology or default_topology(len(plan.layers))
    graph = parse(topology)
    if graph.number_of_nodes() < len(plan.layers):
        raise BadValue("--topology", topology, f"has too few chips for {len(plan.layers)} stages")
    bars.step("lower", 0, 0)
    encoding = lower_encoder(plan, sorted(graph.nodes)[: len(plan.layers)], graph, weights)
    machine = LaunchLog(Clocked(_machine(options)))
    try:
        machine.load(encoding, bars.step)
        digest, vectors, cycles = Digest(encoding), [], []
        for mine in ids:
            vector, taken, result = embed(encoding, machine, mine)
            digest.add(result)
            vectors.append(vector)
            cycles.append(taken)
    finally:
        machine.close()
    report = _report(encoding, topology, options.texts, ids)
    report |= {
        "embeddings": [vector.tolist() for vector in vectors],
        "emulated": {"clock_hz": plan.spec.clock_hz, "cycles": cycles},
        "digest": digest.hexdigest(),
    }
    return report | (_checked(weights, ids, vectors) if options.check else {})


def _machine(options: Options) -> Machine:
    if options.machine == "local":
        return LocalMachine()
    from cluster.machines.ray.ray_machine import RayMachine

    return RayMachine(1, None)


def _checked(weights: EncoderWeights, ids: list[list[int]], vectors: list[Any]) -> dict[str, Any]:
    """Cosines to the float32 reference, and whether all are close enough."""
    references = [bert_reference.embed(weights, mine) for mine in ids]
    cosines = [
        float(np.dot(mine, other) / np.linalg.norm(mine) / np.linalg.norm(other))
        for mine, other in zip(vectors, references, strict=True)
    ]
    return {"reference": cosines, "ok": min(cosines) > SIMILAR}


def _report(
    encoding: Encoding, topology: str, texts: Sequence[str], ids: list[list[int]]
) -> dict[str, Any]:
    plan = encoding.plan
    return {
        "model": plan.model.name,
        "texts": list(texts),
        "tokens": [len(mine) for mine in ids],
        "plan": {
            "chips": len(plan.layers),
            "layers": list(plan.layers),
            "topology": topology,
            "spec": plan.spec.name,
            "sram_bytes_max": max(map(encoding.sram_bytes, range(len(encoding.stages)))),
        },
    }
