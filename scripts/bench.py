"""Benchmarks by name: python scripts/bench.py NAME [options]; --help after a name lists its own.

A benchmark is a function of the remaining arguments that returns the exit code; to add one, write
`run` in a file bench_NAME.py beside this one and enter it below. It is imported when asked for.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module


def functional(arguments: Sequence[str]) -> int:
    """Tokens/s of the local machine beside plain NumPy float32 on the same threads."""
    return _run("bench_functional", arguments)


def chip(arguments: Sequence[str]) -> int:
    """One chip's products/s and cycles/s on the shapes that peers were measured on."""
    return _run("bench_chip", arguments)


def network(arguments: Sequence[str]) -> int:
    """Wall time and memory of network schedules beside recorded figures."""
    return _run("bench_network", arguments)


def chaos(arguments: Sequence[str]) -> int:
    """Random programs, mutations and damaged bytes for minutes: linker against naive chip."""
    return _run("bench_chaos", arguments)


def ray(arguments: Sequence[str]) -> int:
    """Chips on Ray actors beside the local machine: rates, start-up, memory, floors."""
    return _run("bench_ray", arguments)


def plan(arguments: Sequence[str]) -> int:
    """Plans per second over grids of Llama-2-70B; seconds to the first one from nothing."""
    return _run("bench_plan", arguments)


def serve(arguments: Sequence[str]) -> int:
    """Seconds of replays of a thousand long requests and of a million short ones."""
    return _run("bench_serve", arguments)


def sweep(arguments: Sequence[str]) -> int:
    """Points per second of `lpu sweep`: processes, Ray tasks, and rows that are known."""
    return _run("bench_sweep", arguments)


BENCHES: dict[str, Callable[[Sequence[str]], int]] = {
    bench.__name__: bench for bench in (chip, functional, chaos, network, plan, ray, serve, sweep)
}


def _run(module: str, arguments: Sequence[str]) -> int:
    code = import_module(module).run(arguments)
    return int(code)


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark that is named first; what follows its name is for it."""
    lines = [f"  {name:12} {bench.__doc__}" for name, bench in BENCHES.items()]
    parser = argparse.ArgumentParser(
        usage="python scripts/bench.py NAME [options]",
        description="\n".join(["benchmarks, each with a --help of its own:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=BENCHES)
    return BENCHES[parser.parse_args(arguments[:1]).name](arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
