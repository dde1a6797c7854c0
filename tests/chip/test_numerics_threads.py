"""Array passes shared between threads: the same bits always, and no wait for a late thread."""

import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from chip.numerics import Weights8, Weights16, make_backend
from chip.numerics.compiled import CompiledBackend
from chip.numerics.team import DONE, take

rng = np.random.default_rng(8)
W16 = rng.standard_normal((2, 1501, 320)).astype(np.float16)
X16 = (rng.standard_normal((2, 3, 320)) * 200).astype(np.float16)
W8 = rng.integers(-128, 128, W16.shape, dtype=np.int8)
X8 = rng.integers(-128, 128, X16.shape, dtype=np.int8)


@pytest.fixture(scope="module")
def expected() -> tuple[np.ndarray, np.ndarray]:
    plain = make_backend("numpy")
    return Weights16(W16, plain).dot(X16), Weights8(W8, plain).dot(X8)


def backend_with(threads: int) -> CompiledBackend:
    backend = CompiledBackend()
    backend.team.size = threads
    return backend


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads_gives_the_same_bits(threads: int, expected) -> None:
    backend = backend_with(threads)
    fp16, int8 = Weights16(W16, backend), Weights8(W8, backend)
    for _ in range(20):
        assert np.array_equal(fp16.dot(X16), expected[0])
        assert np.array_equal(int8.dot(X8), expected[1])


def test_passes_of_several_python_threads_do_not_disturb_each_other(expected) -> None:
    backend = backend_with(2)
    weights = [Weights16(W16[t], backend) for t in range(2)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda i: weights[i % 2].dot(X16[i % 2]), range(60)))
    assert all(np.array_equal(got, expected[0][i % 2]) for i, got in enumerate(results))


def test_a_piece_whose_thread_is_late_is_done_again(expected) -> None:
    backend = backend_with(2)
    team, weights = backend.team, Weights16(W16, backend)
    team.serve = lambda control: None
    control, taken = team.control, []

    def hold_one_piece() -> None:
        while not taken:
            number = take(control)
            if number >= 0:
                taken.append(number)

    thief = threading.Thread(target=hold_one_piece)
    thief.start()
    while not taken:
        late = weights.dot(X16)
        assert np.array_equal(late, expected[0])
    thief.join()
    assert team.control is not control
    (_, _, arrays), *more = team._held
    assert not more
    assert not np.shares_memory(arrays[-1], late)
    control[DONE + taken[0]] = 1  # at last
    team.abandon(1, ())
    assert team._held[0][2] == ()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_starts_helpers_of_its_own(expected) -> None:
    backend = backend_with(2)
    weights = Weights16(W16, backend)
    weights.dot(X16)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(weights.dot(X16), expected[0]) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_process_with_busy_helpers_exits_at_once() -> None:
    program = """
import numpy as np
from chip.numerics import Weights16, make_backend
weights = Weights16(np.ones((4000, 320), np.float16), make_backend("compiled"))
weights.dot(np.ones((1, 320), np.float16))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.skipif("NUMBA_CACHE_DIR" in os.environ, reason="numba keeps code by path there")
def test_a_copy_of_the_sources_compiles_nothing(tmp_path) -> None:
    root = Path(__file__).resolve().parent.parent.parent
    shutil.copytree(root / "chip", tmp_path / "chip", ignore=shutil.ignore_patterns("__pycache__"))
    ask = "import chip; from chip.numerics.tape import run_tape as f; print(chip.__file__, f.stats)"
    done = subprocess.run([sys.executable, "-c", ask], cwd=tmp_path, env=os.environ | {
        "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout.startswith(str(tmp_path)), done.stdout
    assert "cache_misses=Counter()" in done.stdout
    assert not list((tmp_path / "chip").rglob("*.nb[ic]"))
