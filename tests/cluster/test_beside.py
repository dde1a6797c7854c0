"""Processes that plan the same: what each makes is made once, and none is missed."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from cluster.compiler.choose import PlanRequest
from cluster.planning import companions
from cluster.planning.companions import shared_store
from cluster.planning.cost_store import CostStore
from cluster.planning.planner import reported

ROOT = Path(__file__).parents[2]
COSTS, DEADLY = range(8), 7


def cost(store: CostStore, log: Path, number: int) -> int:
    """A number of the store, which says in a file who has made it."""

    def make() -> int:
        if store.beside.number and number == DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.1)
        with log.open("a") as file:
            file.write(f"{os.getpid()} {number}\n")
        return number * number

    return store.kept("square", number, make, int, int)


def squares(log: Path, numbers: range, store: CostStore) -> list[int]:
    calls = [partial(cost, store, log, number) for number in numbers]
    store.ahead(calls)
    return [call() for call in calls]


@pytest.mark.parametrize("deadly", [False, True])
@pytest.mark.parametrize("count", [2, 4])
def test_each_cost_is_made_once_and_whoever_dies_is_not_missed(count, deadly, tmp_path):
    numbers, log = COSTS if deadly else range(DEADLY), tmp_path / "log"
    with shared_store(tmp_path, partial(squares, log, numbers), count=count) as store:
        assert squares(log, numbers, store) == [n * n for n in numbers]
    made = [line.split() for line in log.read_text().splitlines()]
    assert sorted(int(number) for _, number in made) == list(numbers)
    assert deadly or len({pid for pid, _ in made}) == count


def test_processes_of_a_pool_start_none(tmp_path):
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_is_alone, [tmp_path])


def _is_alone(folder: Path) -> bool:
    with shared_store(folder, print) as store:
        return store.beside is None


@pytest.mark.parametrize(
    ("batch", "method"), [(1, companions.METHOD), (2, companions.METHOD), (1, "spawn")]
)
def test_a_plan_is_the_same_with_any_number_of_processes(batch, method, tmp_path, monkeypatch):
    monkeypatch.setattr(companions, "METHOD", method)
    name = str(ROOT / "tests/data/architectures/mixtral")
    request = PlanRequest(chips=4, batch=batch)
    found = []
    for count in (1, 3):
        work = partial(reported, name, request)
        with shared_store(tmp_path / str(count), work, count=count) as store:
            found.append(json.dumps(work(store)))
    assert found[0] == found[1]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_a_plan_that_is_ended(number, tmp_path):
    command = [sys.executable, "-m", "cluster", "plan", "llama-2-70b", "--chips", "576"]
    only = "import os, sys; from cluster.planning import companions as some; "
    only += "some.processors = lambda: 2; "
    command[1:3] = ["-c", f"{only}from cluster.cli import main; sys.exit(main())"]
    process = subprocess.Popen(
        command, env=os.environ | {"LPU_CACHE": str(tmp_path)}, cwd=ROOT, stderr=subprocess.PIPE
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    started: list[str] = []
    while not started and process.poll() is None:
        started = children.read_text().split()
    assert started
    process.send_signal(number)
    assert process.wait(60) == (130 if number == signal.SIGINT else -number)
    ends = time.monotonic() + 20
    while any(map(_runs, started)) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not any(map(_runs, started))


def _runs(pid: str) -> bool:
    """Whether a process is there, and no zombie that its new parent has yet to see."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
