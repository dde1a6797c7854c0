import dataclasses

import numpy as np
import pytest

from cluster.errors import ModelError
from cluster.model.gguf_file import GgufFile
from cluster.model.gguf_weights import GgufWeights
from cluster.model.presets import named_spec
from cluster.model.synthetic import TINY, tiny_weights


@pytest.fixture(scope="module")
def tiny(tiny_gguf) -> GgufWeights:
    return GgufWeights(GgufFile(tiny_gguf), "tiny")


def test_spec_comes_from_the_metadata(tiny):
    assert dataclasses.replace(tiny.spec, rms_eps=TINY.rms_eps) == TINY
    assert np.float32(tiny.spec.rms_eps) == np.float32(TINY.rms_eps)


def test_weights_come_back_as_they_were_written(tiny):
    expected = tiny_weights()
    for index in range(TINY.layers):
        for field in dataclasses.fields(expected.layer(index)):
            ours = getattr(tiny.layer(index), field.name)
            assert np.array_equal(ours, getattr(expected.layer(index), field.name)), field.name
    assert np.array_equal(tiny.final_norm, expected.final_norm)
    assert np.array_equal(tiny.head_rows(3, 70), expected.head_rows(3, 70))
    assert np.array_equal(tiny.embedding_rows([5, 5, 0]), expected.embedding_rows([5, 5, 0]))


def test_the_real_model_has_its_published_shape(smollm2_weights):
    published = named_spec("smollm2-135m")
    assert dataclasses.replace(smollm2_weights.spec, rms_eps=published.rms_eps) == published


def test_rows_of_a_quantised_table_equal_the_whole_table(smollm2_weights):
    block = smollm2_weights.head_rows(1000, 1040)
    assert block.dtype == np.float32
    assert block.flags.writeable
    assert np.array_equal(smollm2_weights.embedding_rows([1003, 1039]), block[[3, 39]])


def test_ids_and_layers_out_of_range_are_refused(tiny):
    for token in (-1, TINY.vocab):
        with pytest.raises(ModelError, match=f"token {token} is not in the vocabulary"):
            tiny.embedding_rows([token])
    with pytest.raises(ModelError, match="has no layer 2"):
        tiny.layer(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "mamba"}, "architecture 'mamba'; only 'llama'"),
        ({"drop": ("blk.1.ffn_up",)}, "has no tensor blk.1.ffn_up.weight"),
        ({"llama.block_count": 1}, "tensor blk.1.* is not part of"),
        ({"llama.block_count": 2**31}, "has no tensor blk.2"),
        ({"llama.feed_forward_length": 95}, r"ffn_gate.weight is \[96, 64\], expected \[95, 64\]"),
        ({"llama.attention.head_count": 0}, "0 attention heads"),
        ({"llama.attention.head_count_kv": 3}, "not a multiple"),
        ({"llama.rope.dimension_count": 8}, "rotates only part"),
        ({"llama.rope.scaling.type": "yarn"}, "rotary scaling 'yarn'"),
        ({"llama.expert_count": 8}, "mixture of experts"),
    ],
)
def test_what_we_would_compute_wrongly_is_refused(write_gguf, tmp_path, change, message):
    path = write_gguf(tmp_path / "other.gguf", **change)
    with pytest.raises(ModelError, match=message):
        GgufWeights(GgufFile(path))
