"""What an architecture is: a reader of settings that writes a graph, and names of tensors.

Every module of `cluster.model.architectures` holds one as `ARCHITECTURE`; being there is being
registered.
"""

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from typing import Any

from cluster.model import architectures
from cluster.model.config_json import in_8_bits
from cluster.model.graph.graph import Model, Place
from cluster.model.graph.op import GraphError
from cluster.model.settings import Settings


@dataclass(frozen=True)
class Stacked:
    """A tensor of all experts, [experts, out, in], or [experts, in, out] if it is `turned`."""

    tensor: str  # below the layer
    turned: bool = False


@dataclass(frozen=True)
class Tensors:
    """How one format of files names and stores the weights of an architecture.

    `inside` names the modules of a layer, below `layer` with its number filled in; `outside` those
    of all other sections. Weight `wq.bias` is part `bias` of module `wq`, others are `weight`; one
    that is `inside` by its whole name has the tensor said there. A module name with {} in it is one
    for each expert, by its number; `stacked` weights are those of all experts (or heads) in one
    tensor.
    """

    layer: str
    inside: Mapping[str, str]
    outside: Mapping[str, str]
    adjacent_pairs: bool = False  # of rotary rows; else i pairs with i + head_dim / 2
    norm_offset: float = 0.0  # norms are stored less this
    ignored: tuple[str, ...] = ()  # endings of tensors that say nothing about the result
    fused: tuple[tuple[str, ...], ...] = ()  # one below the other in a tensor; stacked, by turns
    stacked: Mapping[str, Stacked] = field(default_factory=dict)
    bare: frozenset[str] = frozenset()  # weights whose tensor has the name of the module
    by_head: frozenset[str] = frozenset()  # fused ones that are so within each head
    transposed: frozenset[str] = frozenset()  # of these, with [in, out] of each head

    def tensor(self, place: Place, name: str) -> str:
        """The tensor of weight `name` of a layer or another section."""
        if name in self.stacked:
            return f"{self.layer.format(place)}{self.stacked[name].tensor}"
        module, _, part = name.partition(".")
        if isinstance(place, int) and part and name in self.inside:
            return f"{self.layer.format(place)}{self.inside[name]}"
        if isinstance(place, int):
            module = self.layer.format(place) + self.inside[module]
        else:
            module = self.outside[module]
        return module if name in self.bare else f"{module}.{part or 'weight'}"

    def together(self, name: str) -> tuple[str, ...]:
        """Every weight in the tensor of one, in order."""
        return next((group for group in self.fused if name in group), (name,))


@dataclass(frozen=True)
class Architecture:
    """A family of models, known to `config.json` and to GGUF headers by these names."""

    name: str
    write: Callable[[Settings, str], Model]  # from settings, and the model's name
    model_types: tuple[str, ...]
    safetensors: Tensors
    gguf: Mapping[str, Tensors]  # by general.architecture
    harmless: frozenset[str] = frozenset()  # keys of its config that need no reading
    mixture: bool = False  # where its GGUF name is also that of models without experts
    implied: Mapping[str, Any] = field(default_factory=dict)  # settings that no GGUF header says
    quantised: frozenset[str] = frozenset()  # methods of quantising that its files are read from

    def model(self, settings: Settings, name: str) -> Model:
        """The model of some settings, all of them accounted for; raises ModelError."""
        try:
            model = self.write(settings, name).check()
        except GraphError as error:
            raise settings.error(f"describes no model: {error}") from error
        settings.close()
        return replace(model, in_8_bits=True) if in_8_bits(settings) else model


@cache
def registry() -> dict[str, Architecture]:
    """Every architecture there is, by name."""
    modules = sorted(module.name for module in pkgutil.iter_modules(architectures.__path__))
    found = (import_module(f"{architectures.__name__}.{name}").ARCHITECTURE for name in modules)
    return {architecture.name: architecture for architecture in found}


def by_model_type() -> dict[str, Architecture]:
    """Architectures by the model_type of their config files."""
    return {kind: found for found in registry().values() for kind in found.model_types}


def by_gguf_name(mixture: bool = False) -> dict[str, Architecture]:
    """Architectures by the general.architecture of GGUF headers, of models with experts or not."""
    ours = sorted(registry().values(), key=lambda found: found.mixture == mixture)
    return {kind: found for found in ours for kind in found.gguf}
