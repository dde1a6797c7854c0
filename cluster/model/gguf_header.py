"""The header of a GGUF file as settings, under the keys of a `config.json`.

Keys are those of the public GGUF specification and of llama.cpp's constants.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from cluster.model.decoder import FREQUENCY_FACTORS
from cluster.model.gguf_file import GgufFile
from cluster.model.gguf_latent import KEYS, KIND, latent_settings
from cluster.model.settings import Lists, Settings

# What follows the architecture's name and a dot.
_KEYS = {
    "vocab_size": "vocab_size",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.layer_norm_epsilon": "layer_norm_eps",
    "attention.sliding_window": "sliding_window",
    "rope.freq_base": "rope_theta",
    "expert_count": "num_local_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
}
_SCALING = {
    "type": "rope_type",
    "factor": "factor",
    "original_context_length": "original_max_position_embeddings",
    "yarn_beta_fast": "beta_fast",
    "yarn_beta_slow": "beta_slow",
}
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "logit_scale": (1.0,),
    "num_local_experts": (0,),
    "num_experts_per_tok": (0,),
    "rope.scaling.attn_factor": (1.0,),
    "rope.scaling.yarn_attn_factor": (1.0,),
    "rope.scaling.yarn_ext_factor": (1.0,),
    "rope.scaling.yarn_log_multiplier": (0.0,),
    "rope.scaling.alpha": (0.0,),
    "use_parallel_residual": (False,),
}
HARMLESS = frozenset(("rope.scaling.finetuned", "tensor_data_layout"))
_SAME = ("attention.value_length", "rope.dimension_count")  # as keys: nothing else can be
_LINEAR = "rope.scale_linear"  # the spelling before `rope.scaling.type`
USED = {*_KEYS, *_SAME, _LINEAR, *(f"rope.scaling.{key}" for key in _SCALING)}
_NONE: Mapping[str, Any] = MappingProxyType({})
_OTHER = "use another model"
_OTHERS = ("GGUF.", "tokenizer.")  # keys of the reader and of the tokenizer


def header_settings(
    file: GgufFile, extra: frozenset[str] = frozenset(), implied: Mapping[str, Any] = _NONE
) -> Settings:
    """The settings of an open file; raises ModelError where it is no model.

    What its architecture has `implied` holds where the header says nothing.
    """
    keys = (key for key in file.metadata_keys() if not key.startswith(_OTHERS))
    header = {key: file.raw(key) for key in keys}
    _check_kind(file, header)
    prefix, latent = f"{header['general.architecture']}.", header["general.architecture"] == KIND
    keys_of = _KEYS | KEYS if latent else _KEYS
    values: dict[str, Any] = {"tie_word_embeddings": "output.weight" not in file.tensor_names()}
    spelled: dict[str, str] = {}
    scaling: dict[str, Any] = {}
    for key, value in header.items():
        if key.startswith(("general.", "split.", "quantize.", "imatrix.")):
            continue
        short = key.removeprefix(prefix)
        known = keys_of.get(short, short)
        spelled[known] = key
        if known in _SAME:
            continue
        inner = _SCALING.get(short.removeprefix("rope.scaling."))
        if short == _LINEAR:
            scaling |= {"rope_type": "linear", "factor": value} if value != 1 else {}
        elif short.startswith("rope.scaling.") and inner:
            scaling[inner] = value
            spelled[inner] = key
        else:
            values[known] = value
    values = dict(implied) | values
    values.setdefault("vocab_size", file.count("tokenizer.ggml.tokens"))
    if latent:
        values, magnitudes = latent_settings(file, values)
        scaling |= magnitudes
    else:
        _check_heads(file, values, header, prefix)
    if (experts := header.get(f"{prefix}expert_count")) and "num_experts_per_tok" not in values:
        missing = f"but '{prefix}expert_used_count' is missing"
        raise file.error(f"'{prefix}expert_count' is {experts}, {missing}", _OTHER)
    values["rope_parameters"] = _scaling(file, scaling)
    return Settings(str(file.path), values, Lists(HARMLESS | extra, NEUTRAL), spelled)


def _check_kind(file: GgufFile, header: dict[str, Any]) -> None:
    if not isinstance(header.get("general.architecture"), str):
        raise file.error("has no 'general.architecture'")
    kind = header.get("general.type", "model")
    if kind != "model":
        raise file.error(f"is of type '{kind}', not a model", _OTHER)


def _check_heads(
    file: GgufFile, values: dict[str, Any], header: dict[str, Any], prefix: str
) -> None:
    """Keys and values are of one length here, and all of it rotates."""
    heads, hidden = (values.get(k) for k in ("num_attention_heads", "hidden_size"))
    if not isinstance(heads, int) or not isinstance(hidden, int) or heads < 1:
        return  # reading them says so
    width = values.get("head_dim", hidden // heads)
    if header.get(f"{prefix}attention.value_length", width) != width:
        raise file.error("has values of another length than keys", _OTHER)
    if header.get(f"{prefix}rope.dimension_count", width) != width:
        raise file.error(f"rotates only part of its {width}-wide heads", _OTHER)


def _scaling(file: GgufFile, scaling: dict[str, Any]) -> dict[str, Any]:
    kind = scaling.get("rope_type")
    if kind == "none":
        return {}
    if kind is None and scaling.get("factor", 1.0) not in (0.0, 1.0):
        scaling = scaling | {"rope_type": "linear"}  # as llama.cpp reads it
    if kind is None and "rope_type" not in scaling:
        scaling = {}
    if FREQUENCY_FACTORS in file.tensor_names():
        if scaling:
            raise file.error(f"has both {FREQUENCY_FACTORS} and 'rope.scaling'", _OTHER)
        return {"rope_type": "factors", "factors": file.rows(FREQUENCY_FACTORS).tolist()}
    return scaling
