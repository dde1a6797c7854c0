"""Hugging Face folders: what a config means, and that weights come out as they were written."""

import json

import ml_dtypes
import numpy as np
import pytest

from cluster.cli import main
from cluster.errors import ModelError
from cluster.model.hf_config import read_config
from cluster.model.load import load_model, load_spec
from cluster.model.presets import named_spec
from cluster.model.reference import Reference
from cluster.model.rope import RopeScaling
from tests.cluster.model.hf_folder import AWKWARD, SMALL, tensors, write_folder

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 8192}
# config.json as published, the keys that matter
PUBLISHED = {
    "llama-3-405b": AWKWARD | {
        "num_hidden_layers": 126, "hidden_size": 16384, "num_attention_heads": 128,
        "num_key_value_heads": 8, "intermediate_size": 53248, "vocab_size": 128256,
        "rope_theta": 500000.0, "max_position_embeddings": 131072, "rope_scaling": LLAMA3,
    },
    "mixtral-8x7b": AWKWARD | {
        "model_type": "mixtral", "num_hidden_layers": 32, "hidden_size": 4096,
        "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
        "vocab_size": 32000, "rope_theta": 1e6, "max_position_embeddings": 32768,
        "num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": None,
    },
    "qwen3-235b": AWKWARD | {
        "model_type": "qwen3_moe", "num_hidden_layers": 94, "hidden_size": 4096, "head_dim": 128,
        "num_attention_heads": 64, "num_key_value_heads": 4, "intermediate_size": 12288,
        "moe_intermediate_size": 1536, "num_experts": 128, "num_experts_per_tok": 8,
        "vocab_size": 151936, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
        "max_position_embeddings": 40960,
    },
    "deepseek-v3": AWKWARD | {
        "model_type": "deepseek_v3", "num_hidden_layers": 61, "hidden_size": 7168,
        "num_attention_heads": 128, "num_key_value_heads": 128, "intermediate_size": 18432,
        "moe_intermediate_size": 2048, "n_routed_experts": 256, "num_experts_per_tok": 8,
        "n_shared_experts": 1, "first_k_dense_replace": 3, "q_lora_rank": 1536,
        "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128,
        "vocab_size": 129280, "rms_norm_eps": 1e-6, "max_position_embeddings": 163840,
        "rope_scaling": {
            "type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1,
            "original_max_position_embeddings": 4096, "attention_factor": 1.0,
        },
    },
}  # fmt: skip


def config_file(folder, values):
    path = folder / "config.json"
    path.write_text(json.dumps(values))
    return path


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_are_what_published_configs_say(name, tmp_path):
    assert read_config(config_file(tmp_path, PUBLISHED[name]), name) == named_spec(name)


@pytest.mark.parametrize("changes, field, value", [
    ({"model_type": "qwen2"}, "qkv_bias", True),
    ({"model_type": "qwen3"}, "qk_norm", True),
    ({"model_type": "gemma", "hidden_act": "gelu"}, "activation", "gelu"),
    ({"model_type": "mistral", "sliding_window": 128}, "context_max", 128),
    ({"model_type": "qwen2", "sliding_window": 128}, "context_max", 640),
    ({"head_dim": 32}, "head_dim", 32),
    ({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, "rope_theta", 5e5),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling",
     RopeScaling("linear", 2.0, 640)),
])  # fmt: skip
def test_variants_are_recognised(changes, field, value, tmp_path):
    spec = read_config(config_file(tmp_path, AWKWARD | changes), "it")
    assert getattr(spec, field) == value


@pytest.mark.parametrize("changes, message", [
    ({"model_type": "mamba"}, "is of type 'mamba'"),
    ({"hidden_size": "wide"}, "'hidden_size' is 'wide', expected a number"),
    ({"num_hidden_layers": 2.5}, "expected an integer"),
    ({"hidden_act": "relu"}, "activation 'relu'"),
    ({"rope_scaling": {"type": "magic"}}, "'magic'"),
    ({"rope_scaling": {"type": "linear"}}, "without a usable 'factor'"),
    ({"num_key_value_heads": 4}, "not a multiple"),
    ({"tie_word_embeddings": "no"}, "expected true or false"),
])  # fmt: skip
def test_what_cannot_be_is_refused(changes, message, tmp_path):
    with pytest.raises(ModelError, match=message):
        read_config(config_file(tmp_path, AWKWARD | changes), "it")


@pytest.mark.parametrize("changes, obstacle", [
    ({"mlp_bias": True}, "biases of the FFN"),
    ({"attention_bias": True}, "biases of the output projection"),
    ({"partial_rotary_factor": 0.5}, "rotate in part"),
])  # fmt: skip
def test_what_no_kernel_executes_is_said_before_weights_are_looked_for(changes, obstacle, tmp_path):
    config_file(tmp_path, AWKWARD | changes)
    with pytest.raises(ModelError, match=f"{obstacle}, which no kernel executes yet"):
        load_model(str(tmp_path))


def test_llama3_scaling_keeps_short_waves_and_stretches_long_ones():
    """Values of the published formula: wavelengths below 2,048 stay, above 8,192 are x 8."""
    waves = np.array([100.0, 2048.0, 4096.0, 8192.0, 1e5])
    scaled = RopeScaling("llama3", 8.0, 8192).scaled(2 * np.pi / waves, 500e3)
    assert np.allclose(2 * np.pi / scaled / waves, [1, 1, 1 / (2 / 3 / 8 + 1 / 3), 8, 8])


def test_yarn_keeps_fast_pairs_and_stretches_slow_ones():
    frequencies = 10000.0 ** (-np.arange(32) / 32)
    ratio = frequencies / RopeScaling("yarn", 4.0, 4096, 1.0, 32.0).scaled(frequencies, 10000.0)
    assert ratio[0] == 1 and np.isclose(ratio[-1], 4) and (np.diff(ratio) >= -1e-12).all()


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma"])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_weights_come_out_as_written(kind, dtype, tmp_path):
    config = SMALL | {"model_type": kind}
    weights = load_model(str(write_folder(tmp_path, config, dtype=dtype))).weights
    written = {name: array.astype(np.float32) for name, array in tensors(config, dtype).items()}
    layer = weights.layer(1)
    assert np.array_equal(layer.wo, written["model.layers.1.self_attn.o_proj.weight"])
    half = written["model.layers.1.self_attn.q_proj.weight"]
    assert np.array_equal(layer.wq[0:4:2], half[0:2]) and np.array_equal(layer.wq[1], half[8])
    gemma = kind == "gemma"
    assert np.array_equal(weights.final_norm, written["model.norm.weight"] + gemma)
    rows = written["model.embed_tokens.weight"][[3, 1]]
    assert np.array_equal(weights.embedding_rows([3, 1]), rows * (8.0 if gemma else 1.0))
    assert np.array_equal(weights.head_rows(5, 9), written["lm_head.weight"][5:9])


def test_damaged_folders_are_refused(tmp_path):
    folder = write_folder(tmp_path, SMALL, shards=2)
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"short")
    with pytest.raises(ModelError, match=r"model-00002.* cannot be read"):
        load_model(str(folder))
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match="has no file model-00002"):
        load_model(str(folder))
    folder = write_folder(tmp_path / "other", SMALL)
    config_file(folder, SMALL | {"intermediate_size": 97})
    with pytest.raises(ModelError, match=r"gate_proj.weight is \[96, 64\], expected \[97, 64\]"):
        load_model(str(folder))
    config_file(folder, SMALL | {"num_hidden_layers": 1})
    with pytest.raises(ModelError, match=r"layers.1.* is not part of a llama model"):
        load_model(str(folder))


def test_a_plan_needs_the_config_only(tmp_path):
    config_file(tmp_path, AWKWARD)
    assert load_spec(str(tmp_path)) == load_spec(str(tmp_path / "config.json"))
    assert load_spec(str(tmp_path)).hidden == 384 and load_spec("llama-2-7b").layers == 32


def test_an_awkward_folder_runs_and_agrees_with_float32(tmp_path, capsys):
    """Odd sizes, two shards, no tokenizer: ids in, ids out, equal to the reference."""
    folder = str(write_folder(tmp_path / "awkward", AWKWARD, shards=2))
    arguments = ["run", folder, "--prompt-ids", "1,2,3", "--max-new-tokens", "5", "--json"]
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    wanted = Reference(load_model(folder).weights, context=16).generate([1, 2, 3], 5)
    assert report["output_ids"] == wanted
    assert report["text"] == " ".join(map(str, wanted))
    assert main(["run", folder, "--prompt", "hello"]) == 2
    assert "has no tokenizer.json; use --prompt-ids" in capsys.readouterr().err
