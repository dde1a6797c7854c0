"""Weights of a Hugging Face folder: safetensors, memory-mapped, in one file or many.

Only the tensors that are asked for are copied out of the mapping.
"""

import json
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  teaches NumPy the type bfloat16
import numpy as np
from safetensors import SafetensorError, safe_open

from cluster.errors import ModelError
from cluster.model.architecture import Architecture, by_model_type
from cluster.model.config_json import check_unquantised, json_settings, of_text, read_json
from cluster.model.graph.graph import Model
from cluster.model.graph.op import F32
from cluster.model.settings import Settings
from cluster.model.weights import mxfp4
from cluster.model.weights.files import FileWeights

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
_TYPES = ("F64", "F32", "F16", "BF16")


def read_config(path: Path, name: str) -> Model:
    """The graph that a `config.json` describes; raises ModelError for what is not known."""
    architecture, settings = _settings(path)
    return architecture.model(settings, name)


def open_folder(folder: Path, name: str) -> FileWeights:
    """The weights of a folder; raises ModelError for settings or tensors that do not fit."""
    path = folder / "config.json"
    architecture, settings = _settings(path)
    check_unquantised(str(path), read_json(path), architecture.quantised)
    model = architecture.model(settings, name)
    return FileWeights(model, Shards(folder), architecture.safetensors)


def _settings(path: Path) -> tuple[Architecture, Settings]:
    values, known = read_json(path), by_model_type()
    kind, text = str(values.get("model_type")), values.get("text_config")
    if kind not in known and isinstance(text, dict):  # a model of several, one of them for text
        values, kind = of_text(values, text), str(text.get("model_type"))
    if kind not in known:
        advice = f"known are {', '.join(sorted(known))}"
        raise ModelError(str(path), f"is of type '{kind}'", advice)
    return known[kind], json_settings(str(path), values, known[kind].harmless)


class Shards:
    """The tensors of a folder by name; raises ModelError on what is absent or damaged.

    Blocks of MXFP4 and their scales, [experts, out, ..], are one tensor [experts, in, out], as the
    same files have them without quantisation.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = {name: self._open(name) for name in self._names()}
        self._file_of = {
            key: name
            for name, file in self._files.items()
            for key in file.keys()  # noqa: SIM118  it is no mapping
        }

    def error(self, problem: str, advice: str = "the file is damaged or incomplete") -> ModelError:
        """Return the error to raise about this folder."""
        return ModelError(str(self.folder), problem, advice)

    def _names(self) -> list[str]:
        index = self.folder / INDEX
        if not index.is_file():
            return [SINGLE]
        try:
            found = sorted(
                set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            )
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise self.error(f"{INDEX} is no index of safetensors ({error})") from error
        if SINGLE not in found and (self.folder / SINGLE).exists():
            problem = f"has both {SINGLE} and {INDEX}, which does not name it"
            raise self.error(problem, "remove the one that does not count")
        return found

    def _open(self, name: str) -> Any:
        path = self.folder / name
        if path.parent != self.folder or not path.is_file():
            raise self.error(f"has no file {name}", "weights must be there as safetensors")
        try:
            return safe_open(path, "np")
        except (SafetensorError, OSError) as error:
            raise self.error(f"{name} cannot be read ({error})") from error

    def tensor_names(self) -> frozenset[str]:
        """Names of all tensors."""
        packed = {n.removesuffix(mxfp4.BLOCKS) for n in self._file_of if n.endswith(mxfp4.BLOCKS)}
        parts = {n + part for n in packed for part in (mxfp4.BLOCKS, mxfp4.SCALES)}
        return frozenset(self._file_of) - parts | packed

    def _packed(self, name: str) -> bool:
        """Whether a tensor is blocks of MXFP4."""
        return name + mxfp4.BLOCKS in self._file_of

    def check_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Raise ModelError unless tensor `name` is there with this shape, as floats."""
        if self._packed(name):
            experts, columns, rows = shape
            width = columns // mxfp4.WIDTH
            sizes = experts, rows, width
            self._check(name + mxfp4.BLOCKS, (*sizes, mxfp4.WIDTH // 2), (mxfp4.TYPE,))
            self._check(name + mxfp4.SCALES, sizes, (mxfp4.TYPE,))
        else:
            self._check(name, shape, _TYPES)

    def _check(self, name: str, shape: tuple[int, ...], types: tuple[str, ...]) -> None:
        if name not in self._file_of:
            raise self.error(f"has no tensor {name}")
        found = self._slice(name)
        if tuple(found.get_shape()) != shape:
            raise self.error(f"tensor {name} is {found.get_shape()}, expected {list(shape)}", "")
        if found.get_dtype() not in types:
            kinds = ", ".join(types)
            raise self.error(f"tensor {name} is of type {found.get_dtype()}", f"known: {kinds}")

    def _slice(self, name: str) -> Any:
        return self._files[self._file_of[name]].get_slice(name)

    def rows(self, name: str, rows: slice | list[int] = slice(None)) -> F32:
        """A float32 copy of some rows; raises ModelError for what is not finite."""
        array = self._unpacked(name)[rows] if self._packed(name) else self._plain(name, rows)
        if not np.isfinite(array).all():
            raise self.error(f"tensor {name} holds NaN or infinity")
        return array

    def _unpacked(self, name: str) -> F32:
        """All of an MXFP4 tensor, [experts, in, out]."""
        blocks, scales = (self._slice(name + part)[:] for part in (mxfp4.BLOCKS, mxfp4.SCALES))
        return mxfp4.dequantised(blocks, scales).swapaxes(1, 2)

    def _plain(self, name: str, rows: slice | list[int]) -> F32:
        tensor = self._slice(name)
        if isinstance(rows, list):
            some = [tensor[row : row + 1] for row in rows] or [tensor[0:0]]
            array: F32 = np.concatenate(some).astype(np.float32)
        else:
            first, last, _ = rows.indices(tensor.get_shape()[0])
            array = np.array(tensor[first : max(first, last)], np.float32, order="C")
        return array
