"""What GGUF headers say of DeepSeek's latent attention and router, under the keys of a config.

llama.cpp counts heads as they are once keys are absorbed, all sharing one row of the cache; the
sizes of the heads themselves end in `_mla`.
"""

from collections.abc import Mapping
from typing import Any

from cluster.model.gguf_file import GgufFile

KIND = "deepseek2"
KEYS = {
    "attention.q_lora_rank": "q_lora_rank",
    "attention.kv_lora_rank": "kv_lora_rank",
    "attention.key_length": "cached_key_length",
    "attention.value_length": "cached_value_length",
    "attention.key_length_mla": "qk_head_dim",
    "attention.value_length_mla": "v_head_dim",
    "rope.dimension_count": "qk_rope_head_dim",
    "leading_dense_block_count": "first_k_dense_replace",
    "expert_count": "n_routed_experts",
    "expert_shared_count": "n_shared_experts",
    "expert_weights_scale": "routed_scaling_factor",
    "expert_weights_norm": "norm_topk_prob",
    "expert_gating_func": "scoring_func",
    "expert_group_count": "n_group",
    "expert_group_used_count": "topk_group",
    "rope.scaling.yarn_log_multiplier": "log_multiplier",
}
_SIGMOID = 2  # of llama.cpp's enumeration; 1 and absence are a softmax, as in DeepSeek V2
_AGAIN = "convert the checkpoint with a newer llama.cpp"


def latent_settings(
    file: GgufFile, values: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of attention and router from those of KEYS, and what they add to YaRN's.

    Raises ModelError for files from before heads had lengths of their own, or groups were written.
    """
    found = dict(values)
    for key in ("attention.key_length_mla", "expert_group_count"):
        if KEYS[key] not in found:
            raise file.error(f"has no '{KIND}.{key}'", _AGAIN)
    width, turned, row = (found.get(k) for k in ("qk_head_dim", "qk_rope_head_dim", "kv_lora_rank"))
    if not (isinstance(width, int) and isinstance(turned, int) and isinstance(row, int)):
        return found, {}  # reading them says so
    cached = found.pop("cached_key_length", row + turned), found.pop("cached_value_length", row)
    if cached != (row + turned, row):
        raise file.error(f"caches rows of {cached[0]} and {cached[1]} elements, not {row + turned}")
    found["qk_nope_head_dim"] = width - turned
    if (function := found.pop("scoring_func", None)) != _SIGMOID:
        raise file.error(f"has a router of function {function}, only {_SIGMOID} can be computed")
    if multiplier := found.pop("log_multiplier", 0.0):  # a tenth of the magnitude of all dimensions
        return found, {"mscale": 10 * multiplier, "mscale_all_dim": 10 * multiplier}
    return found, {}
