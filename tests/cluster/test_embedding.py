"""Encoders on emulated chips against their float32 reference."""

import json

import numpy as np
import pytest

from chip.spec import GROQCHIP1
from cluster.cli import main
from cluster.encoders.encoding import LENGTHS, embed, lower_encoder, plan_encoder
from cluster.errors import BadValue, DoesNotFit, ModelError, UnknownName
from cluster.machines.machine import LocalMachine
from cluster.model import bert_reference
from cluster.model.bert import (
    EncoderSpec,
    RandomEncoder,
    SafetensorsEncoder,
    encoder_spec,
)
from topology import parse

TINY = encoder_spec("tiny-encoder")
# more than one block of hidden and of ffn, two rows of heads, and a layer count that 2 divides not
ODD = EncoderSpec("odd", 3, 384, 6, 352, 50, 1e-12, 40)


def encodings(spec, chips, tokens=32, topology="node"):
    """The lowered encoder on a loaded machine."""
    weights, graph = RandomEncoder(spec), parse(topology)
    plan = plan_encoder(spec, GROQCHIP1, len(chips), tokens)
    encoding = lower_encoder(plan, chips, graph, weights)
    machine = LocalMachine()
    machine.load(encoding, lambda what, done, total: None)
    return encoding, machine


@pytest.mark.parametrize(
    ("spec", "chips", "topology"),
    [(TINY, [0], "node"), (TINY, [5, 2], "node"), (ODD, [0, 2], "ring:4")],
    ids=["one chip", "two chips", "two chips with a third between them"],
)
def test_embeddings_agree_with_the_reference(spec, chips, topology):
    encoding, machine = encodings(spec, chips, topology=topology)
    random = np.random.default_rng(1)
    for length in (1, 31, 32, 7):  # a short one after a long one: old keys must not be seen
        ids = random.integers(0, spec.vocab, length).tolist()
        vector, cycles, result = embed(encoding, machine, ids)
        expected = bert_reference.embed(encoding.weights, ids)
        assert vector @ expected > 0.99999
        np.testing.assert_allclose(vector, expected, atol=2e-3)
        assert cycles == max(encoding.launches["encode@32"].end_cycles.values())
        assert result.end_cycle == cycles


def test_a_sequence_uses_the_shortest_program_that_holds_it():
    encoding, machine = encodings(TINY, [0], tokens=40)
    assert sorted(encoding.launches) == ["encode@32", "encode@64"]
    short, long = (embed(encoding, machine, [1] * n)[1] for n in (32, 33))
    assert short < long


def test_what_cannot_be_is_said(tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'bert-base'"):
        encoder_spec("bert-bse")
    with pytest.raises(BadValue, match="must be 1 to 64"):
        plan_encoder(TINY, GROQCHIP1, 1, 65)
    with pytest.raises(BadValue, match="1 to 2, the layers"):
        plan_encoder(TINY, GROQCHIP1, 3, 8)
    with pytest.raises(DoesNotFit, match="use more chips"):
        plan_encoder(encoder_spec("bert-large"), GROQCHIP1, 1, 32)
    encoding, machine = encodings(TINY, [0])
    with pytest.raises(BadValue, match="33 tokens: must be 1 to 32"):
        embed(encoding, machine, [1] * 33)
    broken = tmp_path / "model.safetensors"
    broken.write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="cannot be read"):
        SafetensorsEncoder(broken, TINY)
    with pytest.raises(ModelError, match="multiple of 8"):
        EncoderSpec("x", 1, 60, 4, 8, 8, 1e-12, 8).check()


def test_a_checkpoint_gives_the_arrays_it_was_written_with(tmp_path):
    from safetensors.numpy import save_file

    source, path = RandomEncoder(TINY, seed=3), tmp_path / "model.safetensors"
    arrays = {}
    for index in range(TINY.layers):
        arrays |= {f"encoder.layer.{index}.{n}": a for n, a in source.layer(index).items()}
    weight, bias = source.embedding_norm
    arrays |= {"embeddings.LayerNorm.weight": weight, "embeddings.LayerNorm.bias": bias}
    for name, rows in (("word", TINY.vocab), ("position", TINY.tokens_max), ("token_type", 2)):
        shape = (rows, TINY.hidden)
        arrays[f"embeddings.{name}_embeddings.weight"] = np.full(shape, rows, np.float32)
    save_file(arrays, str(path))
    read = SafetensorsEncoder(path, TINY)
    assert all((read.layer(1)[n] == a).all() for n, a in source.layer(1).items())
    assert (read.embeddings([3, 4]) == TINY.vocab + TINY.tokens_max + 2).all()
    wrong = SafetensorsEncoder(path, ODD)
    with pytest.raises(ModelError, match=r"is \[64, 64\], expected \[384, 384\]"):
        wrong.layer(0)
    with pytest.raises(ModelError, match="has no tensor"):
        read.layer(7)


def test_the_command_checks_itself(capsys):
    words = ["embed", "tiny-encoder", "--text", "one", "--text", "another", "--check", "--json"]
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] and min(report["reference"]) > 0.999
    assert report["tokens"] == [3, 7] and len(report["embeddings"][0]) == TINY.hidden
    assert main(words[:-1]) == 0
    assert "cosine to the float32 reference" in capsys.readouterr().out
    assert main(["embed", "bert-base", "--text", "x"]) == 2
    assert "shape only" in capsys.readouterr().err
    assert main(["embed", "tiny-encoder", "--text", "x" * 300]) == 2
    assert "has 300 tokens" in capsys.readouterr().err


def test_lengths_fit_the_accumulators():
    assert max(LENGTHS) <= GROQCHIP1.accumulator_depth
