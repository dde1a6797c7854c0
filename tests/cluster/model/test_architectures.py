"""Every architecture reads its public settings, all of them, and writes a legal graph."""

import json
from pathlib import Path

import pytest

from cluster.errors import ModelError
from cluster.model.architecture import by_gguf_name, by_model_type, registry
from cluster.model.graph.rotary import Rotary
from cluster.model.rope import RopeScaling
from cluster.model.weights.files import placed_weights
from cluster.model.weights.safetensors import read_config
from tests.cluster.model.files import CONFIG, model_of

GOLDEN = Path(__file__).parents[2] / "data" / "architectures"
DECODERS = ("llama", "mistral", "qwen2", "qwen3", "gemma", "olmo2")
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


def scaling(**changes: object) -> RopeScaling | None:
    """Of the rotary tables of a model."""
    ops = (op for op in model_of(**changes).layers[0].ops if isinstance(op, Rotary))
    return next(ops).table.scaling


@pytest.mark.parametrize("name", registry())
def test_an_architecture_is_known_by_what_its_files_call_it(name):
    found = registry()[name]
    assert found.name == name and found.model_types
    assert all(by_model_type()[kind] is found for kind in found.model_types)
    assert all(by_gguf_name()[kind] is found for kind in found.gguf)


@pytest.mark.parametrize("kind", DECODERS)
def test_every_public_key_is_used_harmless_or_neutral(kind):
    model = model_of(model_type=kind, **LIBRARY, **OWN[kind])
    assert model.check() and len(model.layers) == 2 and model.size("ffn") == 70
    for tensors in (registry()[kind].safetensors, *registry()[kind].gguf.values()):
        names = [tensors.tensor(place, weight.name) for place, weight in placed_weights(model)]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize(("key", "value"), [
    ("hidden_sise", 3), ("is_encoder_decoder", True), ("partial_rotary_factor", 0.5),
    ("mlp_bias", True), ("attn_logit_softcapping", 30.0), ("final_logit_softcapping", 30.0),
    ("attention_bias", True), ("per_layer_config", {"0": {"hidden_size": 3}}),
])  # fmt: skip
def test_a_setting_that_is_not_understood_is_refused_by_name(kind, key, value):
    with pytest.raises(ModelError, match=f"'{key}'"):
        model_of(model_type=kind, **{key: value})


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
    ({"quantization_config": {"quant_method": "gptq"}}, "quantised by 'gptq'"),
])  # fmt: skip
def test_what_cannot_be_is_refused_by_name(changes, message):
    with pytest.raises(ModelError, match=message):
        model_of(**changes)


@pytest.mark.parametrize(("changes", "context"), [
    ({"model_type": "mistral", "sliding_window": 128}, 128),
    ({"model_type": "mistral", "sliding_window": None}, 640),
    ({"model_type": "qwen2", "sliding_window": 128}, 640),
    ({"model_type": "qwen2", "sliding_window": 128, "use_sliding_window": True}, 128),
    ({"model_type": "qwen2", "sliding_window": 128, "use_sliding_window": True,
      "max_window_layers": 2}, 640),
    ({"model_type": "qwen3", "sliding_window": 128,
      "layer_types": ["full_attention", "sliding_attention"]}, 128),
])  # fmt: skip
def test_a_model_is_right_up_to_its_window(changes, context):
    assert model_of(**changes).context_max == context


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
    assert model.hidden.size == 96 and model.vocab == 203 and len(model.layers) == 3


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
