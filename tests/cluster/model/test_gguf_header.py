"""Every key that the public GGUF definition has is used, harmless, neutral or refused by name."""

import inspect

import gguf
import numpy as np
import pytest

from cluster.errors import ModelError
from cluster.model.gguf_file import GgufFile
from cluster.model.gguf_header import HARMLESS, NEUTRAL, USED
from cluster.model.weights.gguf import read_header

HEADER = {
    "block_count": 2, "context_length": 64, "embedding_length": 48, "feed_forward_length": 70,
    "attention.head_count": 6, "attention.head_count_kv": 2, "vocab_size": 33,
    "attention.layer_norm_rms_epsilon": 1e-5,
}  # fmt: skip


def public_keys() -> list[str]:
    """Those of llama.cpp's constants that are about a model, behind its architecture's name."""
    found = []
    classes = [gguf.Keys]
    for one in classes:
        classes += [value for _, value in inspect.getmembers(one, inspect.isclass)
                    if value not in classes and value is not type]  # fmt: skip
        texts = (value for name, value in vars(one).items() if isinstance(value, str))
        found += [text.removeprefix("{arch}.") for text in texts if text.startswith("{arch}.")]
    return sorted(set(found))


def header_file(path, **fields):
    writer = gguf.GGUFWriter(path, fields.pop("architecture", "llama"))
    for key, value in (HEADER | fields).items():
        add = {str: writer.add_string, float: writer.add_float32, bool: writer.add_bool}
        name = key if key.startswith("general.") else f"{writer.arch}.{key}"
        add.get(type(value), writer.add_uint32)(name, value)
    writer.add_tensor("token_embd.weight", np.zeros((33, 48), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return GgufFile(path)


def test_there_are_many_public_keys_and_ours_are_among_them():
    assert len(public_keys()) > 80
    assert set(HEADER) <= set(public_keys()) and set(HEADER) <= USED


@pytest.mark.parametrize("key", [key for key in public_keys() if key not in USED])
def test_a_key_that_is_not_used_is_harmless_neutral_or_refused_by_name(key, tmp_path):
    path = tmp_path / "it.gguf"
    if key in HARMLESS:
        assert read_header(header_file(path, **{key: 7}))
        return
    with pytest.raises(ModelError, match=f"'llama.{key}'"):
        read_header(header_file(path, **{key: 7}))
    if key in NEUTRAL:
        assert read_header(header_file(path, **{key: NEUTRAL[key][0]}))


def test_general_keys_say_what_a_file_is(tmp_path):
    fields = {"general.name": "Some Model", "general.license": "none", "general.file_type": 1}
    assert read_header(header_file(tmp_path / "a.gguf", **fields)).name == "Some Model"
    with pytest.raises(
        ModelError, match="of architecture 'mamba'; known are deepseek2, gemma, gpt-oss"
    ):
        read_header(header_file(tmp_path / "b.gguf", architecture="mamba"))
    with pytest.raises(ModelError, match="of type 'mmproj', not a model"):
        read_header(header_file(tmp_path / "c.gguf", **{"general.type": "mmproj"}))
