"""The interpreter says what a public library says of the same weights (tests/data)."""

import json
from pathlib import Path

import numpy as np
import pytest

from cluster.model.reference import Reference
from cluster.model.weights.safetensors import open_folder

GOLDEN = Path(__file__).parents[2] / "data" / "architectures"
NAMES = [path.name for path in sorted(GOLDEN.iterdir())]
UNSURE = 0.05  # margin of the top token below which another may win


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tp", [1, 4])
def test_logits_and_tokens_are_those_of_the_library(name, tp):
    reference = Reference(open_folder(GOLDEN / name, name), 64, tp)
    for case in json.loads((GOLDEN / name / "golden.json").read_text())["cases"]:
        reference.reset()
        logits = [reference.forward(case["prompt_ids"])]
        for token in case["output_ids"][:-1]:
            logits.append(reference.forward([token]))
        assert np.abs(logits[0] - case["first_logits"]).max() < 1e-4
        assert np.abs(logits[-1] - case["last_logits"]).max() < 1e-4
        for found, token, margin in zip(
            logits, case["output_ids"], case["top1_margin"], strict=True
        ):
            assert found.argmax() == token or margin < UNSURE


@pytest.mark.parametrize("name", NAMES)
def test_int8_stays_near_the_library(name):
    reference = Reference(open_folder(GOLDEN / name, name), 64, tp=4, exact=True)
    for case in json.loads((GOLDEN / name / "golden.json").read_text())["cases"]:
        reference.reset()
        wanted = np.array(case["first_logits"])
        error = reference.forward(case["prompt_ids"]) - wanted
        assert np.sqrt(np.square(error).mean()) < 0.05 * np.sqrt(np.square(wanted).mean())
