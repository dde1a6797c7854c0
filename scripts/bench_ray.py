"""Ray benchmark: chips on actors beside the same chips in one process.

    python scripts/bench.py ray [--shapes 1x2 3x2 3x8 3x30] [--packs 1 tp] [--tokens N] [--out FILE]

Each shape (tp x pp) runs on the local machine, then on actors of `--packs` chips; `tp` is a whole
tensor group. Printed per case: decode tokens/s and their ratio, segments and messages of a token,
microseconds per segment, actors started per second, memory per actor, seconds from nothing to the
first token. Floors on two cores: with a tensor group per actor 0.3 of the local rate, with one
chip per actor a token in at most 1.0 ms per segment.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

FLOOR_RATIO, FLOOR_MS_PER_SEGMENT = 0.3, 1.0
NEUSIM_FIXED_S = 17.0  # before its first result: a Ray-based sweeper, measured on two such cores
PROMPT = "Explain in two sentences why the sky is blue."


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="bench.py ray")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--shapes", nargs="+", default=["1x2", "3x2", "3x8", "3x30"])
    parser.add_argument("--packs", nargs="+", default=["1", "tp"])
    parser.add_argument("--tokens", type=int, default=6)
    parser.add_argument("--address", help="a running Ray cluster")
    parser.add_argument("--out", type=Path, help="append each result to this file as a JSON line")
    return parser.parse_args(arguments)


class Clock:
    """Seconds of each part of a load, `up` before the first that is counted; a `Progress`."""

    def __init__(self) -> None:
        self.start = self._lap = time.perf_counter()
        self._part = "up"
        self.parts: dict[str, float] = {}

    def __call__(self, what: str, _done: int, total: int) -> None:
        now = time.perf_counter()
        self.parts[self._part] = self.parts.get(self._part, 0.0) + now - self._lap
        self._part, self._lap = what if total else "up", now


def decode(lowered: Any, machine: Any, ids: list[int], count: int) -> dict[str, Any]:
    """Load, read the prompt, decode: what it took, and what came out."""
    from cluster.generation.sampling import Sampling
    from cluster.serving.engine import PipelineRunner

    clock = Clock()
    machine.load(lowered, clock)
    runner = PipelineRunner(lowered, machine)
    at = [time.perf_counter()]
    tokens = []
    for token in runner.generate(ids, count, Sampling(), frozenset()):
        tokens.append(token)
        at.append(time.perf_counter())
    steps = [after - before for before, after in pairwise(at[1:])]
    return {
        "parts_s": clock.parts,
        "first_token_s": at[1] - clock.start,
        "token_s": median(steps),
        "tokens": tokens,
        "digest": runner.digest.hexdigest(),
        **machine.costs(),
    }


def cases(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure every shape locally, then on actors in each packing."""
    from cluster.compiler.choose import PlanRequest, choose
    from cluster.compiler.lower import lower
    from cluster.compiler.place import place
    from cluster.machines.machine import LocalMachine
    from cluster.machines.ray.ray_machine import RayMachine
    from cluster.model.load import load_model

    model = load_model(given.model)
    ids = model.tokenizer.encode_prompt(PROMPT)
    for shape in given.shapes:
        tp, pp = map(int, shape.split("x"))
        choice = choose(model.model, PlanRequest(tp=tp, pp=pp))
        placement = place(choice.plan, choice.graph, choice.topology)
        lowered = lower(choice.plan, placement, choice.graph, model.weights)
        packs = dict.fromkeys(tp if pack == "tp" else int(pack) for pack in given.packs)
        local = _closing(LocalMachine(), lowered, ids, given.tokens)
        for pack in packs:
            there = _closing(RayMachine(pack, given.address), lowered, ids, given.tokens)
            yield {"bench": "ray", "tp": tp, "pp": pp, "pack": pack} | compared(local, there, tp)


def _closing(machine: Any, lowered: Any, ids: list[int], count: int) -> dict[str, Any]:
    try:
        found = decode(lowered, machine, ids, count)
        return found | {"actors": machine.actors, "worker_bytes": machine.worker_bytes()}
    finally:
        machine.close()


def compared(local: dict[str, Any], there: dict[str, Any], tp: int) -> dict[str, Any]:
    """One row: the rates of both, and whether the floors hold."""
    ratio = local["token_s"] / there["token_s"]
    per_segment_ms = there["token_s"] * 1e3 / there["segments"]
    return {
        "actors": there["actors"],
        "equal": (local["tokens"], local["digest"]) == (there["tokens"], there["digest"]),
        "local_tokens_per_s": 1 / local["token_s"],
        "ray_tokens_per_s": 1 / there["token_s"],
        "ratio": ratio,
        "segments": there["segments"],
        "messages": there["messages"],
        "us_per_segment": per_segment_ms * 1e3,
        "overhead_us_per_message": (there["token_s"] - local["token_s"])
        / max(there["messages"], 1)
        * 1e6,
        "actors_per_s": there["actors"] / there["parts_s"]["start"],
        "parts_s": there["parts_s"],
        "first_token_s": there["first_token_s"],
        "local_first_token_s": local["first_token_s"],
        "worker_bytes": there["worker_bytes"],
        "actor_bytes": there["actor_bytes"],
        "ratio_floor_holds": ratio >= FLOOR_RATIO,
        "segment_floor_holds": per_segment_ms <= FLOOR_MS_PER_SEGMENT,
    }


def show(row: dict[str, Any]) -> None:
    """Print one case for people."""
    floor = "ratio" if row["pack"] >= row["tp"] else "segment"
    print(
        f"{row['tp']}x{row['pp']:<3} {row['actors']:3} actors of {row['pack']}: "
        f"{row['ray_tokens_per_s']:6.2f} tokens/s, local {row['local_tokens_per_s']:6.2f}, ratio "
        f"{row['ratio']:5.2f}; {row['segments']} segments, {row['messages']} messages, "
        f"{row['us_per_segment']:.0f} us per segment; {row['actors_per_s']:.2f} actors/s, "
        f"{row['worker_bytes'] / row['actors'] / 2**20:.0f} MiB each; first token after "
        f"{row['first_token_s']:.1f} s, local {row['local_first_token_s']:.1f} s (NeuSim's fixed "
        f"cost: {NEUSIM_FIXED_S:.0f} s), load average {os.getloadavg()[0]:.1f}; "
        f"{'equal bits' if row['equal'] else 'BITS DIFFER'}, "
        f"{floor} floor {'holds' if row[f'{floor}_floor_holds'] else 'MISSED'}",
        flush=True,
    )


def run(arguments: Sequence[str]) -> int:
    """Measure and print; append to --out. Exit code 1 when bits differ."""
    given = options(arguments)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    equal = True
    for row in cases(given):
        show(row)
        equal = equal and row["equal"]
        if given.out:
            with given.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row | {"load_average": os.getloadavg()[0]}) + "\n")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
