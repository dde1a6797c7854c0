"""Weights of a Hugging Face folder: safetensors, memory-mapped, in one file or many.

Only the tensors of the layer that is asked for are copied out of the mapping.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  teaches NumPy the type bfloat16
import numpy as np
from safetensors import SafetensorError, safe_open

from cluster.errors import ModelError
from cluster.model.gguf_weights import check_ids
from cluster.model.spec import F32, LayerWeights, ModelSpec, permute_rotary

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
_LAYER_TENSORS = {
    "attn_norm": "input_layernorm.weight",
    "wq": "self_attn.q_proj.weight",
    "wk": "self_attn.k_proj.weight",
    "wv": "self_attn.v_proj.weight",
    "wo": "self_attn.o_proj.weight",
    "ffn_norm": "post_attention_layernorm.weight",
    "w_gate": "mlp.gate_proj.weight",
    "w_up": "mlp.up_proj.weight",
    "w_down": "mlp.down_proj.weight",
    "q_bias": "self_attn.q_proj.bias",
    "k_bias": "self_attn.k_proj.bias",
    "v_bias": "self_attn.v_proj.bias",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
}
_EMBEDDING, _HEAD, _NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
_COMPUTED = "rotary_emb.inv_freq"  # old files carry this table, which follows from the config
_TYPES = ("F64", "F32", "F16", "BF16")


class Shards:
    """The tensors of a folder by name; raises ModelError on what is absent or damaged."""

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
            return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise self.error(f"{INDEX} is no index of safetensors ({error})") from error

    def _open(self, name: str) -> Any:
        path = self.folder / name
        if path.parent != self.folder or not path.is_file():
            raise self.error(f"has no file {name}", "weights must be there as safetensors")
        try:
            return safe_open(path, "np")
        except (SafetensorError, OSError) as error:
            raise self.error(f"{name} cannot be read ({error})") from error

    def names(self) -> frozenset[str]:
        """All tensors, without tables that follow from the config."""
        return frozenset(name for name in self._file_of if not name.endswith(_COMPUTED))

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        """Raise ModelError unless tensor `name` is there with this shape, as floats."""
        if name not in self._file_of:
            raise self.error(f"has no tensor {name}")
        found = self._slice(name)
        if tuple(found.get_shape()) != shape:
            raise self.error(f"tensor {name} is {found.get_shape()}, expected {list(shape)}", "")
        if found.get_dtype() not in _TYPES:
            kinds = ", ".join(_TYPES)
            raise self.error(f"tensor {name} is of type {found.get_dtype()}", f"known: {kinds}")

    def _slice(self, name: str) -> Any:
        return self._files[self._file_of[name]].get_slice(name)

    def rows(self, name: str, rows: slice = slice(None)) -> F32:
        """A float32 copy of some rows; raises ModelError for what is not finite."""
        array: F32 = np.ascontiguousarray(self._slice(name)[rows], np.float32)
        if not np.isfinite(array).all():
            raise self.error(f"tensor {name} holds NaN or infinity")
        return array


class HfWeights:
    """The `Weights` of a folder of safetensors; raises ModelError at once for what is wrong."""

    def __init__(self, spec: ModelSpec, folder: Path, kind: str) -> None:
        self.spec, self._shards = spec, Shards(folder)
        self._is_gemma = kind == "gemma"
        expected = {_EMBEDDING: (spec.vocab, spec.hidden), _NORM: (spec.hidden,)}
        if not spec.tied_head:
            expected[_HEAD] = (spec.vocab, spec.hidden)
        for layer in range(spec.layers):
            for field, shape in spec.layer_shapes().items():
                expected[self._name(layer, field)] = shape
        for name, wanted in expected.items():
            self._shards.check(name, wanted)
        unknown = sorted(self._shards.names() - set(expected) - {_HEAD})
        if unknown:
            raise self._shards.error(f"tensor {unknown[0]} is not part of a {kind} model", "")

    @staticmethod
    def _name(layer: int, field: str) -> str:
        return f"model.layers.{layer}.{_LAYER_TENSORS[field]}"

    @property
    def final_norm(self) -> F32:
        """Return the last norm's weights [hidden]."""
        return self._norm(self._shards.rows(_NORM))

    def layer(self, index: int) -> LayerWeights:
        """Return layer `index`, rows of Q and K with rotary partners side by side."""
        spec = self.spec
        if not 0 <= index < spec.layers:
            raise ModelError(spec.name, f"has no layer {index}, only {spec.layers}")
        arrays = {n: self._shards.rows(self._name(index, n)) for n in spec.layer_shapes()}
        heads = {"q": spec.heads, "k": spec.kv_heads}
        for letter, count in heads.items():
            for field, its_heads in ((f"w{letter}", count), (f"{letter}_bias", count),
                                     (f"{letter}_norm", 1)):  # fmt: skip
                if field in arrays:
                    turned = permute_rotary(arrays[field], its_heads)
                    arrays[field] = np.ascontiguousarray(turned, np.float32)
        for field in ("attn_norm", "ffn_norm"):
            arrays[field] = self._norm(arrays[field])
        return LayerWeights(**arrays).check(spec)

    def _norm(self, weights: F32) -> F32:
        """Gemma stores norm weights less one."""
        return weights + np.float32(1) if self._is_gemma else weights

    def embedding_rows(self, ids: Sequence[int]) -> F32:
        """Return the embeddings [len(ids), hidden]; Gemma's are scaled by sqrt(hidden)."""
        check_ids(self.spec, ids)
        found = [self._shards.rows(_EMBEDDING, slice(token, token + 1)) for token in ids]
        rows: F32 = np.concatenate(found or [np.zeros((0, self.spec.hidden), np.float32)])
        return rows * np.float32(self.spec.hidden**0.5) if self._is_gemma else rows

    def head_rows(self, low: int, high: int) -> F32:
        """Return rows low..high-1 of the output head [high - low, hidden]."""
        return self._shards.rows(_EMBEDDING if self.spec.tied_head else _HEAD, slice(low, high))
