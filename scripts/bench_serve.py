"""Seconds of replays: Mooncake-like requests on Llama-3.3-70B, and a million short ones.

A replay of a peer (Dynamo), through no schedule, was recorded at 1.3 s for 1,000 such requests.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

LONG = ["--model", "llama-3.3-70b", "--chips", "576", "--spec", "lp30", "--weights", "int8"]
LONG += ["--context", "16384", "--load", "poisson:20", "--lengths", "~8192:~200"]
SHORT = ["--model", "smollm2", "--chips", "8", "--load", "poisson:200", "--lengths", "~32:~16"]
FLOORS = {"long": (1000, 1.0, 4.0), "short": (1_000_000, 120.0, 1.0)}  # requests, seconds, GiB


def run(arguments: Sequence[str]) -> int:
    """Return 0 if the floors hold."""
    parser = argparse.ArgumentParser(prog="bench.py serve", description=__doc__)
    parser.add_argument("--short", type=int, default=FLOORS["short"][0], help="short requests")
    options = parser.parse_args(arguments)
    code = 0
    for name, command in (("long", LONG), ("short", SHORT)):
        count, floor_s, floor_gib = FLOORS[name]
        count = options.short if name == "short" else count
        found, gib = _replayed([*command, "--requests", str(count)])
        plan = found["plan"]
        print(
            f"{found['requests']:,} {name} requests ({found['rejected']:,} rejected), "
            f"{plan['pp']} stages x tp {plan['tp']}, {plan['slots']} slots: "
            f"{found['wall_s']:.2f} s (floor {floor_s:g} s) for {found['steps']:,} steps, "
            f"{found['seconds']:,.1f} virtual seconds; plan {found['plan_s']:.1f} s; "
            f"peak {gib:.2f} GiB (floor {floor_gib:g})"
        )
        code |= found["wall_s"] > floor_s or gib > floor_gib
    return int(code)


def _replayed(command: Sequence[str]) -> tuple[dict[str, Any], float]:
    """The report of a replay in a process of its own, and the most memory it had, in GiB."""
    whole = [sys.executable, "-m", "cluster", "replay", "--json", *command]
    process = subprocess.Popen(whole, stdout=subprocess.PIPE)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)  # getrusage knows the largest of all children only
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    found: dict[str, Any] = json.loads(printed)
    return found, used.ru_maxrss / (1 << 20)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
