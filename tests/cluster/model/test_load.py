import pytest

from cluster.errors import ModelError, UnknownName
from cluster.model.load import load_model


def test_a_path_and_the_name_of_the_shipped_model_load(tiny_gguf, smollm2_path):
    assert load_model(str(tiny_gguf)).model.hidden.size == 64
    shipped = load_model("smollm2")
    assert shipped.model.name == "smollm2-135m" and shipped.tokenizer.eos > 0


def test_what_cannot_be_loaded_is_refused():
    with pytest.raises(UnknownName, match="did you mean 'smollm2'"):
        load_model("smollm")
    with pytest.raises(ModelError, match="shape only"):
        load_model("llama-2-70b")
    with pytest.raises(ModelError, match="No such file"):
        load_model("absent.gguf")
