"""Chips on Ray actors.

Ray places and starts the actors, carries programs and constants to them, starts them again when
they die, and gives them shared-memory channels for their packets. A launch is one call per actor;
inside it the actors run their batches of segments in the order that the schedule fixes.
"""

import os
import shutil
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import exceptions
from ray.experimental.channel.shared_memory_channel import Channel as RayChannel
from ray.util.metrics import Counter
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from chip.board import Facts, Wiring
from chip.checkpoint import Block
from chip.own_spec import identity
from chip.wire import pack_value, unpack_value
from cluster.errors import MachineError, WorkerLost
from cluster.machines.checkpoint_store import checked_blocks
from cluster.machines.loadable import Loadable
from cluster.machines.machine import (
    LINKING,
    STARTING,
    Contents,
    Inputs,
    Parts,
    Progress,
    Regions,
    Result,
    counted_constants,
)
from cluster.machines.ray import addresses, capacity, grouping, joining, surroundings
from cluster.machines.ray.chip_host import ChipHost, Health, Wanted
from cluster.machines.ray.exchange import Exchange, exchange
from cluster.machines.ray.fork_server import ForkServer, can_fork
from cluster.program_store import NOTHING_KEPT, ProgramStore

OBJECT_STORE_BYTES = 256 << 20
UNFINISHED_BYTES = 64 << 20  # of all unfinished calls that bring weights: a quarter of the store
INLINE_BYTES = 64 << 10  # larger inputs go to the object store once instead of into every call
START_TIMEOUT_S, LEAVE_S, POLL_S = 300.0, 20.0, 0.2
# What can be imported before a fork; of channels, all workers would draw the same random names.
FORKABLE = ("ray._private.worker", "ray._private.node", "ray.util.metrics")
# No workers before their programs are linked, and none that yields, as a token waits for each.
SYSTEM = {"prestart_worker_first_driver": False, "worker_niceness": 0}
LOAD_TRIES = 4
CHANGES_BYTES = 4 << 20  # of one chip at a checkpoint, about


class RayMachine:
    """One actor per `chips_per_actor` chips, on the cluster at `address` or one of our own."""

    name = "ray"

    def __init__(
        self,
        chips_per_actor: int | str = 1,
        address: str | None = None,
        store: ProgramStore = NOTHING_KEPT,
    ) -> None:
        self._pack, self._address, self._programs = chips_per_actor, address, store
        self._ours = self._channels_open = False
        self._folder: Path | None = None
        self._forks: ForkServer | None = None
        self._placed: Any = None
        self._actors: list[Any] = []
        self._groups: list[list[int]] = []
        self._exchange: Exchange | None = None
        self._nodes: list[str] = []

    @property
    def actors(self) -> int:
        """Worker processes besides this one."""
        return len(self._actors)

    @property
    def wirings(self) -> dict[str, Wiring]:
        """Who sends what to whom, by launch."""
        assert self._exchange is not None, "load comes first"
        return self._exchange.wirings

    # --- load -------------------------------------------------------------------------------
    def load(self, lowered: Loadable, progress: Progress) -> None:
        """Start Ray and the actors; link programs and store constants there."""
        progress(STARTING, 0, 0)
        if not ray.is_initialized():
            self._connect()
        free = ray._private.state.available_resources_per_node()  # type: ignore[no-untyped-call]
        hosts = capacity.living_hosts(ray.nodes(), free)  # type: ignore[no-untyped-call]
        pack = capacity.packing(self._pack, lowered, hosts)
        self._lowered, self._groups = lowered, grouping.grouped(lowered, pack)
        self._group_of = {chip: n for n, group in enumerate(self._groups) for chip in group}
        bundles = grouping.bundled(lowered, self._groups)
        forked = self._forks is not None
        backend, self._sizes = capacity.chosen(lowered, self._groups, bundles, hosts, forked)
        self._settings = backend, capacity.worker_threads(lowered, pack, hosts), Counter
        self._link_here(progress)
        self._place(bundles)
        self._wave = max(4, 2 * int(sum(host.cpus for host in hosts)))
        for tries_left in reversed(range(LOAD_TRIES)):  # an actor lost meanwhile: begin again
            try:
                return self._load_actors(progress)
            except WorkerLost:
                if not tries_left:
                    raise
                self._end_actors()

    def _load_actors(self, progress: Progress) -> None:
        everyone = range(len(self._groups))
        self._start(progress)
        self._link(everyone, progress)
        self._store(everyone, counted_constants(self._lowered, progress))

    def _connect(self) -> None:
        self._ours = True
        joining.calm()
        place = addresses.place(self._address, os.environ)
        if place:
            joining.join(place)
            return
        self._folder = surroundings.new_folder()
        self._forks = ForkServer(self._folder, FORKABLE) if can_fork() else None
        settings = {"object_store_memory": OBJECT_STORE_BYTES, "_system_config": dict(SYSTEM)}
        surroundings.start_own(ray, self._folder, joining.QUIET | settings)

    def _link_here(self, progress: Progress) -> None:
        """Link programs in the fork server, each of those that are equal once."""
        if self._forks:
            programs = grouping.distinct(self._lowered)
            with self._programs.linked(self._forks, programs):
                for number, program in enumerate(programs):
                    progress(LINKING, number, len(programs))
                    self._forks.link(program)

    def _place(self, bundles: Sequence[Sequence[int]]) -> None:
        """Reserve memory, a bundle per tensor group, so that each is on one host."""
        wanted = [{"memory": sum(self._sizes[n] for n in bundle)} for bundle in bundles]
        self._bundle_of = {n: place for place, bundle in enumerate(bundles) for n in bundle}
        self._placed = placement_group(wanted, strategy="PACK", name="lpu-cluster")
        if not self._placed.wait(START_TIMEOUT_S):
            problem = f"the cluster has had no room for {len(wanted)} groups of actors"
            advice = f"others use it, or wait for hosts; {START_TIMEOUT_S:.0f} s are over"
            raise MachineError("ray", problem, advice)

    def _start(self, progress: Progress) -> None:
        """Start the actors, a few at a time: as soon as one answers, another starts."""
        total = len(self._groups)
        waiting: list[Any] = []
        progress(STARTING, 0, total)
        while waiting or len(self._actors) < total:
            while len(self._actors) < total and len(waiting) < self._wave:
                self._actors.append(self._new(len(self._actors)))
                waiting.append(self._actors[-1].health.remote())
            done, waiting = ray.wait(waiting, timeout=START_TIMEOUT_S)
            self._get(done)
            if not done:
                missing = f"{len(waiting)} of {total} actors do not come up"
                raise MachineError("ray", missing, "free memory, or use --chips-per-actor")
            progress(STARTING, len(self._actors) - len(waiting), total)

    def _new(self, number: int) -> Any:
        """An actor; launches have a thread of their own, so that it answers meanwhile."""
        group, name = self._groups[number], self._name(number)
        remote = ray.remote(concurrency_groups={"launch": 1})(ChipHost)  # type: ignore[call-overload]
        place = PlacementGroupSchedulingStrategy(self._placed, self._bundle_of[number])
        actor = remote.options(
            name=name,
            num_cpus=0,
            memory=self._sizes[number],
            max_restarts=-1,
            scheduling_strategy=place,
        )
        return actor.remote(name, group, identity(self._lowered.plan.spec), *self._settings)

    def _name(self, number: int) -> str:
        return grouping.actor_name(self._lowered, self._groups[number])

    def _link(self, numbers: Iterable[int], progress: Progress) -> None:
        """Link the programs of some actors, wire all launches, and hand out the batches."""
        numbers = list(numbers)
        known: dict[str, dict[int, Facts]] = {name: {} for name in self._lowered.launches}
        busy: deque[tuple[list[tuple[str, int, bytes]], Any]] = deque()
        for done in range(len(numbers) + self._wave):  # no more at a time than there are CPUs for
            if done < len(numbers):
                mine = grouping.programs_of(self._lowered, self._groups[numbers[done]])
                busy.append((mine, self._actors[numbers[done]].load.remote(mine)))
            if busy and done + 1 >= self._wave:
                programs, call = busy.popleft()
                for (name, chip, _), facts in zip(programs, self._get(call), strict=True):
                    known[name][chip] = facts
            progress(LINKING, min(max(done + 1 - self._wave, 0), len(numbers)), len(numbers))
        if self._exchange is None:
            self._exchange = exchange(self._lowered, known, self._group_of)
        self._get([self._actors[n].prepare.remote(self._exchange.of_group(n)) for n in numbers])

    def _store(self, numbers: Iterable[int], constants: Iterable[grouping.Constant]) -> None:
        """Stream constants to some actors, a bounded number of bytes in flight."""
        wanted = set(numbers)
        calls: deque[tuple[Any, int]] = deque()
        unfinished = 0
        for number, chunk in grouping.chunks(constants, self._group_of):
            if number not in wanted:
                continue
            size = sum(values.nbytes for _, _, values in chunk)
            while calls and unfinished + size > UNFINISHED_BYTES:
                call, done = calls.popleft()
                self._get(call)
                unfinished -= done
            calls.append((self._actors[number].write.remote(chunk), size))
            unfinished += size
        self._get([call for call, _ in calls])
        self._get([self._actors[n].ready.remote() for n in wanted])

    def _open_channels(self, wired: Exchange) -> None:
        """Make the channels between all actors that talk; they are new after every failure."""
        ask = ray.get_runtime_context  # a module of ours would be imported there
        calls = [actor.__ray_call__.remote(lambda _: ask().get_node_id()) for actor in self._actors]
        self._nodes = self._get(calls)
        wanted: dict[int, list[Wanted]] = {}
        for (sender, receiver), need in wired.channels.items():
            reader = self._actors[receiver], self._nodes[receiver]
            channel = Wanted(receiver, *reader, need.slots, max(need.message_bytes, 2000))
            wanted.setdefault(sender, []).append(channel)
        taken = []
        for sender, channels in wanted.items():
            method = self._actors[sender].open_channels
            method = method.options(concurrency_group="launch", num_returns=len(channels))
            made = method.remote(RayChannel, self._actors[sender], self._nodes[sender], channels)
            for channel, ref in zip(channels, made if len(channels) > 1 else [made], strict=True):
                taken.append(channel.handle.take_channel.remote(sender, ref))
        self._get(taken)
        self._channels_open = True

    def join(self, name: str, parts: Parts) -> None:
        """Make a launch of programs that are loaded, with larger channels if it needs them."""
        assert self._exchange is not None, "load comes first"
        more = self._exchange.joined(self._lowered, name, parts)
        if more.channels != self._exchange.channels and self._channels_open:
            self._close_channels()
        self._exchange = more
        numbered = enumerate(self._actors)
        self._get([actor.prepare.remote(more.of_group(n, (name,))) for n, actor in numbered])

    # --- run --------------------------------------------------------------------------------
    def launch(self, name: str, inputs: Inputs) -> Result:
        """Run one launch on every chip: a call per actor, which talk among themselves."""
        wired = self._exchange
        assert wired is not None, "load comes first"
        if not self._channels_open:
            self._open_channels(wired)
        data: Any = grouping.pack_inputs(inputs)
        if len(data) > INLINE_BYTES:
            data = ray.put(data)
        calls = [
            self._actors[n].launch.options(concurrency_group="launch").remote(name, data)
            for n in wired.busy(name)
        ]
        try:
            finished = ray.get(calls)
        except (exceptions.RayError, ConnectionError):
            self._abort(calls)
        outputs = {chip: found for one in finished for chip, found in one.outputs.items()}
        digests = {chip: found for one in finished for chip, found in one.digests.items()}
        return Result(outputs, wired.wirings[name].end_cycle, digests)

    def contents(self, regions: Regions) -> Contents:
        """What is in the SRAM of chips."""
        shared = grouping.by_group(self._groups, regions)
        found = self._get([self._actors[n].contents.remote(mine) for n, mine in shared.items()])
        return {chip: data for one in found for chip, data in one.items()}

    def put(self, regions: Regions, contents: Contents) -> None:
        """Put it into regions as large."""
        places, data = (grouping.by_group(self._groups, of) for of in (regions, contents))
        self._get([self._actors[n].put.remote(mine, data[n]) for n, mine in places.items()])

    def _abort(self, calls: Sequence[Any]) -> None:
        """End a failed launch everywhere, and raise what it was that failed first."""
        self._close_channels()
        ray.wait(list(calls), num_returns=len(calls), timeout=LEAVE_S)
        found: list[Exception] = []
        for call in calls:
            try:
                ray.get(call, timeout=0)
            except (exceptions.RayError, ConnectionError) as error:
                found.append(error)
        raise surroundings.first(found, self.actors) from None

    def _close_channels(self) -> None:
        self._channels_open = False
        for actor in self._actors:
            actor.close_channels.remote()

    def _get(self, refs: Any) -> Any:
        """ray.get, with errors raised in actors as themselves and Ray's own as one line."""
        try:
            return ray.get(refs)
        except exceptions.RayTaskError as error:
            other = isinstance(error.cause, exceptions.RayError)  # whose result this one wanted
            lost = surroundings.lost([error.cause], self.actors)
            raise (lost if other else error.cause) from None
        except (exceptions.RayError, ConnectionError) as error:
            raise surroundings.lost([error], self.actors) from None

    def health(self) -> list[Health]:
        """What every actor says of itself, in order."""
        found: list[Health] = self._get([actor.health.remote() for actor in self._actors])
        return found

    def worker_bytes(self) -> int:
        """Memory of all actors together; pages that they share count once."""
        return sum(health.private_bytes for health in self.health())

    def costs(self) -> dict[str, int]:
        """Hosts, memory as foreseen and as measured, and what a decode launch exchanges."""
        wired, health = self._exchange, self.health()
        return {
            "hosts": len(set(self._nodes)),
            "actor_bytes_foreseen": max(self._sizes),
            "actor_bytes": max(one.private_bytes for one in health),
            "interpreted_nodes": sum(one.interpreted_nodes for one in health),
            **(wired.counts(min(wired.batches)) if wired else {}),
        }

    # --- failures ---------------------------------------------------------------------------
    def changes(self) -> dict[int, list[Block]]:
        """Blocks of SRAM, by chip, that have changed since the last call."""
        found: dict[int, list[Block]] = {}
        for wave in grouping.waves(self._groups, CHANGES_BYTES, UNFINISHED_BYTES):
            for data in self._get([self._actors[n].changes.remote() for n in wave]):
                found |= checked_blocks(unpack_value(data))
        return found

    def restore(self, blocks: Mapping[int, list[Block]]) -> None:
        """Go back to where the changes of every chip were `blocks`."""
        for wave in grouping.waves(self._groups, CHANGES_BYTES, UNFINISHED_BYTES):
            mine = [{c: blocks.get(c, []) for c in self._groups[n]} for n in wave]
            pairs = zip(wave, mine, strict=True)
            self._get([self._actors[n].restore.remote(pack_value(its)) for n, its in pairs])

    def revive(self) -> None:
        """Wait until Ray has started lost actors again, elsewhere if need be; load them."""
        deadline = time.monotonic() + START_TIMEOUT_S
        new = [n for n in range(len(self._actors)) if not self._alive(n, deadline).loaded]
        if not new:
            return
        self._close_channels()  # theirs are gone, also where no launch has noticed it
        try:
            self._link(new, lambda *_: None)
            self._store(new, self._lowered.constants({c for n in new for c in self._groups[n]}))
        except WorkerLost:  # those that have a part of it begin anew, too
            for n in new:
                ray.kill(self._actors[n], no_restart=False)
            raise

    def _alive(self, number: int, deadline: float) -> Health:
        """The health of an actor, once it is up; one that is dead for good is replaced."""
        while True:
            try:
                found: Health = ray.get(self._actors[number].health.remote(), timeout=LEAVE_S)
                return found
            except exceptions.ActorDiedError:
                self._actors[number] = self._new(number)
            except (exceptions.ActorUnavailableError, exceptions.GetTimeoutError):
                time.sleep(POLL_S)
            except exceptions.RayError as error:
                raise surroundings.lost([error], self.actors) from None
            if time.monotonic() > deadline:
                problem = f"{self._name(number)} does not come up again; no host has room for it"
                raise MachineError("ray", problem, "add a host, and go on with --resume")

    # --- end --------------------------------------------------------------------------------
    def _end_actors(self) -> None:
        actors, self._actors = self._actors, []
        for actor in actors:
            ray.kill(actor)

    def close(self) -> None:
        """End the actors; also Ray, where we have started it."""
        with surroundings.undisturbed(), surroundings.swept():
            if ray.is_initialized():
                self._end_actors()
                if self._placed is not None:
                    remove_placement_group(self._placed)
                if self._ours:
                    ray.shutdown()
            if self._forks:
                self._forks.close()
            if self._folder:
                shutil.rmtree(self._folder, ignore_errors=True)
