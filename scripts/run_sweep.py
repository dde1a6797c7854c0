"""What `ray submit` starts on the head of a cluster for a what-if question: `lpu sweep` there.

    ray submit scripts/cluster.yaml scripts/run_sweep.py -- scripts/whatif/links.toml --output links

Paths are those of the project on the head, where results are written; `ray rsync-down` brings them.
Points are tasks of the cluster's own Ray.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

# `ray submit` copies this file alone: the project is beside it, or where the yaml has put it.
PLACES = Path(__file__).resolve().parents[1], Path(os.environ.get("LPU_HOME", "~/lpu-cluster"))
ROOT = next(one for one in (place.expanduser() for place in PLACES) if (one / "cluster").is_dir())
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import run_model  # noqa: E402


def main(arguments: Sequence[str]) -> int:
    """Sweep on the Ray that is already here, unless the arguments name another."""
    run_model.right_python()
    from cluster.cli import main as lpu

    os.chdir(ROOT)
    given = [one for one in arguments if one != "--"]
    return lpu(["sweep", *given, *run_model.address(given)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
