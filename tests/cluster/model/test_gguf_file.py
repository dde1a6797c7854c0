import shutil
from functools import partial

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.errors import ModelError
from cluster.model.gguf_file import GgufFile
from cluster.model.gguf_tokenizer import read_gguf_tokenizer
from cluster.model.tokenizer import fast_tokenizer_class
from cluster.model.weights.files import placed_weights
from cluster.model.weights.gguf import open_gguf

fast_tokenizer_class()  # imported before the clock of any example runs


def use_all_of(path):
    """Read everything a run would read, so that damage anywhere has its chance to show."""
    file = GgufFile(path)
    weights = open_gguf(file)
    for place, weight in placed_weights(weights.model):
        weights.array(place, weight)
    read_gguf_tokenizer(file).encode_prompt("the end")


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert "damaged.gguf" in text
    return text


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model at all" * 99])
def test_a_file_that_is_no_gguf_is_refused(tmp_path, content):
    path = tmp_path / "damaged.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError) as error:
        GgufFile(path)
    assert "lpu fetch" not in one_line(error)


def test_only_a_file_of_ours_is_to_be_fetched_again(tmp_path, monkeypatch):
    monkeypatch.setenv("LPU_CACHE", str(tmp_path))
    (tmp_path / "damaged.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError) as error:
        GgufFile(tmp_path / "damaged.gguf")
    assert "lpu fetch smollm2" in one_line(error)


def test_sound_files_of_other_kinds_are_not_called_damaged(write_gguf, tmp_path, monkeypatch):
    part = write_gguf(tmp_path / "part.gguf", **{"split.count": 3, "split.no": 1})
    with pytest.raises(ModelError, match=r"is part 2 of 3 .*llama-gguf-split --merge"):
        GgufFile(part)
    whole = write_gguf(tmp_path / "whole.gguf", **{"split.count": 1, "split.no": 0})
    use_all_of(whole)
    big = partial(gguf.GGUFWriter, endianess=gguf.GGUFEndian.BIG)
    monkeypatch.setattr(gguf, "GGUFWriter", big)
    path = write_gguf(tmp_path / "big.gguf")
    with pytest.raises(ModelError, match=r"is big-endian; .*converts it"):
        GgufFile(path)


def test_an_absent_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ModelError, match="No such file"):
        GgufFile(tmp_path / "absent.gguf")
    with pytest.raises(ModelError, match="directory"):
        GgufFile(tmp_path)


def test_a_truncated_file_is_refused_wherever_it_ends(tiny_gguf, tmp_path):
    whole = tiny_gguf.read_bytes()
    path = tmp_path / "damaged.gguf"
    for size in [*range(0, 300, 7), *range(300, len(whole) - 1, len(whole) // 150), -33]:
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError) as error:
            use_all_of(path)
        one_line(error)


@pytest.mark.parametrize("megabytes", [0.001, 0.5, 1.7, 20])
def test_the_real_model_truncated_is_refused(smollm2_path, tmp_path, megabytes):
    path = tmp_path / "damaged.gguf"
    with smollm2_path.open("rb") as source:
        path.write_bytes(source.read(int(megabytes * 2**20)))
    with pytest.raises(ModelError) as error:
        GgufFile(path)
    one_line(error)


@settings(max_examples=300, deadline=2000, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_flipped_bytes_give_one_line_or_still_load(data, tiny_gguf, tmp_path):
    """The header is where damage could hang, exhaust memory or crash; 4 bytes hit whole counts."""
    content = bytearray(tiny_gguf.read_bytes())
    header = GgufFile(tiny_gguf).first_tensor_offset
    where = data.draw(st.integers(0, header - 4))
    new = data.draw(st.binary(min_size=1, max_size=4))
    content[where : where + len(new)] = new
    path = tmp_path / "damaged.gguf"
    path.write_bytes(content)
    try:
        use_all_of(path)
    except ModelError as error:
        assert "\n" not in str(error)


def test_not_a_number_among_the_weights_is_refused(tiny_gguf, tmp_path):
    path = shutil.copy(tiny_gguf, tmp_path / "damaged.gguf")
    offset = GgufFile(path).first_tensor_offset
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(np.float32(np.nan).tobytes())
    with pytest.raises(ModelError, match="NaN"):
        use_all_of(path)


def test_overlapping_tensors_are_refused(tiny_gguf, tmp_path):
    content = tiny_gguf.read_bytes()
    at = content.index(b"output_norm.weight") + len(b"output_norm.weight") + 4 + 8 + 4
    path = tmp_path / "damaged.gguf"
    path.write_bytes(content[:at] + bytes(8) + content[at + 8 :])
    with pytest.raises(ModelError, match="overlaps"):
        GgufFile(path)


def test_values_come_as_the_type_asked_for(tiny_gguf):
    file = GgufFile(tiny_gguf)
    assert file.value("llama.block_count", int) == 2
    assert file.value("llama.block_count", float) == 2.0
    assert file.value("absent", str, "default") == "default"
    with pytest.raises(ModelError, match="is int, expected str"):
        file.value("llama.block_count", str)
    with pytest.raises(ModelError, match="has no 'absent'"):
        file.value("absent", str)


def test_our_quick_reading_equals_that_of_the_gguf_package(tiny_gguf):
    ours, theirs = GgufFile(tiny_gguf), gguf.GGUFReader(tiny_gguf)
    for key in theirs.fields:
        expected = theirs.fields[key].contents()
        assert ours.value(key, type(expected)) == expected
    assert ours.tensor_names() == {tensor.name for tensor in theirs.tensors}
    for tensor in theirs.tensors:
        assert np.array_equal(ours.rows(tensor.name), tensor.data)
