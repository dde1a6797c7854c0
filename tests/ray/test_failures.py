"""Killed actors, killed nodes, killed drivers: the same tokens, cycles and digest."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from itertools import count
from pathlib import Path

import openai
import pytest
from ray import cloudpickle

from cluster.generation.sampling import Sampling
from cluster.machines.checkpoint import Checkpointed
from cluster.machines.checkpoint_store import CheckpointStore
from cluster.machines.ray import task_pool
from cluster.machines.ray.capacity import actor_bytes
from cluster.machines.ray.ray_machine import RayMachine
from cluster.machines.ray.surroundings import loopback
from cluster.machines.ray.task_pool import RayPool
from cluster.serving.engine import PipelineRunner
from cluster.sweeps.evaluation import Evaluator
from cluster.sweeps.grid import points
from cluster.sweeps.local_pool import here
from cluster.sweeps.question import asked
from tests.cluster.serving import serving
from tests.cluster.tiny import NEW_TOKENS, PROMPT, local_outcome, lowered, no_progress, outcome_of

pytestmark = pytest.mark.ray
PLAN = (2, 2, "ring:4")
FOLDERS: list[str] = []  # in which nodes have theirs


def node() -> dict[str, object]:
    """A node with room for one tensor group, and a folder of its own for code, as hosts have."""
    memory = int(2.5 * actor_bytes(lowered(*PLAN), [0], "auto"))
    sizes = {"num_cpus": 1, "memory": memory, "object_store_memory": 80 << 20}
    return sizes | {"temp_dir": tempfile.mkdtemp(dir=FOLDERS[-1])}


@pytest.fixture(scope="module")
def nodes():
    """Three nodes on loopback: the head, which has room for nothing, and one per tensor group."""
    from ray._private import ray_constants
    from ray._private.utils import get_ray_address_file
    from ray.cluster_utils import Cluster

    with loopback(ray_constants), tempfile.TemporaryDirectory(dir="/tmp") as folder:
        FOLDERS.append(folder)  # with a short name, as sockets are in it
        Path(get_ray_address_file(None)).parent.mkdir(parents=True, exist_ok=True)
        cluster = Cluster()
        cluster.add_node(**node() | {"memory": 1 << 20}, include_dashboard=False)
        for _ in range(2):
            cluster.add_node(**node())
        yield cluster
        cluster.shutdown()


def test_a_sweep_has_the_rows_of_one_process_and_a_lost_node_changes_nothing(nodes, tmp_path):
    grid = {"tp": [1, 2, 4], "topology": ["node", "ring:6", "torus:3x3"]}
    found = points(asked({"model": "tiny", "grid": grid}, Path("sweep")))
    alone = {one.number: one.row for some in here(found, Evaluator(tmp_path)) for one in some}
    together: dict[int, object] = {}
    with RayPool(nodes.address) as pool:
        for number, some in enumerate(pool.results(found)):
            together |= {one.number: one.row for one in some}
            if number == 0:
                nodes.remove_node(sorted(nodes.worker_nodes, key=str)[0], allow_graceful=False)
                nodes.add_node(**node())
    rows = [[json.dumps(mine[n]) for n in sorted(mine)] for mine in (together, alone)]
    assert rows[0] == rows[1] and len(rows[0]) == 9


def test_code_that_ray_unpacks_anew_is_no_failure_of_a_point(monkeypatch):
    """Nodes of one host share the folder of a job's code, which each removes when it starts."""

    def away(*_):
        raise errors.pop()

    inside = task_pool.CODE / "chip" / "kernels"
    errors = [PermissionError(13, "denied", "/elsewhere"), FileNotFoundError(2, "", str(inside))]
    monkeypatch.setattr(Evaluator, "some", away)
    with pytest.raises(ImportError):
        task_pool.some([])
    with pytest.raises(PermissionError):
        task_pool.some([])


WITHOUT_OUR_CODE = """
import pickle, sys
class Away:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in ("chip", "cluster", "topology"):
            raise ModuleNotFoundError("away")
sys.meta_path.insert(0, Away)
work = pickle.load(sys.stdin.buffer)
try:
    work(b"")
except ImportError as error:
    print(error)
"""


def test_a_worker_gets_the_task_of_a_sweep_while_our_code_is_away():
    """Ray tries again what fails in a task, and never what fails before it."""
    packed = cloudpickle.dumps(task_pool.task())
    worker = [sys.executable, "-c", WITHOUT_OUR_CODE]
    assert subprocess.run(worker, input=packed, capture_output=True).stdout == b"away\n"


def test_killing_an_actor_then_a_node_changes_nothing(nodes):
    plan = lowered(*PLAN)
    bare = RayMachine(address=nodes.address)
    machine = Checkpointed(bare, CheckpointStore(None), every=3)
    try:
        machine.load(plan, no_progress)
        runner = PipelineRunner(plan, machine)
        tokens = []
        for token in runner.generate(PROMPT, NEW_TOKENS, Sampling(), frozenset()):
            tokens.append(token)
            if len(tokens) == 2:
                os.kill(bare.health()[1].pid, signal.SIGKILL)
            if len(tokens) == 4:
                nodes.remove_node(sorted(nodes.worker_nodes, key=str)[0], allow_graceful=False)
                nodes.add_node(**node())
        assert outcome_of(runner, tuple(tokens)) == local_outcome(*PLAN)
        assert machine.failures >= 2 and machine.replayed >= 1
    finally:
        machine.close()


@pytest.mark.soak
def test_a_server_gives_the_same_answers_when_a_node_is_lost(nodes):
    """Two of three users at a time, on chips of which half are lost meanwhile."""
    prompts = ["tea " * 9, "0123", "a"]
    shape = {"tp": 2, "pp": 2, "topology": "ring:4", "concurrency": 2, "embeddings": "none"}
    with serving(**shape) as (url, _):
        expected = asyncio.run(asked_of(url, prompts))
    with serving(**shape, machine="ray", address=nodes.address) as (url, service):

        def lose(count: int) -> None:
            if count == 10:
                nodes.remove_node(sorted(nodes.worker_nodes, key=str)[0], allow_graceful=False)
                nodes.add_node(**node())

        assert asyncio.run(asked_of(url, prompts, lose)) == expected
        assert service.machine.costs()["worker_failures"] >= 1


async def asked_of(url: str, prompts: list[str], told=lambda count: None) -> list[str]:
    """The answers to all prompts at once; `told` how many pieces of them have come."""
    pieces = count(1)

    async def one(client: openai.AsyncOpenAI, prompt: str) -> str:
        said = ""
        async for chunk in await client.completions.create(
            model="tiny", prompt=prompt, max_tokens=12, temperature=0, stream=True
        ):
            said += chunk.choices[0].text
            told(next(pieces))  # here: Ray starts nodes in the main thread only
        return said

    settings = {"base_url": f"{url}/v1", "api_key": "any", "max_retries": 0, "timeout": 1500}
    async with openai.AsyncOpenAI(**settings) as client:
        return list(await asyncio.gather(*(one(client, prompt) for prompt in prompts)))
