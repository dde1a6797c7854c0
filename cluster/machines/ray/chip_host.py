"""The work of one actor: some chips, their programs, and the channels to other actors.

Plain and synchronous; `ray_machine` makes it remote, and gives it all that it needs of Ray.
A worker imports this and `chip` only.
"""

import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from chip.board import Facts
from chip.core import Array
from chip.group import Batch, ChipGroup, Finished
from chip.jit import set_backend, set_threads
from chip.linker.reuse import Linker
from chip.own_spec import chip_of
from chip.program import Region
from chip.wire import pack_value, unpack_value
from cluster.errors import WorkerLost
from cluster.machines.ray.channels import Channel, Mailbox, Slot
from cluster.machines.ray.shm_ring import RingHandle, can_be_shared, join_ring, make_ring
from cluster.process import peak_rss_bytes, private_bytes

log = logging.getLogger("lpu.chip")
LINKER = Linker()  # holds what a fork server has linked for all of a host's actors
METERS = {
    "lpu_segments": "Segments that the chips of an actor have run.",
    "lpu_packets": "Packets that an actor has sent to other actors.",
    "lpu_bytes": "Bytes of the messages that carried them.",
    "lpu_replays": "Times an actor was put back to a checkpoint, to replay from there.",
}


@dataclass(frozen=True)
class Health:
    """What a living actor says of itself; `launches` that it has finished, 0 also says "new"."""

    name: str
    host: str
    pid: int
    loaded: bool
    peak_bytes: int
    private_bytes: int
    interpreted_nodes: int


@dataclass(frozen=True)
class Wanted:
    """A channel to be made: to group `receiver`, whose actor is `handle` on host `node`."""

    receiver: int
    handle: Any
    node: str
    slots: int
    slot_bytes: int


class ChipHost:
    """Chips of one process; `meter` makes a counter from a name, a description and tag names."""

    def __init__(
        self,
        name: str,
        numbers: Sequence[int],
        spec: str,
        backend: Literal["numpy", "auto"] = "numpy",
        threads: int = 1,
        meter: Callable[..., Any] | None = None,
    ) -> None:
        # Compiled kernels cost a worker 130 MB and a second or two; NumPy's give equal bits.
        if backend == "auto":
            set_threads(threads)
        set_backend(backend)
        self.name = name
        self._group = ChipGroup(numbers, chip_of(spec), LINKER.branch())
        self._batches: dict[str, list[Batch]] = {}
        self._groups: dict[str, dict[int, int]] = {}
        self._mail = Mailbox()
        self._linked = self._loaded = False
        self._tally = dict.fromkeys(METERS, 0)
        self._meters: dict[str, Any] = {}
        if meter:
            self._meters = {key: meter(key, text, ("actor",)) for key, text in METERS.items()}
            logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
        log.info("%s: up, process %d on %s", name, os.getpid(), socket.gethostname())

    def health(self) -> Health:
        """Who and how this is; the actor is up."""
        sizes = peak_rss_bytes(), private_bytes(), self._group.interpreted_nodes
        return Health(self.name, socket.gethostname(), os.getpid(), self._loaded, *sizes)

    # --- load -------------------------------------------------------------------------------
    def load(self, programs: Sequence[tuple[str, int, bytes]]) -> list[Facts]:
        """Link (launch name, chip, msgpack) programs; their facts in the same order."""
        facts = [self._group.load(*program) for program in programs]
        self._linked = True
        return facts

    def write(self, constants: Sequence[tuple[int, Region, Array]]) -> None:
        """Store (chip, region, values); raises WorkerLost like all that needs programs."""
        self._check(self._linked)
        self._group.write(constants)

    def contents(self, wanted: Mapping[int, Sequence[Region]]) -> dict[int, list[bytes]]:
        """What is in regions, by chip."""
        self._check(self._loaded)
        return self._group.contents(wanted)

    def put(
        self, wanted: Mapping[int, Sequence[Region]], contents: Mapping[int, Sequence[bytes]]
    ) -> None:
        """Put it into regions as large."""
        self._check(self._loaded)
        self._group.put(wanted, contents)

    def prepare(
        self, launches: Mapping[str, tuple[Sequence[Batch], Mapping[int, int], Mapping[int, str]]]
    ) -> None:
        """Take this host's batches of launches, and the groups of the batches they talk to.

        A launch with parts is joined from the programs of others.
        """
        self._check(self._linked)
        for name, (mine, groups, parts) in launches.items():
            if parts:
                self._group.join(name, parts, mine)
            else:
                self._group.prepare(name, mine)
            self._batches[name], self._groups[name] = list(mine), dict(groups)

    def ready(self) -> None:
        """Note that all programs and constants are here."""
        self._check(bool(self._batches))
        self._loaded = True

    def _check(self, ready: bool) -> None:
        """Raise WorkerLost when Ray has started this actor again: it is up, and empty."""
        if not ready:
            raise WorkerLost("ray", f"{self.name} was lost, and is empty since it is up again")

    # --- channels ---------------------------------------------------------------------------
    def open_channels(
        self, make_slot: Callable[..., Slot], me: Any, node: str, wanted: Sequence[Wanted]
    ) -> Any:
        """Make channels to other actors: rings on our host `node`, else out of slots of Ray.

        What is returned is for `take_channel` of the receivers.
        """
        made: list[Channel | RingHandle] = []
        for one in wanted:
            if one.node == node and can_be_shared():
                ring = self._mail.outgoing[one.receiver] = make_ring(one.slots, one.slot_bytes)
                made.append(ring.handle())
                continue
            reader = [(one.handle, one.node)]
            slots = [make_slot(me, reader, one.slot_bytes) for _ in range(one.slots)]
            self._mail.outgoing[one.receiver] = Channel(slots)
            made.append(Channel(slots))
        return made[0] if len(made) == 1 else made

    def take_channel(self, sender: int, channel: Channel | RingHandle) -> None:
        """Receive from group `sender`; raises WorkerLost if the writer of `channel` is gone."""
        try:
            self._mail.incoming[sender] = (
                join_ring(channel) if isinstance(channel, RingHandle) else channel
            )
        except OSError as error:
            raise WorkerLost("ray", f"{self.name} cannot open a channel", str(error)) from None

    def close_channels(self) -> None:
        """Close all channels: a launch that waits at one fails."""
        self._mail.close()

    # --- run --------------------------------------------------------------------------------
    def launch(self, name: str, data: bytes) -> Finished:
        """Run all batches of a launch, in order; `data` holds the host's inputs, by chip."""
        self._check(self._loaded)
        tables, chips = unpack_value(data)
        inputs = {
            chip: {key: tables[at] for key, at in named.items()}
            for chip, named in chips.items()
            if chip in self._group.chips
        }
        try:
            self._group.begin(name, inputs)
            for batch in self._batches[name]:
                self._run(name, batch, self._groups[name])
            return self._group.finish(name)
        except Exception as error:
            log.warning("%s: launch %s failed: %s", self.name, name, error)
            raise
        finally:
            self._count()

    def _run(self, name: str, batch: Batch, groups: Mapping[int, int]) -> None:
        bundles = [
            self._mail.fetch(groups[source], source, batch.index, len(packets))
            for source, packets in batch.inbox
        ]
        replies = self._group.run(name, batch.index, bundles)
        self._tally["lpu_segments"] += len(batch.calls)
        for (target, packets), bundle in zip(batch.outbox, replies, strict=True):
            size = self._mail.send(groups[target], batch.index, target, bundle)
            self._tally["lpu_packets"] += len(packets)
            self._tally["lpu_bytes"] += size

    def _count(self) -> None:
        """Hand the counts of a launch to the meters: each such call costs as much as a packet."""
        for key, amount in self._tally.items():
            if amount and self._meters:
                self._meters[key].inc(amount, {"actor": self.name})
            self._tally[key] = 0

    # --- checkpoints ------------------------------------------------------------------------
    def changes(self) -> bytes:
        """Blocks of SRAM, by chip, that have changed since the last call, as msgpack."""
        self._check(self._loaded)
        return pack_value(self._group.changes())

    def restore(self, data: bytes) -> None:
        """Go back to where the changes of every chip were those of `data`."""
        self._check(self._loaded)
        self._group.restore(unpack_value(data))
        self._tally["lpu_replays"] += 1
        log.warning("%s: back at the last checkpoint", self.name)
