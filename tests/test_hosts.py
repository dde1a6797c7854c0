"""The bits of a run of the real model do not depend on the host's BLAS kernels or threads."""

import os
import subprocess
import sys

import pytest

from tests.processors import CORES, GENERIC, core_types, lacks

RUN = """
import sys
from dataclasses import replace
from chip.jit import set_backend
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


def outcome(backend: str, threads: str, **environment: str) -> str:
    """The first token and the digest, as a host with such an environment finds them."""
    names = ("OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    run = subprocess.run(
        [sys.executable, "-c", RUN, backend],
        env=os.environ | dict.fromkeys(names, threads) | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def here(smollm2_path) -> str:
    return outcome("compiled", "2")


def test_two_core_types_are_tried_on_every_x86_64() -> None:
    assert sum(not lacks(core) for core in CORES) >= (2 if "Nehalem" in CORES else 1)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("core", core_types())
def test_digest_of_smollm2_is_that_of_any_host(here, core: str) -> None:
    assert outcome("numpy", str(1 + len(core) % 2), OPENBLAS_CORETYPE=core) == here


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_digest_of_smollm2_is_that_of_a_processor_without_avx_and_f16c(here) -> None:
    cpu = {"NUMBA_CPU_NAME": GENERIC, "NUMBA_CPU_FEATURES": ""}
    assert outcome("compiled", "1", **cpu) == here
