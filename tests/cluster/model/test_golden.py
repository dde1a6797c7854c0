"""Models of a public library, read by their architectures and interpreted: equal tokens and logits.

tests/data/architectures holds tiny random models with prompts, greedy tokens, their margins and
logits in float32, made with transformers; tests/data/yarn-mscale one with a YaRN setting.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from cluster.model.reference import Reference
from cluster.model.weights.safetensors import open_folder

DATA = Path(__file__).parents[2] / "data"
CLOSE = 0.05  # a margin that another order of sums may turn


def tokens_until_close(case: dict) -> list[int]:
    margins = [margin < CLOSE for margin in case["top1_margin"]]
    return case["output_ids"][: margins.index(True) if any(margins) else None]


# Of the logits' root mean square; int8 sends some tokens of gpt-oss to other experts.
INT8_ERROR = {"gpt-oss": 0.12}
NAMES = [path.name for path in sorted((DATA / "architectures").iterdir())]


def cases_of(name: str) -> list[dict]:
    return json.loads((DATA / "architectures" / name / "golden.json").read_text())["cases"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tp", [1, 4])
def test_tokens_and_logits_are_the_public_librarys(name, tp):
    reference = Reference(open_folder(DATA / "architectures" / name, name), 64, tp)
    for case in cases_of(name):
        reference.reset()
        first = reference.forward(case["prompt_ids"])
        assert np.abs(first - case["first_logits"]).max() < 1e-3
        last = reference.rows(case["output_ids"][:-1])[-1]
        assert np.abs(last - case["last_logits"]).max() < 1e-3
        wanted = tokens_until_close(case)
        assert reference.generate(case["prompt_ids"], len(wanted)) == wanted


@pytest.mark.parametrize("name", NAMES)
def test_int8_stays_near_the_public_library(name):
    folder = DATA / "architectures" / name
    reference = Reference(open_folder(folder, name), 64, tp=4, exact=True)
    for case in cases_of(name):
        reference.reset()
        wanted = np.array(case["first_logits"])
        error = reference.forward(case["prompt_ids"]) - wanted
        limit = INT8_ERROR.get(name, 0.05) * np.sqrt(np.square(wanted).mean())
        assert np.sqrt(np.square(error).mean()) < limit


def test_yarn_with_equal_magnitudes_gives_the_public_librarys_tokens():
    case = json.loads((DATA / "yarn-mscale" / "golden.json").read_text())
    reference = Reference(open_folder(DATA / "yarn-mscale", "yarn"), context=320)
    assert reference.generate(case["prompt_ids"], 3) == case["output_ids"]
