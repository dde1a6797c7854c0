"""Well-known models by name: facts of the `config.json` that their makers publish, as data.

Each file here says its source, other names of the model, and the keys that matter; or, for models
that people ask for and no graph describes, why it is `refused`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from cluster.errors import ModelError, UnknownName
from cluster.model.architecture import by_model_type
from cluster.model.config_json import json_settings
from cluster.model.graph.graph import Model


@dataclass(frozen=True)
class Known:
    """A model by name, where its facts are from, and those facts as a config has them."""

    name: str
    source: str
    aliases: tuple[str, ...]
    config: dict[str, Any]


@cache
def _entries() -> Mapping[str, dict[str, Any]]:
    """What each file says, by the name of its model."""
    found = {}
    for path in sorted(files(__name__).iterdir(), key=lambda path: path.name):
        name, dot, suffix = path.name.rpartition(".")
        if dot and suffix == "json":
            found[name] = json.loads(path.read_text(encoding="utf-8"))
    return MappingProxyType(found)


@cache
def known_models() -> Mapping[str, Known]:
    """Every known model, by name."""
    found = {
        name: Known(name, entry["source"], tuple(entry.get("aliases", ())), entry["config"])
        for name, entry in _entries().items()
        if "config" in entry
    }
    return MappingProxyType(found)


@cache
def refused_models() -> Mapping[str, str]:
    """Why a model that people ask for by name has no graph, by its name."""
    found = {n: entry["refused"] for n, entry in _entries().items() if "refused" in entry}
    return MappingProxyType(found)


@cache
def known_names() -> Mapping[str, str]:
    """The name of a model by each name that it goes by."""
    names = {name: name for name in known_models()}
    for known in known_models().values():
        names |= dict.fromkeys(known.aliases, known.name)
    return MappingProxyType(names)


def known_model(name: str) -> Model:
    """The graph of a model by name; case does not matter. Raises UnknownName, or ModelError
    with the reason for a model that is refused.

    >>> known_model("smollm2").parameters
    134515008
    """
    return _model(_known(name).name)


def changed_model(name: str, **keys: Any) -> Model:
    """The graph of a known model with some keys of its config changed. Raises as `known_model`.

    >>> len(changed_model("tiny", num_hidden_layers=5).layers)
    5
    """
    known = _known(name)
    return _written(known.name, known.config | keys)


def _known(name: str) -> Known:
    names = known_names()
    if name.lower() in refused_models():
        advice = "`lpu models` lists what can be planned"
        raise ModelError(name, refused_models()[name.lower()], advice)
    if name.lower() not in names:
        raise UnknownName("model", name, tuple(names))
    return known_models()[names[name.lower()]]


@cache
def _model(name: str) -> Model:
    return _written(name, known_models()[name].config)


def _written(name: str, config: dict[str, Any]) -> Model:
    architecture = by_model_type()[config["model_type"]]
    return architecture.model(json_settings(name, config, architecture.harmless), name)
