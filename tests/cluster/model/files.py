"""Writes the same model as a Hugging Face folder and as a GGUF file, with the gguf package."""

import json
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file, save_file

from cluster.model.architecture import Tensors, registry
from cluster.model.graph.graph import Model
from cluster.model.weights.files import adjacent_order, norm_weights, placed_weights
from cluster.model.weights.synthetic import SyntheticWeights

CONFIG = {
    "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 48, "num_attention_heads": 6,
    "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 70, "vocab_size": 33,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 640,
    "tie_word_embeddings": False,
}  # fmt: skip
# Names of llama.cpp's converter for those of the checkpoints.
GGUF_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "model.layers": "blk", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip
SECOND_NORM = {"llama": {"post_attention_layernorm": "ffn_norm"}}
SECOND_NORM |= dict.fromkeys(("qwen2", "qwen3", "gemma"), SECOND_NORM["llama"])
SECOND_NORM["olmo2"] = {
    "post_attention_layernorm": "post_attention_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def model_of(**changes: object) -> Model:
    """The graph of CONFIG with changes."""
    from cluster.model.config_json import json_settings

    values = CONFIG | changes
    found = {kind: a for a in registry().values() for kind in a.model_types}
    architecture = found[values["model_type"]]
    settings = json_settings("config", values, architecture.harmless)
    return architecture.model(settings, "it")


def stored(model: Model, tensors: Tensors, dtype=np.float32) -> dict[str, np.ndarray]:
    """Random weights as a file of some format has them."""
    weights, norms = SyntheticWeights(model, seed=5), norm_weights(model)
    found = {}
    for place, weight in placed_weights(model):
        array = weights.array(place, weight)
        if weight.rotary and not tensors.adjacent_pairs:
            halves = np.empty_like(array)
            halves[adjacent_order(weight)] = array
            array = halves
        if weight in norms:
            array = array - np.float32(tensors.norm_offset)
        found[tensors.tensor(place, weight.name)] = array.astype(dtype)
    return found


def write_folder(folder: Path, config: dict, shards: int = 1, dtype=np.float32) -> Path:
    """A folder with config.json and random weights in one file or several."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    model = model_of(**config)
    arrays = stored(model, registry()[model.architecture].safetensors, dtype)
    if shards == 1:
        save_file(arrays, folder / "model.safetensors")
        return folder
    index: dict[str, str] = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = sorted(arrays)[number::shards]
        save_file({name: arrays[name] for name in part}, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def convert(folder: Path, path: Path, **metadata: object) -> Path:
    """A GGUF file of a folder, as llama.cpp's converter writes it."""
    config = json.loads((folder / "config.json").read_text())
    kind = config["model_type"]
    writer = gguf.GGUFWriter(path, kind)
    width = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
    rope = config.get("rope_parameters") or {}
    fields = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": width,
        "attention.value_length": width,
        "rope.dimension_count": width,
        "vocab_size": config["vocab_size"],
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.freq_base": float(config.get("rope_theta", rope.get("rope_theta", 10000.0))),
    }
    header = {f"{kind}.{key}": value for key, value in fields.items()} | metadata
    for key, value in header.items():
        add = {str: writer.add_string, float: writer.add_float32, bool: writer.add_bool}
        add.get(type(value), writer.add_uint32)(key, value)
    for name, array in load_file(folder / "model.safetensors").items():
        writer.add_tensor(*_converted(name, array.astype(np.float32), config))
    if rope.get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", _factors(rope, width))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _converted(name: str, array: np.ndarray, config: dict) -> tuple[str, np.ndarray]:
    """llama.cpp reorders q and k of its llama, and bakes the 1 into Gemma's norms."""
    for heads, module in (("attention", "q_proj"), ("key_value", "k_proj")):
        if config["model_type"] == "llama" and module in name:
            count = config[f"num_{heads}_heads"]
            halves = array.reshape(count, 2, array.shape[0] // count // 2, *array.shape[1:])
            array = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(array.shape)
    if config["model_type"] == "gemma" and "norm" in name:
        array = array + np.float32(1)
    for ours, theirs in (GGUF_NAMES | SECOND_NORM[config["model_type"]]).items():
        name = name.replace(ours, theirs)
    return name, array


def _factors(rope: dict, width: int) -> np.ndarray:
    """The published rule of Llama 3.1 as factors of each pair."""
    frequencies = rope["rope_theta"] ** (-np.arange(0, width, 2) / width)
    waves, context = 2 * np.pi / frequencies, rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = np.clip((context / waves - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / rope["factor"] + smooth)).astype(np.float32)
