"""Network benchmark: wall time, memory and scheduled messages per second beside recorded figures.

    python scripts/bench.py network [--json] [CASE ...]

The recorded figures are wall times of other simulators on a machine with 2 cores, taken once: the
congestion-aware (ring, full) and unaware (torus) analytical backends of ASTRA-sim 2.0, which model
50 GiB/s links of 500 ns plus 10 ns at the endpoint, and BookSim2 for the dragonfly traffic, which
solves the harder, dynamic problem. Each case runs in a process of its own, so that memory is its
own; the wall time counts building the graph, timing and checking for contention, not imports.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

MIB = 1 << 20
Figures = dict[str, Any]


def reference_link() -> dict[str, object]:
    """Return the link of the reference cases as overrides: a 1 GHz clock, so cycles are ns."""
    payload_bytes = 64
    return {
        "clock_hz": 10**9,
        "payload_bytes": payload_bytes,
        "bytes_per_vector_wire": payload_bytes,
        "cycles_per_vector": Fraction(payload_bytes * 10**9, 50 * 2**30),
        "latency_cycles": 500 + 10,
        "links_per_chip": 2048,
    }


def all_reduce_case(spec: str, num_bytes: int, algorithm: str, chunks: int) -> Figures:
    """Build, time and check one all-reduce with the reference link."""
    from topology import collective, parse

    graph = parse(spec, overrides=reference_link())
    timed = collective("all_reduce", graph, num_bytes, algorithm, chunks=chunks)
    timed.check()
    return {"messages": timed.message_count, "cycles": timed.cycles}


def dragonfly_traffic() -> Figures:
    """Schedule 57,100 packets of 10 vectors between random terminals, 4 on each of 264 chips."""
    import numpy as np

    from topology import parse
    from topology.traffic import schedule

    # One vector per cycle and 10 cycles per hop, as flits and router delay in the dynamic model.
    graph = parse("dragonfly:264", overrides={"cycles_per_vector": 1, "latency_cycles": 10})
    terminals = np.random.default_rng(0).integers(0, 1056, (2, 57_100))
    timed = schedule(graph, terminals[0] // 4, terminals[1] // 4, np.full(57_100, 10))
    timed.check()
    return {
        "messages": len(timed.vectors),
        "cycles": timed.cycles,
        "lower_bound_cycles": timed.lower_bound_cycles,
        "vector_hops": timed.hops * 10,
    }


def whole_system() -> Figures:
    """Build 10,440 chips, find all facts and time an all-reduce of one vector and of 1 MiB."""
    from topology import collective, facts, parse

    graph = parse("dragonfly:10440")
    found = facts(graph)
    small = collective("all_reduce", graph, 320, "hierarchical")
    large = collective("all_reduce", graph, MIB, "hierarchical")
    small.check()
    large.check()
    return {
        "messages": small.message_count + large.message_count,
        "cycles": large.cycles,
        "small_cycles": small.cycles,
        "diameter_hops": found.diameter_hops,
    }


def _all_reduce(*what: Any) -> Callable[[], Figures]:
    return lambda: all_reduce_case(*what)


# Case -> (function, most seconds allowed, recorded wall seconds, recorded simulated ns).
CASES: dict[str, tuple[Callable[[], Figures], float, float | None, int | None]] = {
    "ring-8": (_all_reduce("ring:8", MIB, "ring-stepwise", 4), 0.1, 0.01, 64_440),
    "ring-64": (_all_reduce("ring:64", MIB, "ring-stepwise", 4), 0.3, 0.06, 296_896),
    "ring-256": (_all_reduce("ring:256", MIB, "ring-stepwise", 4), 0.8, 0.56, 1_079_200),
    "ring-1024": (_all_reduce("ring:1024", MIB, "ring-stepwise", 4), 1.2, 12.25, 4_206_616),
    "ring-1024-pipelined": (_all_reduce("ring:1024", MIB, "ring", 1), 2.0, None, 4_206_616),
    "torus-32x32": (_all_reduce("torus:32x32", MIB, "dimension", 4), 0.3, 0.84, 169_041),
    "torus-16x8x8": (_all_reduce("torus:16x8x8", MIB, "dimension", 4), 0.3, 0.61, 99_680),
    "full-1024-64MB": (_all_reduce("full:1024", 64 * MIB, "direct", 4), 5.0, 161.7, 6_680),
    "dragonfly-traffic": (dragonfly_traffic, 2.0, 6.8, None),
    "dragonfly-10440": (whole_system, 10.0, None, None),
}
MEMORY_FLOOR_MIB = 4096


def measure(name: str) -> Figures:
    """Run one case in this process."""
    import topology.traffic  # noqa: F401  (imports are not what is measured)

    function, floor_s, recorded_s, recorded_ns = CASES[name]
    begin, begin_cpu = time.perf_counter(), time.process_time()
    figures = function()
    wall_s, cpu_s = time.perf_counter() - begin, time.process_time() - begin_cpu
    memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {
        "case": name,
        "wall_s": round(wall_s, 3),
        "cpu_s": round(cpu_s, 3),
        "floor_s": floor_s,
        "ok": wall_s <= floor_s and memory_mib <= MEMORY_FLOOR_MIB,
        "recorded_wall_s": recorded_s,
        "recorded_ns": recorded_ns,
        "memory_mib": memory_mib,
        "messages_per_s": round(figures["messages"] / wall_s),
        **figures,
    }


def run(args: Sequence[str]) -> int:
    """Measure the named cases (default: all) and print them; 1 if one is slower than its floor."""
    parser = argparse.ArgumentParser(prog="bench.py network", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(list(args))
    if unknown := sorted(set(options.cases) - set(CASES)):
        parser.error(f"unknown case {unknown[0]}; use one of {', '.join(CASES)}")
    if options.here:
        print(json.dumps(measure(options.cases[0])))
        return 0
    rows = []
    for name in options.cases or CASES:
        command = [sys.executable, __file__, "--here", name]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
        if not options.json:
            print(_line(rows[-1]), flush=True)
    if options.json:
        print(json.dumps({"rows": rows, "machine": platform.machine(), "commit": _commit()}))
    return 0 if all(row["ok"] for row in rows) else 1


def _line(row: Figures) -> str:
    recorded = row["recorded_wall_s"]
    beside = f"recorded {recorded} s" if recorded is not None else "nothing recorded"
    simulated = ""
    if row["recorded_ns"] is not None:
        off = row["cycles"] / row["recorded_ns"] - 1
        simulated = f"  {row['cycles']:,} ns, recorded {row['recorded_ns']:,} ({off:+.1%})"
    return (
        f"{row['case']:20} {row['wall_s']:7.2f} s, CPU {row['cpu_s']:.2f} s"
        f" (floor {row['floor_s']} s,"
        f" {'ok' if row['ok'] else 'TOO SLOW'}; {beside})  {row['memory_mib']:5} MiB"
        f"  {row['messages_per_s']:12,} messages/s{simulated}"
    )


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
