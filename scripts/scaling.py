"""Scaling experiment: speed over chips and actors, emulated and on the host, as a sweep.

    python scripts/scaling.py --output scaling [--chips 1 2 4] [--machine local ray] [--packs 1]
    ray job submit --working-dir . -- python scripts/scaling.py --output /shared/it --machine ray
    ray submit scripts/cluster.yaml scripts/scaling.py -- --output scaling --machine ray

`strong`: the same model cut over more and more chips. `weak`: `tiny` with a layer for each chip, so
that the work of each stays the same; with all stages busy there is a sequence for each, on up to 16
chips, as each holds programs for every sequence. What is measured already is not run again.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

# `ray submit` copies this file alone: the project is beside it, or where the yaml has put it.
PLACES = Path(__file__).resolve().parents[1], Path(os.environ.get("LPU_HOME", "~/lpu-cluster"))
ROOT = next(one for one in (place.expanduser() for place in PLACES) if (one / "cluster").is_dir())
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import run_model  # noqa: E402

COUNTS = [1, 2, 4, 8, 16, 32, 64, 128, 256]
BUSY_CHIPS = 16  # at most, with all stages busy
GROWING = {"model": "tiny", "tp": 1, "pp": "{chips}", "layers": "{chips}"}


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scaling.py", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--model", default="tiny", help="of `strong`: a name or a GGUF file")
    parser.add_argument("--chips", nargs="+", type=int, default=COUNTS)
    parser.add_argument("--machine", nargs="+", default=["local"], choices=["local", "ray"])
    parser.add_argument("--packs", nargs="+", default=["1"], help="chips per actor, or auto")
    parser.add_argument("--address", help="a running Ray cluster; a job finds its own")
    parser.add_argument("--tokens", type=int, default=6)
    return parser.parse_args(arguments)


def question(given: argparse.Namespace) -> dict[str, object]:
    """The tables of the sweep."""
    cases: list[dict[str, object]] = [
        {"case": "strong", "model": given.model},
        {"case": "weak", **GROWING},
        {"case": "weak, all stages busy", **GROWING, "batch": "{chips}"},
    ]
    machines: list[dict[str, object]] = [{"machine": "local"}] if "local" in given.machine else []
    if "ray" in given.machine:
        packs = [pack if pack == "auto" else int(pack) for pack in given.packs]
        machines += [{"machine": "ray", "chips_per_actor": pack} for pack in packs]
    points = [
        case | machine | {"chips": chips}
        for case in cases
        for machine in machines
        for chips in given.chips
        if "batch" not in case or chips <= BUSY_CHIPS
    ]
    return {
        "question": "How does speed grow with chips, strong and weak, emulated and on this host?",
        "do": "run", "new_tokens": given.tokens, "points": points,
        "answer": {"kind": "scaling", "along": "chips", "by": "tokens_per_s_total"},
    }  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Measure what is missing; exit code 1 when a machine gives another digest than the other."""
    run_model.right_python()
    import cluster

    given = options([one for one in arguments if one != "--"])
    found = cluster.sweep(question(given), output=given.output, address=given.address)
    print(found)
    digests: dict[tuple[object, ...], set[object]] = {}
    for row in found.rows:
        if row["status"] == "ok":
            digests.setdefault((row["case"], row["model"], row["chips"]), set()).add(row["digest"])
    different = [key for key, values in digests.items() if len(values) > 1]
    for key in different:
        print("digests differ:", *key, file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
