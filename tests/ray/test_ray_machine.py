"""Chips on Ray actors: everything equal to the local machine, errors with their class."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chip.errors import ChipError, ProgramError
from chip.spec import GROQCHIP1
from cluster.compiler.lower import lower
from cluster.compiler.place import place
from cluster.compiler.stages import partition
from cluster.encoders.embedding import Options, embed_sentences
from cluster.errors import BadValue, WorkerLost
from cluster.generation.sampling import Sampling
from cluster.machines.checkpoint import Checkpointed
from cluster.machines.checkpoint_store import CheckpointStore
from cluster.machines.machine import LocalMachine
from cluster.machines.ray.fork_server import can_fork
from cluster.machines.ray.grouping import actor_name, chunks, grouped
from cluster.machines.ray.ray_machine import RayMachine
from cluster.machines.ray.surroundings import SHARED, _runs, _semaphores, swept
from cluster.model.weights.safetensors import open_folder
from cluster.runs.display import Bars
from cluster.serving.engine import PipelineRunner
from tests.cluster.model.test_golden import DATA, cases_of
from tests.cluster.test_pipeline import answered, answered_here
from tests.cluster.test_pipeline import lowered as pipeline_plan
from tests.cluster.tiny import local_outcome, lowered, no_progress, outcome, rounded_between_nodes
from topology import parse

pytestmark = pytest.mark.ray
ROOT = Path(__file__).resolve().parent.parent.parent
PLAN = (2, 2, "ring:4")
THROUGH = (2, 1, "ring:6", ((0, 3),))
RUN = ["run", "tiny", "--prompt", "hello", "--tp", "2", "--pp", "2"]


@pytest.fixture(scope="module")
def session():
    """One Ray for all tests of this file."""
    machine = RayMachine()
    machine._connect()
    yield
    machine.close()


@pytest.fixture
def load(session):
    """Return a function that loads a machine; it is closed at the end."""
    machines = []

    def start(plan, pack=1) -> RayMachine:
        machines.append(RayMachine(pack))
        machines[-1].load(plan, no_progress)
        return machines[-1]

    yield start
    for machine in machines:
        machine.close()


def test_an_encoder_on_actors_embeds_as_in_one_process(session):
    texts = ("hello there", "chips")
    reports = [
        embed_sentences(Options("tiny-encoder", texts, chips=2, machine=machine), Bars())
        for machine in ("local", "ray")
    ]
    assert reports[0] == reports[1]


@pytest.mark.parametrize(
    "plan, pack, actors", [(PLAN, 1, 4), (PLAN, 3, 2), (THROUGH, 2, 2)], ids=str
)
def test_bits_and_cycles_are_those_of_the_local_machine(load, plan, pack, actors):
    machine = load(lowered(*plan), pack)
    assert machine.actors == actors
    assert outcome(lowered(*plan), machine) == local_outcome(*plan)
    assert machine.worker_bytes() > actors * 2**20


@pytest.mark.parametrize(
    ("name", "tp", "pp", "weights"),
    [
        pytest.param("mixtral", 2, 1, "fp16", marks=pytest.mark.soak),
        ("mistral-window", 1, 2, "w8a16"),
    ],
)
def test_mixtures_and_windows_leave_the_digest_of_the_local_machine(session, name, tp, pp, weights):
    """A layer for each stage; the prompt of 29 tokens is longer than the windows of 8."""
    source, graph = open_folder(DATA / "architectures" / name, name), parse("node")
    model = replace(source.model, layers=source.model.layers[:pp])
    plan = partition(model, GROQCHIP1, tp, pp, weights=weights)
    compiled = lower(plan, place(plan, graph, "node"), graph, source)
    prompt, digests = cases_of(name)[1]["prompt_ids"], set()
    for machine in (LocalMachine(), RayMachine()):
        machine.load(compiled, no_progress)
        runner = PipelineRunner(compiled, machine)
        said = tuple(runner.generate(prompt, 2, Sampling(), frozenset()))
        digests.add((said, tuple(runner.cycles), runner.digest.hexdigest()))
        machine.close()
    assert len(digests) == 1


def test_sums_rounded_between_nodes_leave_the_digest_of_the_local_machine(load):
    lowered, machine = rounded_between_nodes(), LocalMachine()
    machine.load(lowered, no_progress)
    assert outcome(lowered, load(lowered, 8)) == outcome(lowered, machine)


def test_sequences_in_flight_leave_the_digest_of_the_local_machine(load):
    """Launches are joined as they are needed, also when channels are open."""
    plan = (1, 3, "mesh:2x3", 4)
    runner, said = answered(pipeline_plan(*plan), load(pipeline_plan(*plan)))
    local, said_there = answered_here(*plan)
    assert said == said_there and runner.digest.hexdigest() == local.digest.hexdigest()


@pytest.mark.skipif(not can_fork(), reason="workers are forked on Linux only")
def test_workers_are_lean_forks_of_one_process_with_random_names_of_their_own(load):
    """Also after workers before them have been killed: their fork server lives on."""
    load(lowered(1, 1, "node")).close()
    machine = load(lowered(2, 1, "node"))
    actor = machine._actors[0]
    ask = actor.__ray_call__.remote
    parents = [a.__ray_call__.remote(lambda _: __import__("os").getppid()) for a in machine._actors]
    (parent,) = set(machine._get(parents))
    assert b"fork_server" in Path(f"/proc/{parent}/cmdline").read_bytes()
    names = [
        a.__ray_call__.remote(lambda _: __import__("ray").ObjectRef.from_random().hex())
        for a in machine._actors
    ]
    assert len(set(machine._get(names))) == len(names)
    found = machine._get(ask(lambda _: sorted(__import__("sys").modules)))
    assert "chip.core" in found
    for heavy in (
        "networkx",
        "topology",
        "gguf",
        "tokenizers",
        "cluster.compiler.lower",
        "cluster.machines.ray.ray_machine",
    ):
        assert heavy not in found
    assert machine._get(ask(lambda _: __import__("os").environ["OMP_NUM_THREADS"])) == "1"


UNFORKED = """
from cluster.machines.ray import capacity, ray_machine
from tests.cluster.tiny import lowered, no_progress, outcome, reference_tokens
ray_machine.can_fork = lambda: False
capacity.COMPILED_SRAM_BYTES = 1 << 30
machine, plan = ray_machine.RayMachine(), lowered(2, 1, "node")
machine.load(plan, no_progress)
ask = machine._actors[0].__ray_call__.remote
found = machine._get(ask(lambda _: sorted(__import__("sys").modules)))
same = outcome(plan, machine).tokens == reference_tokens()
machine.close()
heavy = {"numba", "scipy", "networkx", "topology", "cluster.compiler.lower"}
print("chip.core" in found, same, sorted(heavy & set(found)))
"""


def test_where_nothing_can_be_forked_workers_are_those_of_ray_and_lean():
    result = subprocess.run(
        [sys.executable, "-c", UNFORKED], cwd=ROOT, text=True, capture_output=True, check=False
    )
    assert (result.stdout, result.returncode) == ("True True []\n", 0), result.stderr


def test_an_error_in_an_actor_arrives_as_itself(load):
    plan = lowered(*PLAN)
    machine = load(plan)
    wrong = {0: {"x0": np.zeros(3, np.float32)}}
    for _ in range(2):
        with pytest.raises(ChipError, match="does not fill"):
            machine.launch("rows1.logits1@320", wrong)
    assert outcome(plan, machine) == local_outcome(*PLAN)  # and the machine lives on


@pytest.mark.parametrize("moment", [
    ("link", 1), ("weights", 1),
    *(pytest.param(moment, marks=pytest.mark.soak) for moment in (("start", 3), ("weights", 0))),
])  # fmt: skip
def test_an_actor_killed_while_a_machine_loads_changes_nothing(session, moment):
    import ray

    machine, killed = Checkpointed(bare := RayMachine(), CheckpointStore(None), every=3), []

    def progress(what: str, done: int, total: int) -> None:
        if not killed and (what, done) == moment:
            killed.append(bare._actors[done])
            ray.kill(killed[0], no_restart=False)

    try:
        machine.load(lowered(*PLAN), progress)
        assert killed and outcome(lowered(*PLAN), machine) == local_outcome(*PLAN)
    finally:
        machine.close()


def test_a_corrupt_program_is_refused_by_the_actor(load):
    plan = lowered(*PLAN)
    launches = {name: replace(one, programs={0: b"\xc1"}) for name, one in plan.launches.items()}
    with pytest.raises(ProgramError):
        load(replace(plan, launches=launches))


def test_a_dead_actor_is_one_clear_line_and_can_be_revived(load):
    import ray

    machine = load(lowered(*PLAN))
    ray.kill(machine._actors[2])
    with pytest.raises(WorkerLost, match="machine ray: ") as caught:
        outcome(lowered(*PLAN), machine)
    assert "\n" not in str(caught.value) and "1 of 4 actors died" in str(caught.value)
    machine.revive()
    machine.restore({})
    assert outcome(lowered(*PLAN), machine) == local_outcome(*PLAN)


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's tables of sockets")
def test_nothing_listens_beyond_loopback(load):
    machine = load(lowered(1, 1, "node"))
    ours = _descendants(os.getpid())
    assert {one.pid for one in machine.health()} < ours
    sockets = {link for pid in ours for link in _files(pid)}
    addresses = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for row in map(str.split, Path(table).read_text().splitlines()[1:]):
            if row[3] == "0A" and f"socket:[{row[9]}]" in sockets:  # 0A: it listens
                addresses.append(row[1].partition(":")[0])
    assert len(addresses) > 5  # the head's and the raylet's servers, and the actor's
    v6 = "0" * 16 + "FFFF0000"  # of IPv4 addresses
    assert {address.removeprefix(v6) for address in addresses} == {"0100007F"}


def test_actors_are_named_after_their_chips():
    plan = lowered(*THROUGH)
    assert grouped(plan, 2) == [[0, 3], list(plan.transit_chips)]
    names = [actor_name(plan, group) for group in grouped(plan, 1)]
    assert names[:3] == ["chip-000 stage 0 rank 0", "chip-003 stage 0 rank 1", "chip-001 transit"]
    assert actor_name(plan, [3, 1]) == "chip-003 stage 0 rank 1 and 1 more"


def test_constants_are_cut_into_bounded_calls():
    plan = lowered(*PLAN)
    constants = list(plan.constants()) * 20
    cut = list(chunks(iter(constants), {chip: chip % 2 for chip in range(4)}))
    assert sum(len(chunk) for _, chunk in cut) == len(constants)
    assert all(chip % 2 == group for group, chunk in cut for chip, _, _ in chunk)
    largest = max(values.nbytes for _, _, values in constants)
    assert max(sum(v.nbytes for _, _, v in chunk) for _, chunk in cut) < (4 << 20) + largest
    assert len(cut) > 2


def test_an_address_without_a_cluster_is_refused_at_once():
    with pytest.raises(BadValue, match=r"--address 127\.0\.0\.1:1: no Ray cluster there"):
        RayMachine(address="127.0.0.1:1")._connect()


def lpu(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cluster", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, check=False,
        env=os.environ | environment,
    )  # fmt: skip


def test_the_command_gives_the_same_report_on_both_machines():
    arguments = [*RUN, "--max-new-tokens", "4", "--json"]
    local, ray = lpu(*arguments), lpu(*arguments, "--machine", "ray")
    assert (ray.returncode, ray.stderr) == (0, "")
    here, there = json.loads(local.stdout), json.loads(ray.stdout)
    assert there["host"]["machine"] == "ray" and there["host"]["actors"] == 4
    for key in ("digest", "output_ids", "text", "plan", "emulated"):
        assert here[key] == there[key]


def test_a_cluster_that_runs_already_can_be_used(monkeypatch):
    from ray.cluster_utils import Cluster

    loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    for name, value in loopback.items():
        monkeypatch.setenv(name, value)
    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=2, object_store_memory=100 << 20, include_dashboard=False)
        arguments = [*RUN, "--max-new-tokens", "2", "--json", "--machine", "ray"]
        result = lpu(*arguments, "--address", cluster.address, **loopback)
        assert (result.returncode, result.stderr) == (0, "")
        assert json.loads(result.stdout)["host"]["actors"] == 4
    finally:
        cluster.shutdown()


def test_ctrl_c_leaves_nothing_behind():
    others = _folders()
    command = [sys.executable, "-m", "cluster", *RUN, "--max-new-tokens", "300", "--machine", "ray"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, start_new_session=True
    )
    assert process.stdout.read(1)  # the first of 300 tokens
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and b"Traceback" not in err
    deadline = time.monotonic() + 10
    while _left_over(process.pid, others) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _left_over(process.pid, others)
    assert _folders() <= others


def _folders() -> set[str]:
    """Folders of Ray's, and semaphores of channels whose process is gone."""
    left = {str(path) for path, owner in _semaphores(SHARED) if not _runs(owner)}
    return left | {str(path) for path in Path("/tmp").glob("lpu-ray-*")}


def test_semaphores_of_processes_that_end_are_removed_and_no_others(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mine, its = (f"sem.obj{pid}-17" for pid in (os.getpid(), child.pid))
    for name in (mine, its, "sem.other", f"plasma-{child.pid}-1"):
        (tmp_path / name).touch()
    with swept(tmp_path):
        child.communicate(b"\n")
    assert {path.name for path in tmp_path.iterdir()} == {
        mine,
        "sem.other",
        f"plasma-{child.pid}-1",
    }


def _left_over(session: int, others: set[str]) -> list[str]:
    """Processes of the session, and those that work in a folder of Ray's other than `others`."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            command += os.readlink(path / "cwd")  # of the fork server it is Ray's folder
            theirs = int((path / "stat").read_text().rpartition(")")[2].split()[3])
        except OSError:
            continue
        strange = "/tmp/lpu-ray-" in command and not any(name in command for name in others)
        if theirs == session or strange:
            found.append(command)
    return found


def _descendants(root: int) -> set[int]:
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            status = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.name)] = int(status[1])
    found, more = {root}, {root}
    while more:
        more = {pid for pid, parent in parents.items() if parent in more}
        found |= more
    return found


def _files(pid: int) -> list[str]:
    try:
        return [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return []
