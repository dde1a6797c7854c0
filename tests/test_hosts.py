"""The bits of a run of the real model do not depend on the host's BLAS kernels or threads."""

import os
import subprocess
import sys

import pytest

RUN = """
import sys
from dataclasses import replace
from chip.numerics import set_backend
from chip.spec import GROQCHIP1
from cluster.compiler.lower import lower
from cluster.machines.machine import LocalMachine
from cluster.model.load import load_model
from cluster.compiler.stages import smallest
from cluster.compiler.place import place
from cluster.generation.sampling import Sampling
from cluster.serving.engine import PipelineRunner
from topology import parse
set_backend(sys.argv[1])
weights = load_model("smollm2").weights
plan, graph = smallest(weights.model, GROQCHIP1, 320), parse("node")
lowered, machine = lower(plan, place(plan, graph, "node"), graph, weights), LocalMachine()
machine.load(lowered, lambda *_: None)
runner = PipelineRunner(lowered, machine)
print(*runner.generate([504, 3575], 1, Sampling(), frozenset()), runner.digest.hexdigest())
"""
HOSTS = [("numpy", "Haswell", "1"), ("numpy", "SkylakeX", "2"), ("compiled", "Haswell", "2")]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_digest_of_smollm2_is_that_of_any_host(smollm2_path):
    seen = set()
    for backend, core, threads in HOSTS:
        names = ("OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
        environment = os.environ | dict.fromkeys(names, threads) | {"OPENBLAS_CORETYPE": core}
        run = subprocess.run(
            [sys.executable, "-c", RUN, backend],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        seen.add(run.stdout)
    assert len(seen) == 1, seen
