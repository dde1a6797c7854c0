"""Encoders whose int8 activations have steps that are known before."""

import json

import numpy as np
import pytest

from chip.spec import GROQCHIP1
from cluster.cli import main
from cluster.compiler.limits import STATIC, check_weights
from cluster.encoders.calibration import SENTENCES, steps_of
from cluster.encoders.embedding import Characters
from cluster.encoders.encoding import embed
from cluster.errors import BadValue
from cluster.model.encoders import encoder
from cluster.model.known import known_model
from cluster.model.reference import Reference
from tests.cluster.test_embedding import ODD, TINY, encodings

IDS = [5, 3, 41, 3, 17, 20, 1]
EMBED = ["embed", "tiny-encoder", "--text", "one", "--json"]


def embedded(model, chips):
    """What chips say of IDS, and the weights."""
    lowered, machine = encodings(model, range(chips), kind=STATIC)
    return embed(lowered, machine, IDS)[0], lowered.weights


@pytest.mark.parametrize("model", [TINY, ODD], ids=["one block", "two blocks"])
def test_chips_round_by_known_steps_as_the_reference_does(model):
    found, weights = embedded(model, 1)
    exact = Reference(weights, 32, exact=True, fixed=True).forward(IDS)
    float32 = Reference(weights, 32).forward(IDS)
    assert found @ exact > 0.99999 and 0.998 < found @ float32 < 0.9999999
    # a norm makes what the next layer multiplies, on its chip or on the next one
    np.testing.assert_array_equal(embedded(model, 2)[0], found)


def test_steps_leave_room_and_even_out_what_differs():
    random = np.random.default_rng(3)
    rows = random.standard_normal((50, 64)).astype(np.float32)
    matrices = [random.standard_normal((32, 64)).astype(np.float32) for _ in range(2)]
    rows[:, 7] *= 100
    steps = steps_of(rows, matrices)
    largest = np.abs(rows / steps).max(axis=0)
    assert 100 < largest.max() < 127 / 1.2  # a quarter more would still fit
    assert largest[7] == largest.max() and np.median(largest) > 20  # others keep their bits
    assert np.isfinite(steps_of(np.zeros_like(rows), matrices)).all()


def test_the_command_calibrates_by_our_sentences_or_by_a_file(tmp_path, capsys):
    file = tmp_path / "sentences.txt"
    file.write_text("one\n\ntwo, and three\n")
    lines = {
        "int8": ["--weights", "int8"],
        "ours": ["--weights", STATIC],
        "theirs": ["--weights", STATIC, "--calibration", str(file)],
    }
    reports = {}
    for name, line in lines.items():
        assert main([*EMBED, *line, "--check"]) == 0
        reports[name] = json.loads(capsys.readouterr().out)
    cycles = {name: report["emulated"]["cycles"] for name, report in reports.items()}
    assert cycles["ours"] == cycles["theirs"] < cycles["int8"]
    assert reports["ours"]["plan"]["weights"] == STATIC
    assert reports["ours"]["embeddings"] != reports["theirs"]["embeddings"]
    assert all(len(Characters().ids(text)) > 0 for text in SENTENCES)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        (b"\n \n", "holds no sentence"),
        (b"caf\xe9\n", "is not UTF-8"),
        (b"a\0b\n", "NUL"),
    ],
)
def test_a_bad_file_of_sentences_is_one_line(content, says, tmp_path, capsys):
    path = tmp_path / "sentences.txt"
    if content is not None:
        path.write_bytes(content)
    assert main([*EMBED, "--weights", STATIC, "--calibration", str(path)]) == 2
    error = capsys.readouterr().err
    assert says in error and "--calibration" in error and error.strip().count("\n") == 0


def test_known_steps_are_for_encoders(tmp_path, capsys):
    with pytest.raises(BadValue, match="is for encoders, tiny is a decoder"):
        check_weights(known_model("tiny"), GROQCHIP1, STATIC)
    check_weights(encoder("bert-base"), GROQCHIP1, STATIC)
    assert main([*EMBED, "--weights", "int8", "--calibration", str(tmp_path)]) == 2
    assert "is for --weights int8-static" in capsys.readouterr().err
