"""A real model on many one-chip actors: the digest of the local machine."""

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.soak]
RUN = [
    "run",
    "smollm2",
    "--prompt",
    "What is the capital of France?",
    "--max-new-tokens",
    "3",
    "--json",
]


def report(*options: str) -> dict:
    """What `lpu run` prints of a run."""
    command = [sys.executable, "-m", "cluster", *RUN, *options]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


@pytest.mark.parametrize(("tp", "pp"), [(3, 30), (7, 30)])
def test_every_chip_an_actor_of_its_own_gives_the_local_digest(smollm2_path, tp, pp):
    plan = ("--tp", str(tp), "--pp", str(pp))
    local, actors = report(*plan), report(*plan, "--machine", "ray", "--chips-per-actor", "1")
    assert actors["output_ids"] == local["output_ids"] and actors["digest"] == local["digest"]
