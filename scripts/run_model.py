"""What `ray submit` starts on the head of a cluster: `lpu run` on the cluster's own Ray.

    ray submit scripts/cluster.yaml scripts/run_model.py -- smollm2 --prompt Hello --tp 3 --pp 2

`ray submit` copies this file only, and starts it with the login shell's Python. The yaml brings the
project to ~/lpu-cluster, and what it needs to ~/lpu-venv; LPU_HOME and LPU_PYTHON name others. From
a checkout it runs as it stands, and as a job:

    ray job submit --working-dir . -- python scripts/run_model.py smollm2 --prompt Hello
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path


def project() -> Path:
    """The folder with the three packages: that of this file, or the one the yaml has filled."""
    beside = Path(__file__).resolve().parent.parent
    mounted = Path(os.environ.get("LPU_HOME", "~/lpu-cluster")).expanduser()
    for folder in (beside, mounted):
        if (folder / "cluster" / "cli.py").is_file():
            return folder
    sys.exit(f"run_model.py: neither {beside} nor {mounted} holds the project; see file_mounts")


def right_python() -> None:
    """Go on in the Python that the yaml has set up, if this one has no Ray."""
    if find_spec("ray") is None:
        python = Path(os.environ.get("LPU_PYTHON", "~/lpu-venv/bin/python")).expanduser()
        if not python.is_file() or python == Path(sys.executable):
            sys.exit(f"run_model.py: {sys.executable} has no Ray, and there is no {python}")
        os.execv(python, [str(python), *sys.argv])


def address(given: list[str]) -> list[str]:
    """The option that names the Ray that is already here, where nothing else does."""
    in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ or "RAY_ADDRESS" in os.environ
    return [] if in_job or "--address" in given else ["--address", "auto"]


def main(arguments: list[str]) -> int:
    """Run on the Ray that is already here, unless the arguments name another."""
    right_python()
    sys.path.insert(0, str(project()))
    from cluster.cli import main as lpu

    given = arguments[1:] if arguments[:1] == ["--"] else arguments
    machine = [] if "--machine" in given else ["--machine", "ray"]
    return lpu(["run", *given, *machine, *(address(given) if machine else [])])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
