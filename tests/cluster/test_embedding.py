"""Encoders on emulated chips against their float32 reference."""

import json

import numpy as np
import pytest

from chip.spec import GROQCHIP1
from cluster.cli import main
from cluster.compiler.limits import STATIC
from cluster.encoders.calibration import calibrated
from cluster.encoders.encoding import LENGTHS, embed, launch_kind, lower_encoder, plan_encoder
from cluster.errors import BadValue, DoesNotFit, ModelError, UnknownName
from cluster.machines.machine import LocalMachine
from cluster.model.architectures.bert import ARCHITECTURE
from cluster.model.encoders import encoder, encoder_of
from cluster.model.reference import Reference
from cluster.model.weights.files import FileWeights, placed_weights
from cluster.model.weights.safetensors import Shards
from cluster.model.weights.synthetic import SyntheticWeights
from topology import parse

TINY = encoder("tiny-encoder")
FOUR = encoder_of("four", 4, 64, 4, 96, 50, 40)
# more than one block of hidden and of ffn, two rows of heads, and a layer count that 2 divides not
ODD = encoder_of("odd", 3, 384, 6, 352, 50, 40)


def encodings(model, chips, tokens=32, topology="node", kind="fp16"):
    """The lowered encoder on a loaded machine; fixed steps follow from some random sentences."""
    weights, graph = SyntheticWeights(model), parse(topology)
    if kind == STATIC:
        random = np.random.default_rng(2)
        weights = calibrated(weights, [random.integers(0, 50, n) for n in (3, 20, 31)])
    plan = plan_encoder(model, GROQCHIP1, len(chips), tokens, kind)
    lowered = lower_encoder(plan, chips, graph, weights)
    machine = LocalMachine()
    machine.load(lowered, lambda what, done, total: None)
    return lowered, machine


@pytest.mark.parametrize(
    ("model", "chips", "topology"),
    [(TINY, [0], "node"), (FOUR, [5, 2, 3, 1], "node"), (ODD, [0, 2], "ring:4")],
    ids=["one chip", "four stages", "two chips with a third between them"],
)
def test_embeddings_agree_with_the_reference(model, chips, topology):
    lowered, machine = encodings(model, chips, topology=topology)
    random, reference = np.random.default_rng(1), Reference(lowered.weights, 32)
    for length in (1, 31, 32, 7):  # a short one after a long one: old keys must not be seen
        ids = random.integers(0, model.vocab, length).tolist()
        vector, cycles, result = embed(lowered, machine, ids)
        reference.reset()
        expected = reference.forward(ids)
        assert vector @ expected > 0.99999
        np.testing.assert_allclose(vector, expected, atol=2e-3)
        assert cycles == max(lowered.launches[str(launch_kind(32))].end_cycles.values())
        assert result.end_cycle == cycles


def test_a_sequence_uses_the_shortest_program_that_holds_it():
    lowered, machine = encodings(TINY, [0], tokens=40)
    assert list(lowered.launches) == [str(launch_kind(32)), str(launch_kind(64))]
    short, long = (embed(lowered, machine, [1] * n)[1] for n in (32, 33))
    assert short < long


def test_what_cannot_be_is_said(tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'bert-base'"):
        encoder("bert-bse")
    with pytest.raises(BadValue, match="must be 1 to 64"):
        plan_encoder(TINY, GROQCHIP1, 1, 65)
    with pytest.raises(BadValue, match="1 to 2, the layers"):
        plan_encoder(TINY, GROQCHIP1, 3, 8)
    with pytest.raises(DoesNotFit, match="use more chips"):
        plan_encoder(encoder("bert-large"), GROQCHIP1, 1, 32)
    lowered, machine = encodings(TINY, [0])
    with pytest.raises(BadValue, match="33 tokens: must be 1 to 32"):
        embed(lowered, machine, [1] * 33)
    with pytest.raises(BadValue, match="multiple of 8"):
        plan_encoder(encoder_of("x", 1, 60, 5, 8, 8, 8), GROQCHIP1, 1, 8)
    with pytest.raises(BadValue, match="at most 256"):
        plan_encoder(encoder_of("x", 1, 264, 1, 8, 8, 8), GROQCHIP1, 1, 8)
    with pytest.raises(ModelError, match="not a multiple of 7 heads"):
        encoder_of("x", 1, 60, 7, 8, 8, 8)


def test_a_checkpoint_gives_the_arrays_it_was_written_with(tmp_path):
    from safetensors.numpy import save_file

    source, tensors = SyntheticWeights(TINY, seed=3), ARCHITECTURE.safetensors
    arrays = {tensors.tensor(p, w.name): source.array(p, w) for p, w in placed_weights(TINY)}
    assert arrays["encoder.layer.1.attention.output.LayerNorm.bias"].shape == (64,)
    pooler = {"pooler.dense.weight": np.ones((2, 2), np.float32)}  # read by none
    save_file(arrays | pooler, str(tmp_path / "model.safetensors"))
    read = FileWeights(TINY, Shards(tmp_path), tensors)
    for place, weight in placed_weights(TINY):
        np.testing.assert_array_equal(read.array(place, weight), source.array(place, weight))
    np.testing.assert_array_equal(read.embedding_rows([3, 4]), source.embedding_rows([3, 4]))
    with pytest.raises(ModelError, match=r"is \[128, 64\], expected \[50, 384\]"):
        FileWeights(ODD, Shards(tmp_path), tensors)


def test_the_command_checks_itself(capsys):
    words = ["embed", "tiny-encoder", "--text", "one", "--text", "another", "--check", "--json"]
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] and min(report["reference"]) > 0.999
    assert report["tokens"] == [3, 7] and len(report["embeddings"][0]) == TINY.hidden.size
    assert main(words[:-1]) == 0
    assert "cosine to the float32 reference" in capsys.readouterr().out
    assert main(["embed", "bert-base", "--text", "x"]) == 2
    assert "shape only" in capsys.readouterr().err
    assert main(["embed", "tiny-encoder", "--text", "x" * 300]) == 2
    assert "has 300 tokens" in capsys.readouterr().err


def test_lengths_fit_the_accumulators():
    assert max(LENGTHS) <= GROQCHIP1.accumulator_depth
