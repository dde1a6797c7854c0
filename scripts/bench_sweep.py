"""Points per second of `lpu sweep`: 1 and 2 processes, Ray tasks, and rows that are known.

A grid of Llama-2-70B plans (chips x tp x pp x prompts of up to 1,024 tokens), each a row with the
figures of `lpu plan`. Warm is with the costs of schedules known and no row; then every plan is put
together, placed and timed on its own chips and cables. Known is with rows in the store, as when a
sweep is run again or has grown. Beside it: 77 points a second on two cores, marginal, of the
Ray-based sweeper NeuSim with its closed-form cost model (17.9 s for the first 51).
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from cluster.model.fetch import cache_folder
from cluster.sweeps import grid
from cluster.sweeps.evaluation import Evaluator, Finding
from cluster.sweeps.grid import Point
from cluster.sweeps.local_pool import LocalPool, here
from cluster.sweeps.question import Question, asked
from cluster.sweeps.sweeping import STORE, sweep

MODEL, WEIGHTS = "llama-2-70b", "int8"
PROMPT, NEW = 1024, 128
CHIPS = (576, 720, 864, 1152)
LENGTHS = {16: range(40, 81, 8), 24: range(28, 81, 8), 32: range(20, 81, 8), 64: range(12, 81, 8)}
FLOOR = 500.0  # points/s of rows that are known
NEUSIM = "NeuSim on Ray: 77/s, after 17 s"


def question(prompts: int) -> Question:
    """The grid: pipelines of each width on each cluster, with so many lengths of prompts."""
    points = [
        {"topology": f"dragonfly:{chips}", "tp": tp, "pp": pp}
        for chips in CHIPS
        for tp, lengths in LENGTHS.items()
        for pp in lengths
        if tp * pp <= chips
    ]
    tables = {
        "model": MODEL, "weights": WEIGHTS, "context": PROMPT + NEW, "points": points,
        "grid": {"prompt_tokens": [PROMPT - 32 * n for n in range(prompts)]},
    }  # fmt: skip
    return asked(tables, Path("bench"))


def run(arguments: Sequence[str]) -> int:
    """Return 0 if the floor holds."""
    parser = argparse.ArgumentParser(prog="bench.py sweep", description=__doc__)
    parser.add_argument(
        "--prompts", type=int, default=8, help="lengths of prompts: factor of points"
    )
    parser.add_argument("--ray", action="store_true", help="also on a Ray of two workers")
    options = parser.parse_args(arguments)
    asked_for = question(options.prompts)
    points = grid.points(asked_for)
    print(f"{len(points):,} points of {MODEL} on up to {CHIPS[-1]:,} chips; {NEUSIM}")
    cache = cache_folder()
    timed("first, lowering what is not known", len(points), lambda: here(points, Evaluator(cache)))
    for workers in (1, 2):
        timed(f"warm, processes: {workers}", len(points), _pooled(points, cache, workers))
    if options.ray:
        timed("warm, Ray tasks", len(points), lambda: on_ray(points))
    with TemporaryDirectory() as folder:
        shutil.copytree(cache / "costs", Path(folder, "costs"))
        sweep(asked_for, Path(folder), workers=2)
        start = time.perf_counter()
        found = sweep(asked_for, Path(folder))
        wall_s = time.perf_counter() - start
        assert found.computed == 0 and Path(folder, STORE).exists()
        rate = len(points) / wall_s
        print(f"  {'known':34} {rate:8,.0f}/s ({wall_s:.2f} s; floor {FLOOR:.0f}/s)")
    return 0 if rate >= FLOOR else 1


def _pooled(
    points: Sequence[Point], cache: Path, workers: int
) -> Callable[[], Iterator[list[Finding]]]:
    def results() -> Iterator[list[Finding]]:
        with LocalPool(workers, cache) as pool:
            yield from pool.results(points)

    return results


def on_ray(points: Sequence[Point]) -> Iterator[list[Finding]]:
    """The points as tasks of a Ray of our own."""
    import ray

    from cluster.machines.ray import joining
    from cluster.machines.ray.task_pool import RayPool

    joining.calm()
    ray.init("local", num_cpus=2, include_dashboard=False, **joining.QUIET)
    with RayPool(None) as pool:
        yield from pool.results(points)
    ray.shutdown()


def timed(what: str, count: int, results: Callable[[], Iterator[list[Finding]]]) -> float:
    """Points per second of the wall clock, and of processors of this process and its children."""
    start, before = time.perf_counter(), _cpu_s()
    assert sum(len(some) for some in results()) == count
    wall_s, cpu_s = time.perf_counter() - start, _cpu_s() - before
    print(
        f"  {what:34} {count / wall_s:8,.0f}/s ({wall_s:.2f} s; {cpu_s:.2f} s of processors)",
        flush=True,
    )
    return count / wall_s


def _cpu_s() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
