"""Writes Hugging Face folders with random weights, of any shape, for tests."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

AWKWARD = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 384,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 1000,
    "vocab_size": 32003,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "max_position_embeddings": 640,
    "hidden_act": "silu",
}
SMALL = AWKWARD | {"hidden_size": 64, "num_attention_heads": 4, "vocab_size": 128}
SMALL |= {"intermediate_size": 96}


def tensors(config: dict, dtype=np.float16) -> dict[str, np.ndarray]:
    """Random tensors under the names of the checkpoints."""
    rng = np.random.default_rng(7)
    hidden, ffn, vocab = (config[k] for k in ("hidden_size", "intermediate_size", "vocab_size"))
    head_dim = config.get("head_dim", hidden // config["num_attention_heads"])
    q, kv = (head_dim * config[f"num_{k}_heads"] for k in ("attention", "key_value"))
    found = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = (vocab, hidden)
    for layer in range(config["num_hidden_layers"]):
        shapes = {
            "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
            "self_attn.q_proj": (q, hidden), "self_attn.k_proj": (kv, hidden),
            "self_attn.v_proj": (kv, hidden), "self_attn.o_proj": (hidden, q),
            "mlp.gate_proj": (ffn, hidden), "mlp.up_proj": (ffn, hidden),
            "mlp.down_proj": (hidden, ffn),
        }  # fmt: skip
        found |= {f"model.layers.{layer}.{n}.weight": s for n, s in shapes.items()}
        if config["model_type"] == "qwen2":
            for name, rows in (("q", q), ("k", kv), ("v", kv)):
                found[f"model.layers.{layer}.self_attn.{name}_proj.bias"] = (rows,)
    drawn = {}
    for name, shape in found.items():
        values = rng.standard_normal(shape) / (np.sqrt(shape[-1]) if len(shape) > 1 else 10)
        if "norm" in name and config["model_type"] != "gemma":
            values += 1
        drawn[name] = values.astype(dtype)
    return drawn


def write_folder(folder: Path, config: dict, shards: int = 1, dtype=np.float16) -> Path:
    """A folder with config.json and its weights in one file or several."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    arrays = tensors(config, dtype)
    names = sorted(arrays)
    if shards == 1:
        save_file(arrays, folder / "model.safetensors")
        return folder
    index = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = names[number::shards]
        save_file({name: arrays[name] for name in part}, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder
