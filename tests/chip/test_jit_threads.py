"""Runs of products shared between threads: the same bits always, and no wait for a late thread."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from chip.jit import play
from chip.jit.cache import address
from chip.jit.memory import INT
from chip.jit.team import DONE, Team, take
from chip.numerics import Weights8, Weights16
from tests.chip.jit_rig import LANES, Products, function_at

rng = np.random.default_rng(8)
W16 = rng.standard_normal((1501, LANES)).astype(np.float16)
X16 = (rng.standard_normal((3, LANES)) * 200).astype(np.float16)
W8 = rng.integers(-128, 128, W16.shape, dtype=np.int8)
X8 = rng.integers(-128, 128, X16.shape, dtype=np.int8)
WANT = Weights16(W16).dot(X16), Weights8(W8).dot(X8)


@pytest.fixture
def team(monkeypatch) -> Iterator[Team]:
    """Threads of this test alone."""
    mine = Team(1, play.team().serve)
    monkeypatch.setattr(play, "team", lambda: mine)
    yield mine
    mine._stop()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads_gives_the_same_bits(threads: int, team) -> None:
    team.size = threads
    fp16, int8 = Products(W16), Products(W8)
    for _ in range(20):
        assert np.array_equal(fp16.dot(X16), WANT[0])
        assert np.array_equal(int8.dot(X8), WANT[1])


def test_runs_of_several_python_threads_do_not_disturb_each_other(team) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda i: Products(W16[i::2]).dot(X16), range(2), timeout=60))
    assert all(np.array_equal(got, WANT[0][:, i::2]) for i, got in enumerate(results))


def _take(control: int, _unused: int) -> int:
    return take(control)


def test_a_piece_whose_thread_is_late_is_done_again(team) -> None:
    products = Products(W16)
    team.serve = lambda control: None
    control, taken = team.control, []
    take_piece = function_at(address(_take, INT(INT, INT)), 2)

    def hold_one_piece() -> None:
        while not taken:
            number = take_piece(control, 0)
            if number >= 0:
                taken.append(number)

    thief = threading.Thread(target=hold_one_piece)
    thief.start()
    while not taken:
        assert np.array_equal(products.dot(X16), WANT[0])
    thief.join()
    assert team.control is not control
    (_, _, owner), *more = team._held
    assert owner and not more
    control[DONE + taken[0]] = 1  # at last
    team.abandon(1, None)
    assert team._held[0][2] is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_starts_helpers_of_its_own(team) -> None:
    products = Products(W16)
    products.dot(X16)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(products.dot(X16), WANT[0]) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_process_with_busy_helpers_exits_at_once() -> None:
    program = """
import numpy as np
from tests.chip.jit_rig import Products
Products(np.ones((4000, 320), np.float16)).dot(np.ones((1, 320), np.float16))
"""
    root = Path(__file__).resolve().parent.parent.parent
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=root)


@pytest.mark.skipif("NUMBA_CACHE_DIR" in os.environ, reason="numba keeps code by path there")
def test_a_copy_of_the_sources_compiles_nothing(tmp_path) -> None:
    root = Path(__file__).resolve().parent.parent.parent
    shutil.copytree(root / "chip", tmp_path / "chip", ignore=shutil.ignore_patterns("__pycache__"))
    ask = """
import chip
from chip.jit import cache, play
print(chip.__file__, sum(k.cache_hits for k in cache._KEPT), len(cache._KEPT))
"""
    done = subprocess.run([sys.executable, "-c", ask], cwd=tmp_path, env=os.environ | {
        "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True)  # fmt: skip
    path, hits, kernels = done.stdout.split()
    assert path.startswith(str(tmp_path)), done.stdout
    assert hits == kernels
    assert not list((tmp_path / "chip").rglob("*.nb[ic]"))
