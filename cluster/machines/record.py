"""A machine that also writes all that a replay on bare chips needs."""

import shutil
from pathlib import Path

from chip.own_spec import identity
from chip.recording import Board, Writer
from cluster.errors import BadValue
from cluster.files import temporary_folder
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


class Recorder(MachineWrapper[Machine]):
    """`folder` appears, whole, with `commit`."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        if folder.exists() and any(folder.iterdir()):
            raise BadValue("--record", folder, "is not empty")
        super().__init__(machine)
        self.folder = folder
        self._partial: Path | None = None

    def load(self, lowered: Loadable, progress: Progress) -> None:
        """Load the machine; write programs, cables and constants."""
        parent = self.folder.absolute().parent
        self._partial = temporary_folder(f".{self.folder.name}-", parent)
        programs = {name: launch.programs for name, launch in lowered.launches.items()}
        board = Board(identity(lowered.plan.spec), lowered.cables, programs)
        self._writer, self._digest = Writer(self._partial, board), Digest(lowered)
        for constant in lowered.constants():
            self._writer.constant(*constant)
        super().load(lowered, progress)

    def join(self, name: str, parts: Parts) -> None:
        """Join the programs; write which they are."""
        super().join(name, parts)
        self._writer.join(name, parts)

    def launch(self, name: str, inputs: Inputs) -> Result:
        """Run a launch; write its inputs, outputs and cycles, and the digest after it."""
        result = super().launch(name, inputs)
        self._digest.add(result)
        digest = self._digest.hexdigest()
        self._writer.launch(name, inputs, result.outputs, result.end_cycle, digest)
        return result

    def put(self, regions: Regions, contents: Contents) -> None:
        """A recording holds launches, and what they are given, alone; raises BadValue."""
        raise BadValue("--record", self.folder, "holds no caches that come back from the host")

    def commit(self) -> None:
        """Give the recording its name."""
        assert self._partial is not None, "load comes first"
        self._writer.close()
        self._partial.chmod(0o755)
        self._partial.replace(self.folder)
        self._partial = None

    def close(self) -> None:
        """Close the machine; an uncommitted recording vanishes."""
        super().close()
        if self._partial is not None:
            self._writer.close()
            shutil.rmtree(self._partial, ignore_errors=True)
            self._partial = None
