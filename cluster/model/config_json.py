"""A Hugging Face `config.json` as settings, of transformers 4 or 5.

The lists follow the published configuration classes of transformers: PreTrainedConfig, and those
of the architectures that there are files for.
"""

import json
from pathlib import Path
from typing import Any

from cluster.errors import ModelError
from cluster.model.settings import Lists, Settings

# What training, generation, the library itself or a classifier's head would need.
_HARMLESS = """architectures model_type torch_dtype dtype transformers_version _name_or_path
    name_or_path _commit_hash auto_map _attn_implementation _attn_implementation_autoset
    _attn_implementation_internal attn_implementation transformers.js_config is_llama_config
    use_cache cache_implementation output_attentions output_hidden_states return_dict
    return_dict_in_generate torchscript use_bfloat16 tokenizer_class tokenizer_name prefix
    bos_token_id eos_token_id pad_token_id sep_token_id decoder_start_token_id
    forced_bos_token_id forced_eos_token_id unk_token_id image_token_index
    max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty
    temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size
    encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores suppress_tokens
    begin_suppress_tokens exponential_decay_length_penalty remove_invalid_values
    id2label label2id num_labels problem_type task_specific_params finetuning_task
    classifier_dropout classifier_activation pooler_fc_size pooler_num_attention_heads
    pooler_num_fc_layers pooler_size_per_head pooler_type
    is_decoder cross_attention_hidden_size tie_encoder_decoder gradient_checkpointing
    initializer_range initializer_cutoff_factor attention_dropout hidden_dropout
    attention_probs_dropout_prob hidden_dropout_prob embd_pdrop resid_pdrop attn_pdrop
    output_router_logits router_aux_loss_coef router_jitter_noise aux_loss_alpha seq_aux
    num_nextn_predict_layers ep_size pretraining_tp chunk_size_feed_forward
    tf_legacy_loss"""
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "pruned_heads": ({},),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "partial_rotary_factor": (1.0,),
    "rope_interleaved": (False,),
    "position_embedding_type": ("absolute",),
    "clip_qkv": (None,),
    "logit_scale": (1.0,),
    "use_bidirectional_attention": (False,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
}
_QUANTISED = "quantization_config"  # of the weights, and so no matter of the graph
_IN_8_BITS = "fp8"  # its method, of matrices of 8 bits with a scale for each block
_ADAPTER = "adapter_config.json"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; raises ModelError unless it is there and is one."""
    advice = "give a folder with a config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (path.parent / _ADAPTER).exists():
            problem = "holds a LoRA adapter, not a model"
            advice = "merge it into its base model first"
            raise ModelError(str(path.parent), problem, advice) from None
        raise ModelError(str(path), "does not exist", advice) from None
    except (OSError, ValueError, RecursionError) as error:
        problem = f"cannot be read: {error}"
        raise ModelError(str(path), problem, "it must be a JSON object") from error
    if not isinstance(found, dict):
        raise ModelError(str(path), "is no JSON object")
    return found


def check_unquantised(
    source: str, values: dict[str, Any], known: frozenset[str] = frozenset()
) -> None:
    """Raise ModelError where the weights beside a config are in some form that is not `known`."""
    quantised = values.get(_QUANTISED)
    if quantised is not None:
        how = quantised.get("quant_method", "?") if isinstance(quantised, dict) else quantised
        if how in known:
            return
        problem = f"has weights quantised by '{how}' ({_QUANTISED})"
        raise ModelError(source, problem, "give them as fp16, bf16 or fp32")


def in_8_bits(settings: Settings) -> bool:
    """Whether a config says that the matrices beside it are published in 8 bits."""
    quantised = settings.kept(_QUANTISED)
    return isinstance(quantised, dict) and quantised.get("quant_method") == _IN_8_BITS


def of_text(values: dict[str, Any], text: dict[str, Any]) -> dict[str, Any]:
    """The table of the model for text in a config of several, with how all are quantised."""
    return {_QUANTISED: values.get(_QUANTISED)} | text


def json_settings(
    source: str, values: dict[str, Any], extra: frozenset[str] = frozenset()
) -> Settings:
    """The settings of a config that has been read."""
    return Settings(source, values, Lists(extra.union(_HARMLESS.split(), (_QUANTISED,)), _NEUTRAL))
