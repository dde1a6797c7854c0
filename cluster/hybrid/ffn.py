"""The FFN part of a model, as a model of its own that can be planned and scheduled."""

from dataclasses import replace
from math import prod

from cluster.compiler.segments import segments
from cluster.errors import BadValue
from cluster.model.graph.graph import Model, Section
from cluster.model.graph.latent_attention import ATTENTIONS
from cluster.model.graph.op import Op


def ffn_model(model: Model) -> Model:
    """The model with the FFN half of each layer alone; norms, gates and experts are among it.

    Its LM head stays: it has no cache. Raises BadValue where an FFN is not behind an attention.
    """
    halves = {layer: _half(model, layer) for layer in dict.fromkeys(model.layers)}
    return replace(model, layers=tuple(halves[layer] for layer in model.layers))


def _half(model: Model, layer: Section) -> Section:
    """What follows the residual connection behind the attention."""
    ops: list[Op] = []
    x = None
    for mine, last in segments(layer):
        if x is not None:
            ops += [*mine, last]
        elif any(isinstance(op, ATTENTIONS) for op in mine):
            x = last.out
    if x is None or not ops:
        raise BadValue("--afd", model.name, "has layers whose FFN is not behind an attention")
    return Section(x, tuple(ops), layer.sums).check()


def attention_parameters(model: Model) -> float:
    """Weights of a layer that are not of its FFN, on average."""
    ffn = ffn_model(model)
    mine, theirs = (sum(_weights(layer) for layer in one.layers) for one in (model, ffn))
    return (mine - theirs) / len(model.layers)


def _weights(section: Section) -> int:
    return sum(prod(weight.shape) for weight in section.weights)
