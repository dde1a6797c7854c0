"""Each key of tokenizer.json and of tokenizer_config.json: used, harmless or refused by name."""

from pathlib import Path
from typing import Any

from cluster.errors import ModelError
from cluster.model.stop_tokens import read_object

# The fields of the `Tokenizer` of the library `tokenizers`.
JSON_USED = {
    "version", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model",
}  # fmt: skip
JSON_HARMLESS = {
    "truncation",
    "padding",
}  # of texts of training: prompts are neither cut nor filled
# The settings of the tokenizer classes of `transformers`.
USED = {
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
    "additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens",
    "added_tokens_decoder", "chat_template", "clean_up_tokenization_spaces",
    "split_special_tokens",
}  # fmt: skip
HARMLESS = {
    # what tokenizer.json says, which holds, as in `transformers`
    "add_bos_token", "add_eos_token", "add_prefix_space", "do_lower_case", "lowercase",
    "do_basic_tokenize", "strip_accents", "tokenize_chinese_chars", "never_split", "keep_accents",
    "remove_space", "legacy", "legacy_behaviour", "errors", "sp_model_kwargs", "vocab_size",
    "spaces_between_special_tokens", "wordpieces_prefix", "trim_offsets", "byte_fallback",
    # lengths, and batches of texts
    "model_max_length", "max_len", "max_length", "stride", "truncation", "truncation_side",
    "truncation_strategy", "padding", "padding_side", "pad_to_multiple_of", "pad_token_type_id",
    "return_token_type_ids", "model_input_names",
    # of the library: which class, which files
    "tokenizer_class", "processor_class", "tokenizer_type", "auto_map", "backend", "name_or_path",
    "_name_or_path", "_commit_hash", "special_tokens_map_file", "tokenizer_file", "vocab_file",
    "merges_file", "spm_file", "use_fast", "from_slow", "transformers_version", "device_map",
    "trust_remote_code", "is_local", "local_files_only", "files_loaded", "verbose", "revision",
    "init_inputs",
    # of what wraps a prompt in another way, or reads an answer
    "use_default_system_prompt", "response_schema", "response_template", "chat_control_tokens",
    "image_seq_len", "image_token_id",
}  # fmt: skip
REFUSED = {  # they change where a text is split, and this reader takes no notice
    "fix_mistral_regex": (False,),
    "src_lang": (), "tgt_lang": (), "language": (), "task": (), "predict_timestamps": (False,),
}  # fmt: skip
_SPECIAL = "_token"  # the end of the name of a special token of a model's own


def check_tokenizer_files(folder: Path) -> None:
    """Raise ModelError for a damaged file, and for a key whose meaning would be ignored."""
    path = folder / "tokenizer.json"
    for key in read_object(path).keys() - JSON_USED - JSON_HARMLESS:
        raise _unknown(path, key)
    path = folder / "tokenizer_config.json"
    for key, value in read_object(path).items():
        if value is None or key in USED | HARMLESS or key.endswith(_SPECIAL):
            continue
        if key not in REFUSED:
            raise _unknown(path, key)
        if value not in REFUSED[key]:
            raise ModelError(str(path), f"sets '{key}' to {value!r}, which is not supported")


def _unknown(path: Path, key: Any) -> ModelError:
    return ModelError(str(path), f"has the key '{key}', which is not known", "remove it")
