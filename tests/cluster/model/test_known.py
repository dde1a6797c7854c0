"""Models known by name have their published sizes, and are found as names, files and folders."""

import json

import numpy as np
import pytest

from cluster.errors import ModelError, UnknownName
from cluster.model.gguf_file import GgufFile
from cluster.model.graph.stand_in import Residents
from cluster.model.known import known_model, known_models, known_names, refused_models
from cluster.model.load import find_decoder, find_model, load_encoder, load_model, runnable
from cluster.model.weights.files import placed_weights
from cluster.model.weights.gguf import open_gguf
from tests.cluster.model.files import CONFIG, convert, write_folder

# In billions, as the makers' model cards and safetensors headers say.
BILLIONS = {
    "smollm2": 0.1345, "smollm2-1.7b": 1.711, "llama-2-7b": 6.738, "llama-2-13b": 13.016,
    "llama-2-70b": 68.977, "llama-3-8b": 8.030, "llama-3-70b": 70.554, "llama-3.1-405b": 405.854,
    "llama-3.2-1b": 1.236, "llama-3.2-3b": 3.213, "llama-4-scout": 107.770,
    "llama-4-maverick": 400.712, "mistral-7b": 7.248, "mistral-small-24b": 23.572,
    "mixtral-8x7b": 46.703, "mixtral-8x22b": 140.621, "qwen2.5-7b": 7.616, "qwen2.5-32b": 32.764,
    "qwen2.5-72b": 72.706, "qwen3-0.6b": 0.596, "qwen3-4b": 4.022, "qwen3-8b": 8.191,
    "qwen3-14b": 14.768, "qwen3-32b": 32.762, "qwen3-30b-a3b": 30.532, "qwen3-235b": 235.094,
    "qwq-32b": 32.764, "minimax-m2.7": 228.690,
    "gpt-oss-20b": 20.915, "gpt-oss-120b": 116.829, "gemma-7b": 8.538, "gemma-2-9b": 9.242,
    "gemma-3-4b": 3.880, "gemma-3-27b": 27.009, "phi-4": 14.660, "olmo-2-7b": 7.299,
    "deepseek-v3": 671.026, "kimi-k2": 1026.408, "bert-base": 0.109, "bert-large": 0.334,
}  # fmt: skip


@pytest.mark.parametrize("name", known_models())
def test_every_known_model_is_legal_and_says_where_it_is_from(name):
    model, known = known_model(name), known_models()[name]
    assert model.check() and model.name == name and known.source
    assert model.chip_parameters > 0 and model.size("head_dim") % 2 == 0
    assert all(known_model(alias.upper()) is model for alias in known.aliases)
    if model.stand_in is None:
        assert sum(np.prod(w.shape) for _, w in placed_weights(model)) == model.parameters


@pytest.mark.parametrize(("name", "billions"), BILLIONS.items())
def test_parameter_counts_are_the_published_ones(name, billions):
    assert known_model(name).parameters / 1e9 == pytest.approx(billions, abs=0.001)


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'smollm2'"):
        known_model("smolm2")
    assert len(known_names()) > len(known_models()) > 40


@pytest.mark.parametrize("name", refused_models())
def test_what_no_graph_describes_is_refused_with_the_reason(name):
    with pytest.raises(ModelError, match=r"no op computes|no public config"):
        find_model(name)


def test_caches_are_those_of_the_model_and_not_of_what_stands_for_it():
    """Of 8 KV heads of 128 elements and 32 layers; of a latent row of 512 + 64 and 61 layers."""
    assert known_model("llama-3-8b").cached_elements == 32 * 2 * 8 * 128
    assert known_model("deepseek-v3").cached_elements == 61 * (512 + 64)


@pytest.mark.parametrize(("name", "missing"), [
    ("llama-4-maverick", "a mixture of 128 experts"), ("minimax-m2.7", "norms of all queries"),
    ("glm-4.5", "rotate in part"), ("llama-4-scout", "chunked attention"),
])  # fmt: skip
def test_what_no_kernel_executes_is_planned_with_notes_and_not_run(name, missing):
    model = find_model(name)
    assert model.stand_in and model.stand_in.notes and model.has_logits
    for attempt in (lambda: runnable(model), lambda: load_model(name)):
        with pytest.raises(ModelError, match=f"{missing}.* which no kernel executes yet"):
            attempt()


def test_a_mixture_stands_as_all_of_its_experts():
    model = known_model("minimax-m2.7")
    assert model.stand_in and model.stand_in.experts
    assert model.size("ffn") == 256 * 1536 == model.stand_in.experts.columns


def test_dense_layers_stand_before_mixtures_with_an_expert_for_all():
    dense, mixed = (known_model("deepseek-v3").layers[number] for number in (2, 3))
    sizes = {weight.name: weight.shape for section in (dense, mixed) for weight in section.weights}
    assert sizes["w_up"] == (18432, 7168) and sizes["shared_up"] == (2048, 7168)
    assert sizes["expert_up"] == (256 * 2048, 7168) and "w_up" not in {
        w.name for w in mixed.weights
    }


def test_experts_rest_on_ranks_whole_where_that_can_be():
    experts = known_model("minimax-m2.7").stand_in.experts
    assert experts.residents(4) == Residents(256, 8, 64.0, True, 256)
    assert experts.residents(3) == Residents(256, 8, 256 / 3, False, 256)


def test_an_encoder_has_no_token_by_token_plan():
    with pytest.raises(ModelError, match=r"is an encoder.*`lpu embed`"):
        find_decoder("bert-base")
    assert find_decoder("glm-4.5").notes and not find_decoder("mixtral-8x7b").notes
    assert not any(find_decoder(f"gpt-oss-{size}b").notes for size in (20, 120))


def test_models_are_found_by_folder_config_and_gguf_file(tmp_path):
    folder = write_folder(tmp_path / "it", CONFIG)
    path = convert(folder, tmp_path / "it.gguf")
    assert find_model(str(folder)) == find_model(str(folder / "config.json"))
    weights = [load_model(str(folder)).weights, open_gguf(GgufFile(path))]
    rows = [source.embedding_rows([3, 4]) for source in weights]
    assert np.array_equal(rows[0], rows[1])
    assert find_model(str(path)).layers[0].weights == find_model(str(folder)).layers[0].weights
    with pytest.raises(ModelError, match="does not exist"):
        find_model(str(tmp_path))


def test_the_text_part_of_a_model_of_several_can_be_planned(tmp_path):
    inner = CONFIG | {"model_type": "gemma3_text", "query_pre_attn_scalar": 16,
                      "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 64}  # fmt: skip
    outer = {"model_type": "gemma3", "text_config": inner, "vision_config": {"x": 1}}
    (tmp_path / "config.json").write_text(json.dumps(outer))
    model = find_model(str(tmp_path))
    assert model.architecture == "gemma3" and model.context_max == 640


def test_random_models_need_no_files():
    weights, again = load_model("tiny").weights, load_model("tiny").weights
    place, weight = next(iter(placed_weights(weights.model)))
    assert np.array_equal(weights.array(place, weight), again.array(place, weight))
    encoder = load_encoder("tiny-encoder")
    assert encoder.embedding_rows([1, 2]).shape == (2, 64) and not encoder.model.has_logits
    with pytest.raises(ModelError, match="is an encoder; `lpu embed`"):
        load_model("tiny-encoder")
    with pytest.raises(ModelError, match="is no encoder"):
        load_encoder("tiny")
    with pytest.raises(ModelError, match="shape only"):
        load_encoder("bert-base")
