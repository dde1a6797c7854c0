import dataclasses

import numpy as np
import pytest

from cluster.errors import ModelError, UnknownName
from cluster.model.presets import NAMES, named_spec
from cluster.model.spec import LayerWeights, permute_rotary
from cluster.model.synthetic import TINY, tiny_weights

BILLIONS = {"llama-2-7b": 6.74, "llama-2-13b": 13.02, "llama-2-70b": 68.98, "llama-3-8b": 8.03}
# Mixtures of experts as their reports count them: total, with every expert.
BILLIONS |= {"mixtral-8x7b": 46.70, "qwen3-235b": 235.09, "deepseek-v3": 671.03}


@pytest.mark.parametrize("name", NAMES)
def test_every_named_shape_is_sound(name):
    assert named_spec(name).check()
    assert named_spec(name.upper()) == named_spec(name)


@pytest.mark.parametrize(("name", "billions"), BILLIONS.items())
def test_parameter_counts_are_the_published_ones(name, billions):
    assert named_spec(name).parameters() / 1e9 == pytest.approx(billions, abs=0.005)


def test_layer_shapes_name_the_fields_of_layer_weights():
    everything = dataclasses.replace(TINY, qkv_bias=True, qk_norm=True)
    names = [field.name for field in dataclasses.fields(LayerWeights)]
    assert list(everything.layer_shapes()) == names


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'smollm2'"):
        named_spec("smolm2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers is 0"),
        ({"rms_eps": -1.0}, "rms_eps is -1.0"),
        ({"kv_heads": 3}, "not a multiple"),
        ({"head_dim": 15}, "odd"),
    ],
)
def test_impossible_shapes_are_refused(change, message):
    with pytest.raises(ModelError, match=message):
        dataclasses.replace(TINY, **change).check()


def test_a_misshapen_or_mistyped_array_is_refused():
    layer = tiny_weights().layer(0)
    with pytest.raises(ModelError, match="wq"):
        dataclasses.replace(layer, wq=layer.wk).check(TINY)
    with pytest.raises(ModelError, match="float64"):
        dataclasses.replace(layer, wo=layer.wo.astype(float)).check(TINY)


def test_permute_puts_rotary_partners_side_by_side():
    """Rows 0, 1, 2 pair with 3, 4, 5 in each head of a Hugging Face checkpoint."""
    rows = np.arange(12)[:, None]
    assert permute_rotary(rows, heads=2)[:, 0].tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
