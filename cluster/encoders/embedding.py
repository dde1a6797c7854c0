"""One run of an encoder: load, embed every sentence, compare with the reference, report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tokenizers import Tokenizer

from chip.own_spec import find
from cluster.compiler.choose import default_topology
from cluster.compiler.limits import STATIC
from cluster.compiler.lower import Lowered
from cluster.encoders.calibration import calibrated, calibration_sentences
from cluster.encoders.encoding import LENGTHS, embed, lower_encoder, plan_encoder
from cluster.errors import BadValue
from cluster.machines.clocked import Clocked
from cluster.machines.launch_log import LaunchLog
from cluster.machines.machine import Digest, LocalMachine, Machine, Result
from cluster.model.encoders import TINY, encoder_weights
from cluster.model.fetch import fetch_minilm
from cluster.model.graph.op import F32
from cluster.model.graph.source import Weights
from cluster.model.reference import Reference
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
    weights: str = "fp16"
    machine: str = "local"
    check: bool = False
    calibration: Path | None = None


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


def load_encoder(name: str, bars: Bars) -> tuple[Weights, Words]:
    """Return weights and tokeniser; raises UnknownName, FetchError or ModelError."""
    weights = encoder_weights(name, lambda done, total: bars.step("fetch", done, total))
    if weights.model.name == TINY:
        return weights, Characters()
    return weights, WordPiece(fetch_minilm().path.with_name("tokenizer.json"))


@dataclass(frozen=True)
class EncoderOnChips:
    """An encoder whose programs and weights are on the chips of a machine."""

    weights: Weights
    words: Words
    lowered: Lowered
    topology: str
    machine: Machine

    @classmethod
    def load(
        cls, options: Options, weights: Weights, words: Words, tokens: int, bars: Bars
    ) -> "EncoderOnChips":
        """Plan, lower and load it for sequences of up to `tokens`; raises BadValue, DoesNotFit."""
        spec = find(options.spec)
        plan = plan_encoder(weights.model, spec, options.chips, tokens, options.weights)
        topology = options.topology or default_topology(plan.pp)
        graph = parse(topology)
        if graph.number_of_nodes() < plan.pp:
            raise BadValue("--topology", topology, f"has too few chips for {plan.pp} stages")
        bars.step("lower", 0, 0)
        lowered = lower_encoder(plan, sorted(graph.nodes)[: plan.pp], graph, weights)
        machine = LaunchLog(Clocked(_machine(options)))
        try:
            machine.load(lowered, bars.step)
        except BaseException:
            machine.close()
            raise
        return cls(weights, words, lowered, topology, machine)

    def embed(self, ids: Sequence[int]) -> tuple[F32, int, Result]:
        """(embedding [hidden], executed cycles, the launch's result) of one sequence."""
        return embed(self.lowered, self.machine, ids)


def embed_sentences(options: Options, bars: Bars) -> dict[str, Any]:
    """Embed all texts; the report that `lpu embed` prints."""
    if options.calibration is not None and options.weights != STATIC:
        raise BadValue("--calibration", options.calibration, f"is for --weights {STATIC}")
    sentences = calibration_sentences(options.calibration)
    weights, words = load_encoder(options.model, bars)
    most = min(max(LENGTHS), weights.model.context_max)
    ids = [words.ids(text) for text in options.texts]
    for text, mine in zip(options.texts, ids, strict=True):
        if not 0 < len(mine) <= most:
            raise BadValue(
                "--text", f"{text[:30]!r}", f"has {len(mine)} tokens, at most {most} fit"
            )
    if options.weights == STATIC:
        bars.step("calibrate", 0, 0)
        weights = calibrated(weights, [words.ids(text)[:most] for text in sentences])
    tokens = options.tokens or max(map(len, ids))
    encoder = EncoderOnChips.load(options, weights, words, tokens, bars)
    lowered = encoder.lowered
    try:
        digest, vectors, cycles = Digest(lowered), [], []
        for mine in ids:
            vector, taken, result = encoder.embed(mine)
            digest.add(result)
            vectors.append(vector)
            cycles.append(taken)
    finally:
        encoder.machine.close()
    report = _report(lowered, encoder.topology, options.texts, ids)
    report |= {
        "embeddings": [vector.tolist() for vector in vectors],
        "emulated": {"clock_hz": lowered.plan.spec.clock_hz, "cycles": cycles},
        "digest": digest.hexdigest(),
    }
    return report | (_checked(weights, ids, vectors) if options.check else {})


def _machine(options: Options) -> Machine:
    if options.machine == "local":
        return LocalMachine()
    from cluster.machines.ray.ray_machine import RayMachine

    return RayMachine(1, None)


def _checked(weights: Weights, ids: list[list[int]], vectors: list[Any]) -> dict[str, Any]:
    """Cosines to the float32 reference, and whether all are close enough."""
    reference = Reference(weights, weights.model.context_max)
    references = []
    for mine in ids:
        reference.reset()
        references.append(reference.forward(mine))
    cosines = [
        float(np.dot(mine, other) / np.linalg.norm(mine) / np.linalg.norm(other))
        for mine, other in zip(vectors, references, strict=True)
    ]
    return {"reference": cosines, "ok": min(cosines) > SIMILAR}


def _report(
    lowered: Lowered, topology: str, texts: Sequence[str], ids: list[list[int]]
) -> dict[str, Any]:
    plan = lowered.plan
    return {
        "model": plan.model.name,
        "texts": list(texts),
        "tokens": [len(mine) for mine in ids],
        "plan": {
            "chips": plan.pp,
            "layers": [stage.layers for stage in plan.stages],
            "topology": topology,
            "spec": plan.spec.name,
            "weights": plan.weights,
            "sram_bytes_max": max(map(lowered.sram_bytes, range(len(lowered.stages)))),
        },
    }
