"""Encoders by name: sizes of well-known ones, and their weights where there are any."""

from collections.abc import Callable
from functools import cache

from cluster.errors import ModelError, UnknownName
from cluster.model.architectures.bert import ARCHITECTURE
from cluster.model.config_json import json_settings
from cluster.model.fetch import fetch_minilm
from cluster.model.graph.graph import Model
from cluster.model.graph.source import Weights
from cluster.model.weights.files import FileWeights
from cluster.model.weights.safetensors import Shards
from cluster.model.weights.synthetic import SyntheticWeights

TINY, MINILM = "tiny-encoder", "minilm-l6"
_SIZES = (
    "num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size",
    "max_position_embeddings",
)  # fmt: skip
# Source: the config.json published with each model, but for the last, which is made up.
_SHAPES = {
    MINILM: (6, 384, 12, 1536, 30522, 512),
    "bert-base": (12, 768, 12, 3072, 30522, 512),
    "bert-large": (24, 1024, 16, 4096, 30522, 512),
    TINY: (2, 64, 4, 96, 128, 64),
}
_EPS = 1e-12  # of all of them
ENCODERS = (*_SHAPES, "minilm")


def encoder_of(name: str, *sizes: int) -> Model:
    """An encoder of (layers, hidden, heads, ffn, vocabulary, tokens at most)."""
    values = dict(zip(_SIZES, sizes, strict=True)) | {"layer_norm_eps": _EPS}
    return ARCHITECTURE.model(json_settings(name, values), name)


@cache
def encoder(name: str) -> Model:
    """An encoder by name. Raises UnknownName."""
    full = {"minilm": MINILM}.get(name.lower(), name.lower())
    if full not in _SHAPES:
        raise UnknownName("encoder", name, ENCODERS)
    return encoder_of(full, *_SHAPES[full])


def encoder_weights(name: str, progress: Callable[[int, int], None]) -> Weights:
    """The weights of an encoder, fetched if need be, random ones of the tiny one.

    Raises UnknownName, FetchError or ModelError.
    """
    model = encoder(name)
    if model.name == TINY:
        return SyntheticWeights(model)
    if model.name != MINILM:
        raise ModelError(name, "is known as a shape only", "embed with minilm or tiny-encoder")
    folder = fetch_minilm(progress=progress).path.parent
    return FileWeights(model, Shards(folder), ARCHITECTURE.safetensors)
