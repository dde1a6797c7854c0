"""An actor killed at any moment, from the start of a machine to its report: the same digest."""

import os
import random
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import ray
from ray import exceptions

from cluster.errors import WorkerLost
from cluster.generation.sampling import Sampling
from cluster.machines.checkpoint import Checkpointed
from cluster.machines.checkpoint_store import CheckpointStore
from cluster.machines.ray.channels import Mailbox
from cluster.machines.ray.ray_machine import RayMachine
from cluster.machines.ray.shm_ring import ChannelClosed
from cluster.serving.engine import PipelineRunner
from tests.cluster.tiny import NEW_TOKENS, PROMPT, local_outcome, lowered, outcome_of
from tests.ray.test_ray_machine import _descendants

pytestmark = pytest.mark.ray
SIX = (3, 2, "node")
MOMENTS = int(os.environ.get("LPU_MOMENTS", "2"))  # at which an actor is killed; more by hand


@pytest.fixture(scope="module")
def session():
    """One Ray for all tests of this file."""
    machine = RayMachine()
    machine._connect()
    yield
    machine.close()


class Killer:
    """Counts what happens, and kills one actor soon after the event of number `at`."""

    def __init__(self, at: int | None, seed: int = 0) -> None:
        self.events, self.killed = 0, list[int]()
        self._at, self._random, self._old = at, random.Random(seed), chip_processes()
        self._thread = threading.Thread(target=self._kill)

    def event(self, *_: object) -> None:
        self.events += 1
        if self.events == self._at:
            self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _kill(self) -> None:
        time.sleep(self._random.random() / 20)
        while not (up := [pid for pid in chip_processes() if pid not in self._old]):
            time.sleep(0.01)
        self.killed.append(self._random.choice(up))
        os.kill(self.killed[0], signal.SIGKILL)


def six_actors(killer: Killer, at_the_end: Killer | None = None) -> None:
    """Load, generate and report; what comes out must be that of the local machine."""
    plan = lowered(*SIX)
    machine = Checkpointed(RayMachine(), CheckpointStore(None), every=3)
    try:
        machine.load(plan, killer.event)
        runner, tokens = PipelineRunner(plan, machine), []
        for token in runner.generate(PROMPT, NEW_TOKENS, Sampling(), frozenset()):
            tokens.append(token)
            killer.event()
        if at_the_end:
            at_the_end.event()
            at_the_end.join()
        assert machine.worker_bytes() > 0 and machine.costs()["actor_bytes"] > 0
        assert outcome_of(runner, tuple(tokens)) == local_outcome(*SIX)
    finally:
        machine.close()


def chip_processes() -> list[int]:
    """Actors of this session that are up."""
    found = []
    for pid in sorted(_descendants(os.getpid())):
        with suppress(OSError):
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
            if title.startswith((b"ray::ChipHost", b"ray::chip-")):  # at rest, in a call
                found.append(pid)
    return found


@pytest.fixture(scope="module")
def events(session) -> int:
    """What happens from the start to the last token where nobody is killed."""
    six_actors(watch := Killer(None))
    return watch.events


@pytest.mark.parametrize("seed", range(MOMENTS))
def test_an_actor_killed_at_any_moment_changes_nothing(events, seed):
    moment = (seed + random.Random(seed).random()) / MOMENTS
    killer = Killer(1 + int(moment * events), seed)
    six_actors(killer)
    killer.join()
    assert len(killer.killed) == 1


def test_an_actor_killed_after_the_last_launch_changes_no_report(session):
    six_actors(Killer(None), at_the_end=Killer(1, 5))


def test_a_launch_that_begins_after_all_channels_are_closed_is_none_that_failed_first():
    for act in (lambda m: m.fetch(2, 0, 1, 1), lambda m: m.send(2, 0, 1, [])):
        with pytest.raises(ChannelClosed):
            act(Mailbox())


def test_an_actor_that_wants_the_result_of_a_dead_one_is_not_what_failed(monkeypatch):
    def get(_):
        gone = exceptions.ActorUnavailableError("temporarily unavailable ... restarting", None)
        raise exceptions.RayTaskError("take_channel", "", gone)

    monkeypatch.setattr(ray, "get", get)
    with pytest.raises(WorkerLost):
        RayMachine()._get([])
