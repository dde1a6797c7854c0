"""What a run says does not depend on the host: its processor, threads, rights, folders, locale."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.processors import CORES, GENERIC, core_types, lacks

ROOT = Path(__file__).resolve().parents[1]
# Wider than a tile of the MXM in every direction, and two ranks: all kinds of products and sums.
RUN = """
import sys
from chip.jit import set_backend
from chip.spec import GROQCHIP1
from cluster.compiler.lower import lower
from cluster.compiler.place import place
from cluster.compiler.stages import partition
from cluster.machines.machine import LocalMachine
from tests.cluster.tiny import no_progress, outcome, tiny_weights
from topology import parse
set_backend(sys.argv[1])
sizes = {"hidden_size": 384, "intermediate_size": 704, "vocab_size": 704, "num_hidden_layers": 1}
weights, graph = tiny_weights(**sizes), parse("ring:2")
plan = partition(weights.model, GROQCHIP1, tp=2, pp=1)
lowered, machine = lower(plan, place(plan, graph, "ring:2"), graph, weights), LocalMachine()
machine.load(lowered, no_progress)
print(outcome(lowered, machine))
"""


def python(*arguments: str, before: Sequence[str] = (), **environment: str) -> str:
    """What Python prints, started by the command `before` it if there is one."""
    command = [*before, sys.executable, *arguments]
    whole = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    run = subprocess.run(command, env=whole, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def outcome(backend: str, threads: int, **environment: str) -> str:
    """Tokens, cycles and the digest, as such a processor finds them."""
    names = ("OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    return python("-c", RUN, backend, **dict.fromkeys(names, str(threads)), **environment)


@pytest.fixture(scope="module")
def here() -> str:
    return outcome("compiled", 2)


def test_two_core_types_are_tried_on_every_x86_64() -> None:
    assert sum(not lacks(core) for core in CORES) >= (2 if "Nehalem" in CORES else 1)


@pytest.mark.parametrize("core", core_types())
def test_the_digest_is_that_of_any_processor(here, core: str) -> None:
    threads = 1 + list(CORES).index(core) % 2
    assert outcome("numpy", threads, OPENBLAS_CORETYPE=core) == here


def test_the_digest_is_that_of_a_processor_without_avx_and_f16c(here) -> None:
    cpu = {"NUMBA_CPU_NAME": GENERIC, "NUMBA_CPU_FEATURES": ""}
    assert outcome("compiled", 1, **cpu) == here


# --- hosts with something taken away --------------------------------------------------------------
COMMAND = ("-m", "cluster", "run", "tiny", "--prompt", "a", "--max-new-tokens", "2", "--json")


LESS = {
    "a second processor, a locale, a home, a temporary folder, rights of new files": (
        "umask 777; unset HOME LANG; export LC_ALL=C PYTHONUTF8=0 TMPDIR=/nonexistent",
        ["taskset", "-c", "0"],
    ),
    "/proc and /dev/shm": (
        "mount -t tmpfs none /proc; mount -t tmpfs -o mode=0,size=4k none /dev/shm",
        ["unshare", "-rm"],
    ),
}


def digest(folder: Path, before: Sequence[str] = ()) -> str:
    """The digest of a short run whose report goes into a file, too."""
    path = folder / "report.json"
    found = json.loads(python(*COMMAND, "--report", str(path), before=before))
    assert json.loads(path.read_bytes()) == found and path.stat().st_mode & 0o777 == 0o644
    return found["digest"]


@pytest.fixture(scope="module")
def usual(tmp_path_factory) -> str:
    return digest(tmp_path_factory.mktemp("usual"))


@pytest.mark.parametrize("what", LESS)
def test_a_host_may_lack(what, usual, tmp_path) -> None:
    text, wrapper = LESS[what]
    before = [*wrapper, "sh", "-ec", f'{text}; exec "$0" "$@"']
    able = shutil.which(wrapper[0]) and subprocess.run([*before, "true"], check=False)
    if not able or able.returncode:
        pytest.skip(f"{wrapper[0]} cannot take away {what} here")
    assert digest(tmp_path, before) == usual
