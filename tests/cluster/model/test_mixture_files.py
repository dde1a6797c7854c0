"""Mixtures from files: GGUF as llama.cpp's converter writes it, and MXFP4 blocks."""

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cluster.errors import ModelError
from cluster.model.gguf_file import GgufFile
from cluster.model.graph.graph import Model
from cluster.model.graph.latent_attention import LatentAttention
from cluster.model.graph.rotary import Rotary
from cluster.model.reference import Reference
from cluster.model.weights.copied import CopiedExperts
from cluster.model.weights.files import placed_weights
from cluster.model.weights.gguf import open_gguf, read_header
from cluster.model.weights.safetensors import open_folder
from cluster.model.weights.synthetic import SyntheticWeights
from tests.cluster.model.files import CONFIG, model_of

GOLDEN = Path(__file__).parents[2] / "data" / "architectures"
KINDS = {"mixtral": "llama", "qwen3-moe": "qwen3moe", "gpt-oss": "gpt-oss"}
EXPERTS = {"w_gate": "ffn_gate_exps", "w_up": "ffn_up_exps", "w_down": "ffn_down_exps"}


def as_gguf(name: str, path: Path) -> Path:
    """A golden folder as a GGUF file, with llama.cpp's names and shapes."""
    config = json.loads((GOLDEN / name / "config.json").read_text())
    source, kind = open_folder(GOLDEN / name, name), KINDS[name]
    writer = gguf.GGUFWriter(path, kind)
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    count = config.get("num_local_experts") or config["num_experts"]
    ffn = config.get("moe_intermediate_size", config["intermediate_size"])
    rope = config.get("rope_parameters") or {}
    header = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"], "feed_forward_length": ffn,
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": width, "attention.value_length": width,
        "vocab_size": config["vocab_size"], "expert_count": count,
        "expert_used_count": config["num_experts_per_tok"],
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.freq_base": float(rope.get("rope_theta", config.get("rope_theta", 1e6))),
    }  # fmt: skip
    if kind != "llama":
        header["expert_feed_forward_length"] = ffn
    if kind == "gpt-oss":
        header |= {
            "attention.sliding_window": config["sliding_window"], "rope.scaling.type": "yarn",
            "rope.scaling.factor": rope["factor"],
            "rope.scaling.original_context_length": rope["original_max_position_embeddings"],
        }  # fmt: skip
    for key, value in header.items():
        add = {str: writer.add_string, float: writer.add_float32}.get(
            type(value), writer.add_uint32
        )
        add(f"{kind}.{key}", value)
    tensors = gguf_tensors(source.model, kind)
    for place, weight in placed_weights(source.model):
        array = source.array(place, weight)
        if weight.rotary and kind != "llama":  # pairs are half a head apart
            pairs = array.reshape(-1, width // 2, 2, *array.shape[1:])
            array = np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(array.shape)
        if weight.out[0].name == "experts" and len(weight.out) > 1:
            array = array.reshape(count, -1, *array.shape[1:])
        writer.add_tensor(tensors(place, weight.name), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_tensors(model: Model, kind: str):
    """llama.cpp's name of a weight."""
    others = {"embedding": "token_embd", "final_norm": "output_norm", "head": "output"}
    second = "post_attention_norm" if kind == "gpt-oss" else "ffn_norm"
    inside = {
        "attn_norm": "attn_norm", "ffn_norm": second, "wq": "attn_q", "wk": "attn_k",
        "wv": "attn_v", "wo": "attn_output", "q_norm": "attn_q_norm", "k_norm": "attn_k_norm",
        "router": "ffn_gate_inp", "sinks": "attn_sinks", **EXPERTS,
    }  # fmt: skip

    def name(place: object, weight: str) -> str:
        module, _, part = weight.partition(".")
        if not isinstance(place, int):
            return f"{others[module]}.weight"
        return f"blk.{place}.{inside[module]}.{part or 'weight'}"

    return name


@pytest.mark.parametrize("name", KINDS)
def test_a_mixture_from_gguf_is_that_of_its_folder(name, tmp_path):
    folder = open_folder(GOLDEN / name, name)
    file = open_gguf(GgufFile(as_gguf(name, tmp_path / "it.gguf")), name)
    assert file.model.architecture == folder.model.architecture
    for place, weight in placed_weights(folder.model):
        assert np.array_equal(file.array(place, weight), folder.array(place, weight)), weight.name
    ours, theirs = ([op.kind for op in one.model.layers[0].ops] for one in (file, folder))
    assert ours == theirs


def latent_gguf(path: Path, **metadata: object) -> Path:
    """The golden DeepSeek as llama.cpp has it: keys and values by head, experts in one tensor."""
    config = json.loads((GOLDEN / "deepseek-v3" / "config.json").read_text())
    arrays = load_file(GOLDEN / "deepseek-v3" / "model.safetensors")
    writer, layers = gguf.GGUFWriter(path, "deepseek2"), config["num_hidden_layers"]
    turned, row = config["qk_rope_head_dim"], config["kv_lora_rank"]
    plain, values = config["qk_nope_head_dim"], config["v_head_dim"]
    for key, value in {
        "block_count": layers, "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"], "vocab_size": config["vocab_size"],
        "feed_forward_length": config["intermediate_size"],
        "head_count": config["num_attention_heads"], "head_count_kv": 1,
        "key_length": row + turned, "value_length": row, "key_length_mla": plain + turned,
        "value_length_mla": values, "rope_dimension_count": turned, "kv_lora_rank": row,
        "q_lora_rank": config["q_lora_rank"], "rope_freq_base": 10000.0,
        "layer_norm_rms_eps": config["rms_norm_eps"],
        "leading_dense_block_count": config["first_k_dense_replace"],
        "expert_feed_forward_length": config["moe_intermediate_size"],
        "expert_count": config["n_routed_experts"],
        "expert_used_count": config["num_experts_per_tok"],
        "expert_shared_count": config["n_shared_experts"],
        "expert_weights_scale": config["routed_scaling_factor"],
        "expert_weights_norm": config["norm_topk_prob"],
        "expert_group_count": config["n_group"], "expert_group_used_count": config["topk_group"],
        "expert_gating_func": gguf.ExpertGatingFuncType.SIGMOID, **metadata,
    }.items():  # fmt: skip
        if value is not None:
            getattr(writer, f"add_{key}")(value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.DEEPSEEK2, layers)
    together: dict[str, list[np.ndarray]] = {}
    for name in sorted(arrays):
        array = arrays[name].astype(np.float32)
        new = name.replace("_correction_bias", "_correction.bias")
        if "kv_b_proj" in name:
            heads = array.reshape(config["num_attention_heads"], plain + values, row)
            both = {"k_b_proj": heads[:, :plain].swapaxes(1, 2), "v_b_proj": heads[:, plain:]}
            for part, own in both.items():
                new = name.replace("kv_b_proj", part)
                writer.add_tensor(names.get_name(new, [".weight"]), np.array(own))
            continue
        for number in range(config["n_routed_experts"]):
            new = new.replace(f"experts.{number}.", "experts.")
        found = names.get_name(new, [".weight", ".bias"])
        together.setdefault(found, []).append(array)
    for name, found in together.items():
        writer.add_tensor(name, found[0] if len(found) == 1 else np.stack(found))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_latent_attention_from_gguf_is_that_of_its_folder(tmp_path):
    folder = open_folder(GOLDEN / "deepseek-v3", "it")
    file = open_gguf(GgufFile(latent_gguf(tmp_path / "it.gguf")), "it")
    case = json.loads((GOLDEN / "deepseek-v3" / "golden.json").read_text())["cases"][0]
    logits = Reference(file, 64).forward(case["prompt_ids"])  # so that scales are right, too
    assert np.abs(logits - case["first_logits"]).max() < 1e-3
    for place, weight in placed_weights(folder.model):
        assert np.array_equal(file.array(place, weight), folder.array(place, weight)), weight.name


def test_the_log_multiplier_of_yarn_is_in_the_scale_of_scores_and_not_in_rotations(tmp_path):
    yarn = {"type": gguf.RopeScalingType.YARN, "factor": 40.0, "orig_ctx_len": 64}
    metadata = {f"rope_scaling_{key}": value for key, value in yarn.items()}
    path = latent_gguf(tmp_path / "it.gguf", **metadata, rope_scaling_yarn_log_mul=0.1)
    ops = read_header(GgufFile(path)).layers[0].ops
    scale = next(op.scale for op in ops if isinstance(op, LatentAttention))
    assert scale == pytest.approx(40**-0.5 * (1 + 0.1 * np.log(40)) ** 2)
    assert {op.table.scaling.magnitude for op in ops if isinstance(op, Rotary)} == {1.0}


@pytest.mark.parametrize(("metadata", "problem"), [
    ({"key_length_mla": None}, "has no 'deepseek2.attention.key_length_mla'"),
    ({"expert_group_count": None}, "has no 'deepseek2.expert_group_count'"),
    ({"expert_gating_func": gguf.ExpertGatingFuncType.SOFTMAX}, "has a router of function 1"),
    ({"key_length": 40}, "caches rows of 40 and 32 elements, not 48"),
])  # fmt: skip
def test_other_latent_attention_from_gguf_is_refused(metadata, problem, tmp_path):
    with pytest.raises(ModelError, match=problem):
        read_header(GgufFile(latent_gguf(tmp_path / "it.gguf", **metadata)))


def test_mxfp4_blocks_are_what_the_same_files_have_without(tmp_path):
    """Blocks of 32 along what an expert takes, so with a hidden size of 96 and an FFN of 96."""
    config = CONFIG | {
        "model_type": "gpt_oss", "hidden_size": 96, "intermediate_size": 96,
        "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8,
        "rope_scaling": {"rope_type": "yarn", "factor": 2.0, "truncate": False},
        "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["x"]},
    }  # fmt: skip
    values = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
    shutil.copytree(GOLDEN / "gpt-oss", tmp_path / "it")
    folder, rng = tmp_path / "it", np.random.default_rng(1)
    (folder / "config.json").write_text(json.dumps(config))
    model = model_of(**{k: v for k, v in config.items() if k != "quantization_config"})
    arrays, wanted = {}, {}
    tensors = open_folder(GOLDEN / "gpt-oss", "x")._tensors
    for place, weight in placed_weights(model):
        name = tensors.tensor(place, weight.name)
        stacked = tensors.stacked.get(weight.name)
        size = weight.shape
        if stacked is None:
            arrays[name] = np.zeros(size, np.float16)
        elif not weight.inner:
            arrays[name] = np.zeros((4, weight.out[1].size * len(tensors.together(weight.name))),
                                    np.float16)  # fmt: skip
        elif name not in wanted:
            rows = weight.out[1].size * len(tensors.together(weight.name))
            codes = rng.integers(0, 16, (4, rows, 3, 32), np.uint8)
            scales = rng.integers(120, 130, (4, rows, 3), np.uint8)
            arrays[f"{name}_blocks"] = codes[..., ::2] | codes[..., 1::2] << 4
            arrays[f"{name}_scales"] = scales
            whole = values[codes] * np.exp2(scales[..., None].astype(np.float32) - 127)
            wanted[name] = whole.reshape(4, rows, 96)
    save_file(arrays, folder / "model.safetensors")
    assert load_file(folder / "model.safetensors").keys() == arrays.keys()
    weights = open_folder(folder, "it")
    for place, weight in placed_weights(model):
        if weight.inner and weight.name in tensors.stacked:
            group = tensors.together(weight.name)
            whole = wanted[tensors.tensor(place, weight.name)][
                :, group.index(weight.name) :: len(group)
            ]
            assert np.array_equal(weights.array(place, weight), whole.reshape(weight.shape))
    del arrays[next(n for n in arrays if n.endswith("_scales"))]
    save_file(arrays, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"has no tensor .*_scales"):
        open_folder(folder, "it")


def test_copied_experts_are_the_dense_ffn_and_seeds_change_the_router_alone():
    mixed = {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
    dense = SyntheticWeights(model_of())
    one, other = (CopiedExperts(model_of(**mixed), dense, seed) for seed in (0, 1))
    for place, weight in placed_weights(one.model):
        same = np.array_equal(one.array(place, weight), other.array(place, weight))
        assert same == (weight.name != "router")
        if weight.out[0].name == "experts" and len(weight.out) > 1:
            copies = one.array(place, weight).reshape(8, -1, weight.shape[1])
            assert (copies == copies[0]).all() and copies[0].any()
