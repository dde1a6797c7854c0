"""Rotary scaling by its published formulas, and a folder of odd sizes that runs."""

import json

import numpy as np
import pytest

from cluster.cli import main
from cluster.model.load import load_model
from cluster.model.reference import Reference
from cluster.model.rope import RopeScaling
from tests.cluster.model.files import CONFIG, write_folder

AWKWARD = CONFIG | {"hidden_size": 384, "head_dim": 64, "intermediate_size": 1000}
AWKWARD |= {"vocab_size": 32003}


def test_llama3_scaling_keeps_short_waves_and_stretches_long_ones():
    """Values of the published formula: wavelengths below 2,048 stay, above 8,192 are x 8."""
    waves = np.array([100.0, 2048.0, 4096.0, 8192.0, 1e5])
    scaled = RopeScaling("llama3", 8.0, 8192).scaled(2 * np.pi / waves, 500e3)
    assert np.allclose(2 * np.pi / scaled / waves, [1, 1, 1 / (2 / 3 / 8 + 1 / 3), 8, 8])


def test_yarn_keeps_fast_pairs_and_stretches_slow_ones():
    frequencies = 10000.0 ** (-np.arange(32) / 32)
    ratio = frequencies / RopeScaling("yarn", 4.0, 4096, 1.0, 32.0).scaled(frequencies, 10000.0)
    assert ratio[0] == 1 and np.isclose(ratio[-1], 4) and (np.diff(ratio) >= -1e-12).all()


def test_an_awkward_folder_runs_and_agrees_with_float32(tmp_path, capsys):
    """Odd sizes, two shards, no tokenizer, a head that the config calls tied and that differs."""
    folder = str(write_folder(tmp_path / "awkward", AWKWARD, 2, np.float16))
    config = AWKWARD | {"tie_word_embeddings": True}
    (tmp_path / "awkward" / "config.json").write_text(json.dumps(config))
    arguments = ["run", folder, "--prompt-ids", "1,2,3", "--max-new-tokens", "5", "--json"]
    assert main(arguments) == 0
    output = capsys.readouterr()
    assert "note: the output head is lm_head.weight" in output.err
    report = json.loads(output.out)
    wanted = Reference(load_model(folder).weights, context=16).generate([1, 2, 3], 5)
    assert report["output_ids"] == wanted
    assert report["text"] == " ".join(map(str, wanted))
    assert main(["run", folder, "--prompt", "hello"]) == 2
    assert "has no tokenizer.json; use --prompt-ids" in capsys.readouterr().err


@pytest.mark.parametrize(("change", "message"), [
    ({"model_type": "mamba"}, "is of type 'mamba'; known are"),
    ({"quantization_config": {"quant_method": "gptq"}}, "has weights quantised by 'gptq'"),
    ({"quantization_config": {"quant_method": "awq"}}, "has weights quantised by 'awq'"),
    ({"quantization_config": {"quant_method": "fp8"}}, "has weights quantised by 'fp8'"),
    ({"num_hidden_layers": 3}, "has no tensor model.layers.2."),
])  # fmt: skip
def test_what_cannot_be_read_is_refused_in_one_line(change, message, tmp_path, capsys):
    folder = write_folder(tmp_path / "it", AWKWARD, dtype=np.float16)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert main(["run", str(folder), "--prompt-ids", "1"]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_a_lora_adapter_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "adapter_config.json").write_text("{}")
    assert main(["run", str(tmp_path), "--prompt-ids", "1"]) == 2
    said = capsys.readouterr().err
    assert "holds a LoRA adapter, not a model" in said and said.count("\n") == 1


def test_a_context_is_held_to_before_caches_are_rounded_up(tmp_path, capsys):
    """Caches hold 320 tokens at least; a model of 64 positions is right up to 64."""
    short = {"max_position_embeddings": 64}
    folder = str(write_folder(tmp_path / "short", AWKWARD | short, dtype=np.float16))
    prompt = ",".join(map(str, range(1, 65)))
    for context in ([], ["--context", "64"]):
        arguments = ["run", folder, "--prompt-ids", prompt, "--max-new-tokens", "2", *context]
        assert main(arguments) == 2
        assert "does not fit the context of 64; short takes no more" in capsys.readouterr().err
    assert main(["run", folder, "--prompt-ids", "1", "--context", "400"]) == 2
    assert "--context 400: must be 1 to 64 tokens" in capsys.readouterr().err
