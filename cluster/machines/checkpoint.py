"""Checkpoints: runs that outlive a lost worker, and a killed driver.

`Checkpointed` wraps a machine. Every few launches it takes the blocks of SRAM that have changed
since the last time and puts them into a store. When a worker is lost it lets the machine revive,
puts every chip back to the last checkpoint and replays the launches since then; as programs are
deterministic, what comes out must be equal to the bit, and is compared.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from chip.checkpoint import Block
from cluster.errors import CheckpointError, MachineError, WorkerLost
from cluster.machines.checkpoint_store import CheckpointStore, Past
from cluster.machines.loadable import Loadable
from cluster.machines.machine import (
    Contents,
    Digest,
    Inputs,
    Machine,
    Parts,
    Progress,
    Regions,
    Result,
)
from cluster.machines.wrapper import MachineWrapper

MAX_FAILURES = 5
T = TypeVar("T")


class Survivor(Machine, Protocol):
    """A machine whose chips can be put back to an earlier state."""

    def changes(self) -> dict[int, list[Block]]:
        """Blocks of SRAM, by chip, that have changed since the last call."""

    def restore(self, blocks: Mapping[int, list[Block]]) -> None:
        """Go back to where the changes of every chip were `blocks`."""

    def revive(self) -> None:
        """After WorkerLost: bring back what is gone, as it was after `load`."""


@dataclass(frozen=True)
class _Launched:
    name: str
    inputs: Inputs
    past: Past


@dataclass(frozen=True)
class _Put:
    regions: Regions
    contents: Contents


class Checkpointed(MachineWrapper[Survivor]):
    """Survives up to MAX_FAILURES lost workers."""

    def __init__(self, machine: Survivor, store: CheckpointStore, every: int) -> None:
        super().__init__(machine)
        self.failures = self.replayed = 0
        self._store, self._every = store, every
        self._past: list[Past] = []
        self._recent: list[_Launched | _Put] = []  # since the last checkpoint
        self._count = 0

    def load(self, lowered: Loadable, progress: Progress) -> None:
        """Load the machine; go on where the store ends, if it holds anything."""
        self._past = self._store.open(Digest(lowered).hexdigest())
        super().load(lowered, progress)
        if self._past:
            self._surviving(lambda: self.machine.restore(self._store.blocks()))

    def join(self, name: str, parts: Parts) -> None:
        """Join the programs; a worker that is lost meanwhile is brought back.

        What is run again after that must not be another launch of the same name.
        """
        if any(isinstance(one, _Launched) and one.name == name for one in self._recent):
            self._surviving(self._save)
        self._surviving(lambda: self.machine.join(name, parts))

    def launch(self, name: str, inputs: Inputs) -> Result:
        """Run a launch, or return its result if that is known from before a `--resume`."""
        number, key = self._count, fingerprint(name, inputs)
        self._count += 1
        if number < len(self._past):
            if self._past[number].key != key:
                problem = f"launch {number} has other inputs than there: another prompt or seed"
                raise CheckpointError(str(self._store.folder), problem)
            return self._past[number].result
        result = self._surviving(lambda: self.machine.launch(name, inputs))
        self._recent.append(_Launched(name, inputs, Past(key, result)))
        if len(self._recent) >= self._every:
            self._surviving(self._save)
        return result

    def contents(self, regions: Regions) -> Contents:
        """What is in the SRAM of chips; of launches before a `--resume` that is not known."""
        if self._count < len(self._past):
            problem = "caches have gone to the host there, which a checkpoint does not hold"
            raise CheckpointError(str(self._store.folder), problem)
        return self._surviving(lambda: self.machine.contents(regions))

    def put(self, regions: Regions, contents: Contents) -> None:
        """Put it into regions, now and whenever the launches since are run again."""
        self._surviving(lambda: self.machine.put(regions, contents))
        self._recent.append(_Put(regions, contents))

    def costs(self) -> dict[str, int]:
        """What the machine says of its workers, and how often one was lost."""
        mine = {
            "checkpoint_launches": self._every,
            "resumed_launches": len(self._past),
            "worker_failures": self.failures,
            "replayed_launches": self.replayed,
        }
        return self._surviving(super().costs) | mine

    def worker_bytes(self) -> int:
        """Peak memory of the workers; one that is lost after the last launch is brought back."""
        return self._surviving(super().worker_bytes)

    def close(self) -> None:
        """Close the machine; a store of its own vanishes."""
        try:
            super().close()
        finally:
            self._store.close()

    def _save(self) -> None:
        launched = [one.past for one in self._recent if isinstance(one, _Launched)]
        self._store.add(self.machine.changes(), launched)
        self._recent.clear()

    def _surviving(self, act: Callable[[], T]) -> T:
        """Do something; as often as a worker is lost, go back, catch up and do it again."""
        lost: WorkerLost | None = None
        while True:
            try:
                if lost is not None:
                    self._catch_up()
                return act()
            except WorkerLost as error:
                lost = error
                self.failures += 1
                if self.failures > MAX_FAILURES:
                    problem = f"{self.failures} failures, the last: {error.problem}"
                    raise MachineError(self.name, problem, error.advice) from None

    def _catch_up(self) -> None:
        self.machine.revive()
        self.machine.restore(self._store.blocks())
        for one in self._recent:
            if isinstance(one, _Put):
                self.machine.put(one.regions, one.contents)
                continue
            result = self.machine.launch(one.name, one.inputs)
            self.replayed += 1
            if result.digests != one.past.result.digests:
                problem = f"launch {one.name} left other bytes behind when it was replayed"
                raise MachineError(self.name, problem, "a host computes wrongly; replace it")


def fingerprint(name: str, inputs: Inputs) -> bytes:
    """SHA-256 of a launch's name and of all that the host writes before it."""
    digest = hashlib.sha256(name.encode())
    for chip, named in sorted(inputs.items()):
        for key, values in sorted(named.items()):
            digest.update(f"{chip} {key} {values.dtype.str} {values.shape}".encode())
            digest.update(np.ascontiguousarray(values).data)
    return digest.digest()
