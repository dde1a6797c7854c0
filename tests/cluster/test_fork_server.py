"""The process that actors fork from: linked programs are there, and it ends with its driver."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chip.errors import ProgramError
from cluster.machines.ray import fork_worker
from cluster.machines.ray.fork_server import ForkServer
from cluster.machines.ray.grouping import distinct
from tests.cluster.tiny import lowered

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
PROBE = """
import json, os, random, sys
from cluster.machines.ray.chip_host import LINKER
seen = {"linked": len(LINKER._programs), "folder": os.getcwd(), "arguments": sys.argv[1:],
        "setting": os.environ["SETTING"], "process": os.getpid(), "random": random.random()}
with open(sys.argv[1], "w") as file:
    json.dump(seen, file)
"""


@pytest.fixture
def server(tmp_path):
    found = ForkServer(tmp_path, ["random"])
    yield found
    found.close()


def start(folder: Path, name: str) -> dict[str, object]:
    """Start a worker as Ray would; what it has seen."""
    probe, out = folder / "probe.py", folder / f"{name}.json"
    probe.write_text(PROBE)
    os.mkfifo(out)
    command = [str(probe), str(out), f"--temp-dir={folder}", "--language=PYTHON"]
    environment = os.environ | {"SETTING": name}
    subprocess.run(
        [sys.executable, fork_worker.__file__, *command], env=environment, cwd=folder, check=True
    )
    found: dict[str, object] = json.loads(out.read_text())
    return found


def test_workers_have_the_linked_programs_and_an_environment_of_their_own(server, tmp_path):
    programs = distinct(lowered(2, 2, "ring:4"))
    for program in (*programs, b"\xc1"):  # the last is none: its actor will say so
        server.link(program)
    server.take(server.pack())
    with pytest.raises(ProgramError):
        server.take(b"\xc1")
    one, other = start(tmp_path, "one"), start(tmp_path, "other")
    assert one["linked"] == other["linked"] == len(programs)
    assert one["folder"] == str(tmp_path)
    assert (one["setting"], other["setting"]) == ("one", "other")
    assert one["arguments"] == [str(tmp_path / "one.json"), f"--temp-dir={tmp_path}"]
    assert one["process"] != other["process"] and one["random"] != other["random"]


def test_equal_programs_are_linked_once():
    plan = lowered(2, 2, "ring:4")
    total = sum(len(launch.programs) for launch in plan.launches.values())
    assert 0 < len(distinct(plan)) <= total


@pytest.mark.parametrize("extra", [[], ["--serialized-runtime-env-context={}"]])
def test_without_a_server_or_with_an_environment_rays_own_script_is_run(tmp_path, extra):
    (tmp_path / "setup_worker.py").write_text("import sys\nprint(sys.argv[1:])")
    command = ["-s", str(tmp_path / "default_worker.py"), f"--temp-dir={tmp_path}", *extra]
    script = [sys.executable, fork_worker.__file__, *command]
    found = subprocess.run(script, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(command)
