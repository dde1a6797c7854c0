"""Weights come out of every format as they were written, in one order and under one name."""

import hashlib
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cluster.errors import ModelError
from cluster.model.gguf_file import GgufFile
from cluster.model.graph.rotary import Rotary
from cluster.model.known import known_model
from cluster.model.weights.files import placed_weights
from cluster.model.weights.gguf import open_gguf, read_header
from cluster.model.weights.safetensors import open_folder
from cluster.model.weights.synthetic import SyntheticWeights
from tests.cluster.model.files import CONFIG, convert, model_of, write_folder

GOLDEN = Path(__file__).parents[2] / "data" / "architectures"
KINDS = ("llama", "qwen2", "qwen3", "gemma", "olmo2")


def equal(one, other) -> bool:
    """Whether two sources give the same arrays for every weight, all rows and some."""
    for place, weight in placed_weights(one.model):
        rows = weight.shape[0]
        for part in (slice(None), slice(rows // 3, rows // 2), slice(1, 1)):
            if not np.array_equal(one.array(place, weight, part), other.array(place, weight, part)):
                return False
    head = one.model.head.weights[-1]
    heads = (source.array("head", head) for source in (one, other))
    rows = (source.embedding_rows([3, 1, 3]) for source in (one, other))
    return np.array_equal(*heads) and np.array_equal(*rows)


@pytest.mark.parametrize("kind", (*KINDS, "mistral"))
@pytest.mark.parametrize("tied", [True, False])
def test_folders_give_what_was_written(kind, tied, tmp_path):
    config = CONFIG | {"model_type": kind, "tie_word_embeddings": tied}
    folder = write_folder(tmp_path, config, shards=2 if tied else 1)
    weights = open_folder(folder, "it")
    assert weights.model == model_of(**config) and not weights.notes
    assert equal(weights, SyntheticWeights(weights.model, seed=5))


@pytest.mark.parametrize("kind", KINDS)
def test_gguf_and_safetensors_of_one_model_give_the_same_arrays(kind, tmp_path):
    names = {"llama": "llama3-rope"}
    folder = GOLDEN / names.get(kind, kind)
    if not folder.exists():
        folder = write_folder(tmp_path / "folder", CONFIG | {"model_type": kind}, dtype=np.float16)
    ours = open_folder(folder, "it")
    theirs = open_gguf(GgufFile(convert(folder, tmp_path / "it.gguf")), "it")
    assert equal(ours, theirs)
    assert theirs.model.parameters == ours.model.parameters
    for one, other in zip(ours.model.layers[0].ops, theirs.model.layers[0].ops, strict=True):
        if isinstance(one, Rotary):
            turns = one.table.theta ** (-np.arange(0, one.table.width, 2) / one.table.width)
            scalings = (one.table.scaling, other.table.scaling)
            scaled = [s.scaled(turns, one.table.theta) if s else turns for s in scalings]
            assert np.allclose(*scaled, rtol=1e-6)


def test_weights_in_another_form_are_refused_by_its_name(tmp_path):
    folder = write_folder(tmp_path, CONFIG)
    quantised = CONFIG | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    (folder / "config.json").write_text(json.dumps(quantised))
    with pytest.raises(ModelError, match="quantised by 'gptq'"):
        open_folder(folder, "it")


def test_bfloat16_is_read_exactly(tmp_path):
    folder = write_folder(tmp_path, CONFIG, dtype=ml_dtypes.bfloat16)
    weights, drawn = open_folder(folder, "it"), SyntheticWeights(model_of(), seed=5)
    wo = next(w for w in weights.model.layers[1].weights if w.name == "wo")
    written = drawn.array(1, wo).astype(ml_dtypes.bfloat16).astype(np.float32)
    assert np.array_equal(weights.array(1, wo), written)


def test_another_head_than_the_tied_one_counts_and_is_mentioned(tmp_path):
    folder = write_folder(tmp_path, CONFIG | {"tie_word_embeddings": True})
    tensors = load_file(folder / "model.safetensors")
    table = tensors["model.embed_tokens.weight"]
    for change, tied in ((0, True), (1, False)):
        save_file(tensors | {"lm_head.weight": table + change}, folder / "model.safetensors")
        weights = open_folder(folder, "it")
        assert weights.model.tied_head == tied and bool(weights.notes) != tied
        head = weights.array("head", weights.model.head.weights[-1])
        assert np.array_equal(head, table + change)


@pytest.mark.parametrize(("change", "message"), [
    ({"num_hidden_layers": 3}, r"has no tensor model.layers.2.input_layernorm.weight"),
    ({"num_hidden_layers": 1}, r"layers.1.* is not part of a llama model"),
    ({"intermediate_size": 71}, r"gate_proj.weight is \[70, 48\], expected \[71, 48\]"),
    ({"model_type": "qwen2"}, "has no tensor model.layers.0.self_attn.q_proj.bias"),
])  # fmt: skip
def test_tensors_that_do_not_fit_are_refused_at_once(change, message, tmp_path):
    folder = write_folder(tmp_path, CONFIG)
    (folder / "config.json").write_text(json.dumps(CONFIG | change))
    with pytest.raises(ModelError, match=message):
        open_folder(folder, "it")


def test_damaged_and_ambiguous_folders_are_refused(tmp_path):
    folder = write_folder(tmp_path, CONFIG, shards=2)
    single = folder / "model.safetensors"
    save_file({"x": np.zeros(1, np.float32)}, single)
    with pytest.raises(ModelError, match=r"has both model.safetensors and"):
        open_folder(folder, "it")
    single.unlink()
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"short")
    with pytest.raises(ModelError, match=r"model-00002.* cannot be read"):
        open_folder(folder, "it")
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match="has no file model-00002"):
        open_folder(folder, "it")


@pytest.mark.parametrize(("change", "message"), [
    ({"llama.block_count": 2**31}, "it must be 1 to 4096"),
    ({"llama.attention.head_count": 0}, "'llama.attention.head_count' is 0"),
    ({"llama.attention.head_count_kv": 4}, "not a multiple"),
    ({"llama.rope.dimension_count": 8}, "rotates only part"),
    ({"llama.attention.value_length": 8}, "another length"),
    ({"llama.rope.scaling.type": "longrope"}, "'longrope'"),
    ({"llama.expert_count": 8}, "'llama.expert_count' is 8"),
    ({"llama.logit_scale": 0.5}, "'llama.logit_scale' is 0.5"),
    ({"llama.attention.sliding_window": 64}, "'llama.attention.sliding_window'"),
    ({"llama.attention.something": 1}, "'llama.attention.something'"),
    ({"general.type": "adapter"}, "of type 'adapter'"),
    ({"split.count": 2}, "part 1 of 2"),
])  # fmt: skip
def test_headers_that_mean_something_else_are_refused_by_name(change, message, tmp_path):
    path = convert(write_folder(tmp_path, CONFIG), tmp_path / "it.gguf", **change)
    with pytest.raises(ModelError, match=message):
        open_gguf(GgufFile(path), "it")


@pytest.mark.parametrize(("change", "kind"), [
    ({"rope.scaling.type": "linear", "rope.scaling.factor": 2.0}, "linear"),
    ({"rope.scale_linear": 2.0}, "linear"),
    ({"rope.scaling.factor": 2.0}, "linear"),
    ({"rope.scaling.type": "none", "rope.scaling.factor": 2.0}, None),
    ({"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0,
      "rope.scaling.original_context_length": 128}, "yarn"),
    ({"rope.scale_linear": 1.0}, None),
])  # fmt: skip
def test_every_spelling_of_rotary_scaling_is_read(change, kind, tmp_path):
    header = {f"llama.{key}": value for key, value in change.items()}
    file = GgufFile(convert(write_folder(tmp_path, CONFIG), tmp_path / "it.gguf", **header))
    (table, *_) = (op.table for op in read_header(file).layers[0].ops if isinstance(op, Rotary))
    assert (table.scaling.kind if table.scaling else None) == kind


def test_random_weights_of_tiny_are_those_that_its_tokens_and_digests_rest_on():
    """The sum of all their bytes as it was when digests were first recorded."""
    weights, total = SyntheticWeights(known_model("tiny")), hashlib.sha256()
    for place, weight in placed_weights(weights.model):
        total.update(weights.array(place, weight).tobytes())
    assert total.hexdigest()[:16] == "60f75e2dbe839d78"
    norm, head = weights.model.head.weights
    assert abs(weights.array("head", norm).mean() - 1) < 0.1
    assert np.array_equal(weights.array("head", head, slice(3, 5)), weights.embedding_rows([3, 4]))
    other = SyntheticWeights(weights.model, seed=1)
    assert not np.array_equal(other.embedding_rows([3]), weights.embedding_rows([3]))


def test_the_fetched_model_has_its_published_shape_and_quantised_rows(smollm2_weights):
    model = smollm2_weights.model
    published = known_model("smollm2-135m")
    assert model.parameters == published.parameters == 134515008
    assert model.layers[29].weights == published.layers[29].weights
    block = smollm2_weights.array("head", model.head.weights[-1], slice(1000, 1040))
    assert block.dtype == np.float32 and block.flags.writeable
    assert np.array_equal(smollm2_weights.embedding_rows([1003, 1039]), block[[3, 39]])


def test_tokens_and_layers_out_of_range_are_refused(tmp_path):
    weights = open_folder(write_folder(tmp_path, CONFIG), "it")
    for token in (-1, 33):
        with pytest.raises(ModelError, match=f"token {token} is not in the vocabulary"):
            weights.embedding_rows([token])
    with pytest.raises(ModelError, match="has no layer 2"):
        weights.array(2, weights.model.layers[0].weights[0])
