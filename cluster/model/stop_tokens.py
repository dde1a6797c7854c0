"""generation_config.json: which tokens end a generation, and what else the file asks for."""

import json
from pathlib import Path
from typing import Any

from cluster.errors import ModelError

# Each key that transformers' GenerationConfig has is in one of three lists; a key in none is
# refused by name.
USED = {"eos_token_id"}
HARMLESS = {
    # sampling and lengths: the command line sets them (`--temperature`, `--max-new-tokens`, ...)
    "do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff",
    "eta_cutoff", "max_length", "max_new_tokens", "max_time", "num_return_sequences",
    "repetition_penalty",
    # how a library computes, stores or returns, not what
    "_from_model_config", "transformers_version", "use_cache", "cache_implementation",
    "cache_config", "max_cache_len", "assistant_ensemble_weight", "speculation_type",
    "return_dict_in_generate", "output_attentions", "output_hidden_states",
    "output_scores", "output_logits", "compile_config", "disable_compile", "low_memory",
    "return_legacy_cache", "prefill_chunk_size", "continuous_batching_config",
    "remove_invalid_values", "renormalize_logits", "is_assistant", "num_assistant_tokens",
    "num_assistant_tokens_schedule", "assistant_confidence_threshold", "assistant_early_exit",
    "assistant_lookbehind", "target_lookbehind", "prompt_lookup_num_tokens",
    "max_matching_ngram_size", "use_mtp", "token_healing",
    # of beams, which need num_beams; of encoders; of other tokens than those that end a text
    "early_stopping", "length_penalty", "diversity_penalty", "num_beam_groups", "bos_token_id",
    "pad_token_id", "decoder_start_token_id", "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
}  # fmt: skip
REFUSED = {  # they change which tokens come; the values beside them do not
    "num_beams": (1,), "penalty_alpha": (0.0,), "dola_layers": (), "min_length": (0,),
    "min_new_tokens": (0,), "no_repeat_ngram_size": (0,), "bad_words_ids": (),
    "force_words_ids": (), "constraints": (), "forced_bos_token_id": (),
    "forced_eos_token_id": (), "suppress_tokens": ([],), "begin_suppress_tokens": ([],),
    "sequence_bias": ([], {}), "guidance_scale": (1, 1.0), "watermarking_config": (),
    "stop_strings": ([],), "exponential_decay_length_penalty": (),
}  # fmt: skip


def stop_tokens(folder: Path) -> frozenset[int]:
    """Return the ids that end a generation: of generation_config.json, or else of config.json.

    Raises ModelError for an id that is none, and for settings that would be ignored.
    """
    path = folder / "generation_config.json"
    generation = read_object(path)
    _check(path, generation)
    if generation.get("eos_token_id") is not None:
        return _ids(path, generation["eos_token_id"])
    path = folder / "config.json"
    return _ids(path, read_object(path).get("eos_token_id"))


def _check(path: Path, generation: dict[str, Any]) -> None:
    for key, value in generation.items():
        if value is None or key in USED | HARMLESS:
            continue
        if key not in REFUSED:
            raise ModelError(str(path), f"has the key '{key}', which is not known", "remove it")
        if value not in REFUSED[key]:
            problem = f"sets '{key}' to {json.dumps(value)}, which is not supported"
            raise ModelError(str(path), problem, "remove it")


def _ids(path: Path, found: Any) -> frozenset[int]:
    ids = found if isinstance(found, list) else [] if found is None else [found]
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, int) or token < 0:
            problem = f"eos_token_id {json.dumps(found)} is neither a token id nor a list of them"
            raise ModelError(str(path), problem, "correct it")
    return frozenset(ids)


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, an empty one where there is no file.

    Raises ModelError for anything else.
    """
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(str(path), f"cannot be read ({error})") from error
    if not isinstance(found, dict):
        raise ModelError(str(path), f"holds a {type(found).__name__}, not an object")
    return found
