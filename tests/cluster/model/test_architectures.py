"""Every architecture reads its public settings, all of them, and writes a legal graph."""

import json
from pathlib import Path

import pytest

from cluster.errors import ModelError
from cluster.model.architecture import by_gguf_name, by_model_type, registry
from cluster.model.graph.attention import Attention
from cluster.model.graph.rotary import Rotary
from cluster.model.rope import RopeScaling
from cluster.model.weights.files import placed_weights
from cluster.model.weights.safetensors import read_config
from tests.cluster.model.files import CONFIG, model_of

GOLDEN = Path(__file__).parents[2] / "data" / "architectures"
# The fields of transformers' PreTrainedConfig (4 and 5) with their defaults.
LIBRARY = {
    "architectures": ["X"], "dtype": "bfloat16", "torch_dtype": "bfloat16",
    "transformers_version": "5.0", "output_hidden_states": False, "output_attentions": False,
    "return_dict": True, "torchscript": False, "use_bfloat16": False, "pruned_heads": {},
    "chunk_size_feed_forward": 0, "is_encoder_decoder": False, "is_decoder": False,
    "cross_attention_hidden_size": None, "add_cross_attention": False,
    "tie_encoder_decoder": False, "finetuning_task": None, "id2label": {"0": "A"},
    "label2id": {"A": 0}, "num_labels": 2, "task_specific_params": None, "problem_type": None,
    "tokenizer_class": None, "prefix": None, "bos_token_id": 1, "pad_token_id": None,
    "eos_token_id": [1, 2], "sep_token_id": None, "decoder_start_token_id": None,
    "max_length": 20, "min_length": 0, "do_sample": False, "early_stopping": False,
    "num_beams": 1, "temperature": 1.0, "top_k": 50, "top_p": 1.0, "typical_p": 1.0,
    "repetition_penalty": 1.0, "length_penalty": 1.0, "no_repeat_ngram_size": 0,
    "bad_words_ids": None, "num_return_sequences": 1, "_name_or_path": "x", "use_cache": True,
    "_attn_implementation_autoset": True, "tf_legacy_loss": False, "auto_map": {},
}  # fmt: skip
# The fields of each configuration class beside those, which CONFIG or a default do not set.
OWN = {
    "llama": {
        "hidden_act": "silu", "initializer_range": 0.02, "pretraining_tp": 1,
        "rope_scaling": None, "attention_bias": False, "attention_dropout": 0.0,
        "mlp_bias": False, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
    "mistral": {
        "hidden_act": "silu", "initializer_range": 0.02, "sliding_window": 4096,
        "attention_dropout": 0.0, "rope_parameters": None,
    },
    "qwen2": {
        "hidden_act": "silu", "initializer_range": 0.02, "rope_scaling": None,
        "use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28,
        "layer_types": ["full_attention"] * 2, "attention_dropout": 0.0,
    },
    "gemma": {
        "hidden_act": "gelu_pytorch_tanh", "hidden_activation": None, "initializer_range": 0.02,
        "attention_bias": False, "attention_dropout": 0.0, "rope_scaling": None,
        "use_bidirectional_attention": None,
    },
    "olmo2": {
        "hidden_act": "silu", "initializer_range": 0.02, "rope_scaling": None,
        "attention_bias": False, "attention_dropout": 0.0,
    },
}  # fmt: skip
OWN["qwen3"] = OWN["qwen2"] | {"attention_bias": False}
OWN["phi3"] = OWN["mistral"] | {
    "resid_pdrop": 0.0, "embd_pdrop": 0.0, "original_max_position_embeddings": 4096,
    "rope_scaling": None, "partial_rotary_factor": 1.0,
}  # fmt: skip
OWN["gemma2"] = {
    "hidden_activation": "gelu_pytorch_tanh", "initializer_range": 0.02, "attention_bias": False,
    "attention_dropout": 0.0, "query_pre_attn_scalar": 256, "sliding_window": 4096,
    "layer_types": ["sliding_attention", "full_attention"], "final_logit_softcapping": 30.0,
    "attn_logit_softcapping": 50.0, "use_bidirectional_attention": None,
    "cache_implementation": "hybrid",
}  # fmt: skip
OWN["gemma3_text"] = OWN["gemma2"] | {
    "final_logit_softcapping": None, "attn_logit_softcapping": None, "rope_scaling": None,
    "rope_local_base_freq": 10000.0, "sliding_window_pattern": 6, "_sliding_window_pattern": 6,
}  # fmt: skip
ROUTER = {"router_aux_loss_coef": 0.001, "output_router_logits": False, "num_experts_per_tok": 2}
OWN["mixtral"] = OWN["mistral"] | ROUTER | {"num_local_experts": 8, "router_jitter_noise": 0.0}
OWN["qwen3_moe"] = OWN["qwen3"] | ROUTER | {
    "decoder_sparse_step": 1, "moe_intermediate_size": 24, "num_experts": 8,
    "norm_topk_prob": True, "mlp_only_layers": None,
}  # fmt: skip
OWN["gpt_oss"] = OWN["mistral"] | ROUTER | {
    "num_local_experts": 8, "swiglu_alpha": 1.702, "swiglu_limit": 7.0, "attention_bias": True,
    "layer_types": ["sliding_attention", "full_attention"],
    "rope_parameters": {"rope_type": "yarn", "factor": 32.0, "truncate": False,
                        "original_max_position_embeddings": 64, "beta_fast": 32.0,
                        "beta_slow": 1.0},
}  # fmt: skip
GROUPS = {
    "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 4,
    "topk_group": 2, "first_k_dense_replace": 1, "norm_topk_prob": True,
    "moe_intermediate_size": 24, "routed_scaling_factor": 2.5,
}  # fmt: skip
OWN["deepseek_v3"] = OWN["llama"] | GROUPS | {
    "kv_lora_rank": 32, "q_lora_rank": 40, "qk_rope_head_dim": 16, "qk_nope_head_dim": 24,
    "v_head_dim": 20, "rope_interleave": True, "qk_head_dim": 40, "ep_size": 1, "seq_aux": True,
    "num_nextn_predict_layers": 1, "moe_layer_freq": 1, "scoring_func": "sigmoid",
    "topk_method": "noaux_tc", "aux_loss_alpha": 0.001,
}  # fmt: skip
del OWN["deepseek_v3"]["mlp_bias"]
OWN["kimi_k2"] = OWN["deepseek_v3"]
OWN["glm4_moe"] = GROUPS | {
    "hidden_act": "silu", "initializer_range": 0.02, "attention_bias": True,
    "attention_dropout": 0.0, "use_qk_norm": True, "num_nextn_predict_layers": 1,
    "partial_rotary_factor": 0.5, "rope_scaling": None,
}  # fmt: skip
OWN["llama4_text"] = ROUTER | {
    "hidden_act": "silu", "initializer_range": 0.02, "attention_dropout": 0.0,
    "intermediate_size_mlp": 90, "num_local_experts": 4, "moe_layers": None,
    "interleave_moe_layer_step": 1, "use_qk_norm": True, "router_jitter_noise": 0.0,
    "no_rope_layers": None, "no_rope_layer_interval": 4, "attention_chunk_size": 8192,
    "layer_types": None, "attn_temperature_tuning": True, "floor_scale": 8192, "attn_scale": 0.1,
    "attention_bias": False, "for_llm_compression": False,
}  # fmt: skip
OWN["minimax_m2"] = ROUTER | {
    "hidden_act": "silu", "initializer_range": 0.02, "attention_dropout": 0.0, "rotary_dim": 8,
    "num_local_experts": 8, "scoring_func": "sigmoid", "use_routing_bias": True, "use_mtp": True,
    "use_qk_norm": True, "qk_norm_type": "per_layer", "shared_intermediate_size": 0,
    "num_mtp_modules": 3, "mtp_transformer_layers": 1, "attn_type_list": [1, 1],
    "router_jitter_noise": 0.0,
}  # fmt: skip
ENCODER = {
    "num_hidden_layers": 2, "hidden_size": 48, "num_attention_heads": 6, "intermediate_size": 70,
    "vocab_size": 33, "max_position_embeddings": 64, "layer_norm_eps": 1e-12,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    "type_vocab_size": 2, "initializer_range": 0.02, "position_embedding_type": "absolute",
    "classifier_dropout": None, "gradient_checkpointing": False,
}  # fmt: skip
RUNNING = [kind for kind, keys in OWN.items() if model_of(model_type=kind, **keys).stand_in is None]


def scaling(**changes: object) -> RopeScaling | None:
    """Of the rotary tables of a model."""
    ops = (op for op in model_of(**changes).layers[0].ops if isinstance(op, Rotary))
    return next(ops).table.scaling


@pytest.mark.parametrize("name", registry())
def test_an_architecture_is_known_by_what_its_files_call_it(name):
    found = registry()[name]
    assert found.name == name and found.model_types
    assert all(by_model_type()[kind] is found for kind in found.model_types)
    assert all(by_gguf_name(found.mixture)[kind] is found for kind in found.gguf)


def test_every_model_type_has_its_public_keys_listed_here():
    assert {*OWN, "bert"} == set(by_model_type())


@pytest.mark.parametrize("kind", OWN)
def test_every_public_key_is_used_harmless_or_neutral(kind):
    model = model_of(model_type=kind, **LIBRARY, **OWN[kind])
    assert (
        model.check()
        and len(model.layers) == 2
        and max(map(model.size, ("ffn", "expert_ffn"))) >= 24
    )


def test_every_public_key_of_an_encoder_is_used_harmless_or_neutral(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LIBRARY | ENCODER | {"model_type": "bert"}))
    model = read_config(path, "it")
    assert model.check() and model.opening and not model.has_logits
    for key, value in {"rope_theta": 1.0, "is_decoder": True}.items():
        path.write_text(json.dumps(ENCODER | {"model_type": "bert", key: value}))
        with pytest.raises(ModelError, match=f"'{key}'"):
            read_config(path, "it")


@pytest.mark.parametrize("kind", RUNNING)
def test_every_weight_has_a_tensor_of_its_own_or_is_fused(kind):
    model, architecture = model_of(model_type=kind, **OWN[kind]), by_model_type()[kind]
    for tensors in (architecture.safetensors, *architecture.gguf.values()):
        inside: dict[str, tuple[str, ...]] = {}
        for place, weight in placed_weights(model):
            name = tensors.tensor(place, weight.name)
            inside[name] = (*inside.get(name, ()), weight.name)
        assert all(names == tensors.together(names[0]) for names in inside.values())


@pytest.mark.parametrize("kind", RUNNING)
@pytest.mark.parametrize(("key", "value"), [
    ("hidden_sise", 3), ("is_encoder_decoder", True), ("partial_rotary_factor", 0.5),
    ("attn_logit_softcapping", 30.0), ("final_logit_softcapping", 30.0), ("clip_qkv", 8.0),
    ("per_layer_config", {"0": {"hidden_size": 3}}), ("add_cross_attention", True),
])  # fmt: skip
def test_a_setting_that_is_not_understood_is_refused_by_name(kind, key, value):
    if key in OWN[kind]:
        return  # it is one of its own
    with pytest.raises(ModelError, match=f"'{key}'"):
        model_of(model_type=kind, **{**OWN[kind], key: value})


@pytest.mark.parametrize(("changes", "message"), [
    ({"hidden_size": "wide"}, "'hidden_size' is 'wide', expected a number"),
    ({"num_hidden_layers": 2.5}, "'num_hidden_layers' is 2.5, expected an integer"),
    ({"num_hidden_layers": 0}, "must be 1 to"),
    ({"rms_norm_eps": 0}, "'rms_norm_eps' is 0, it must be positive"),
    ({"rms_norm_eps": float("nan")}, "must be finite"),
    ({"rope_theta": True}, "'rope_theta' is True, expected a number"),
    ({"hidden_act": "relu"}, "activation 'relu'"),
    ({"rope_scaling": {"type": "longrope"}}, "'longrope'; known"),
    ({"rope_scaling": {"type": "linear"}}, "has no 'rope_scaling.factor'"),
    ({"rope_scaling": {"type": "linear", "factor": 2.0, "speed": 3}}, "'rope_scaling.speed'"),
    ({"rope_scaling": "linear"}, "'rope_scaling' is 'linear', expected an object"),
    ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "rotate in part"),
    ({"num_key_value_heads": 4}, "not a multiple"),
    ({"head_dim": 15}, "odd"),
    ({"tie_word_embeddings": "no"}, "expected true or false"),
    ({"sliding_window": 64}, "'sliding_window'"),
])  # fmt: skip
def test_what_cannot_be_is_refused_by_name(changes, message):
    with pytest.raises(ModelError, match=message):
        model_of(**changes)


KINDS = ["full_attention", "sliding_attention"]


@pytest.mark.parametrize(("changes", "windows"), [
    ({"model_type": "mistral", "sliding_window": 128}, (128, 128)),
    ({"model_type": "mistral", "sliding_window": None}, (None, None)),
    ({"model_type": "phi3", "sliding_window": 128}, (128, 128)),
    ({"model_type": "qwen2", "sliding_window": 128}, (None, None)),
    ({"model_type": "qwen2", "sliding_window": 128, "use_sliding_window": True}, (128, 128)),
    ({"model_type": "qwen2", "sliding_window": 128, "use_sliding_window": True,
      "max_window_layers": 1}, (None, 128)),
    ({"model_type": "qwen3", "sliding_window": 128, "layer_types": KINDS}, (None, 128)),
    ({"model_type": "gemma2", "sliding_window": 128}, (128, None)),
    ({"model_type": "gemma2", "sliding_window": 128, "layer_types": KINDS}, (None, 128)),
    ({"model_type": "gemma3_text", "sliding_window": 128, "sliding_window_pattern": 2},
     (128, None)),
])  # fmt: skip
def test_layers_look_back_as_far_as_the_public_library_has_them(changes, windows):
    model = model_of(**changes)
    ops = [op for layer in model.layers for op in layer.ops if isinstance(op, Attention)]
    assert tuple(op.window for op in ops) == windows and model.context_max == 640


def test_rotary_settings_of_both_generations_mean_the_same():
    inside = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    inside["original_max_position_embeddings"] = 64
    old = {"rope_scaling": inside | {"type": "llama3"}, "rope_theta": 5e5}
    new = {"rope_parameters": inside | {"rope_type": "llama3", "rope_theta": 5e5}}
    assert model_of(**old) == model_of(**(new | {"rope_theta": None}))
    assert scaling(**old) == RopeScaling("llama3", 8.0, 64)


@pytest.mark.parametrize(("changes", "wanted"), [
    ({}, RopeScaling("yarn", 40.0, 640, 1.0, 32.0, 1.3688879454113936)),
    ({"mscale": 1.0, "mscale_all_dim": 1.0}, RopeScaling("yarn", 40.0, 640, 1.0, 32.0, 1.0)),
    ({"mscale": 0.707, "mscale_all_dim": 1.0},
     RopeScaling("yarn", 40.0, 640, 1.0, 32.0, 1.2608037774058554 / 1.3688879454113936)),
    ({"mscale": 0.707}, RopeScaling("yarn", 40.0, 640, 1.0, 32.0, 1.3688879454113936)),
    ({"attention_factor": 2.0, "truncate": False},
     RopeScaling("yarn", 40.0, 640, 1.0, 32.0, 2.0, False)),
    ({"original_max_position_embeddings": 64, "beta_fast": 16, "beta_slow": 2},
     RopeScaling("yarn", 40.0, 64, 2.0, 16.0, 1.3688879454113936)),
])  # fmt: skip
def test_yarn_is_read_as_the_public_library_does(changes, wanted):
    assert scaling(rope_scaling={"type": "yarn", "factor": 40.0} | changes) == wanted


def test_the_original_context_may_stand_at_the_top():
    table = {"rope_type": "yarn", "factor": 4.0}
    found = scaling(rope_parameters=table, original_max_position_embeddings=128)
    assert found and found.original_context == 128


@pytest.mark.parametrize("name", [path.name for path in sorted(GOLDEN.iterdir())])
def test_models_of_the_public_library_are_legal(name):
    model = read_config(GOLDEN / name / "config.json", name)
    assert model.hidden.size == 96 and model.vocab == 203 and len(model.layers) in (3, 4)


def test_biases_are_where_the_settings_want_them():
    weights = {w.name for w in model_of(attention_bias=True, mlp_bias=True).layers[0].weights}
    modules = ("wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down")
    assert {f"{module}.bias" for module in modules} < weights
    for key in ("attention_bias", "mlp_bias"):
        with pytest.raises(ModelError, match=f"'{key}'"):
            model_of(model_type="olmo2", **{key: True})


def test_rotary_tables_differ_by_the_type_of_layer():
    both = {"sliding_attention": {"rope_theta": 1e4},
            "full_attention": {"rope_theta": 1e6, "type": "linear", "factor": 8.0}}  # fmt: skip
    kinds = ["sliding_attention", "full_attention"]
    new = OWN["gemma3_text"] | {"layer_types": kinds, "rope_parameters": both}
    old = OWN["gemma3_text"] | {"layer_types": kinds, "rope_theta": 1e6,
                                "rope_scaling": {"rope_type": "linear", "factor": 8.0}}  # fmt: skip
    models = [model_of(model_type="gemma3_text", **keys) for keys in (new, old)]
    assert models[0] == models[1] and len(models[0].distinct) == 3


def test_a_file_that_is_no_config_is_refused(tmp_path):
    path = tmp_path / "config.json"
    for text, message in [
        ("[]", "no JSON object"), ("{", "cannot be read"), ("[" * 10**5, "cannot be read"),
        (json.dumps(CONFIG | {"model_type": "mamba"}), "is of type 'mamba'; known are"),
        (json.dumps(CONFIG | {"model_type": ["llama"]}), "is of type"),
    ]:  # fmt: skip
        path.write_text(text)
        with pytest.raises(ModelError, match=message):
            read_config(path, "it")
    path.unlink()
    with pytest.raises(ModelError, match="does not exist"):
        read_config(path, "it")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="LoRA adapter"):
        read_config(path, "it")
