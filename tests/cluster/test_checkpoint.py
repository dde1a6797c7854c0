"""Checkpoints on the local machine: what is kept, what is refused, what a lost worker costs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from chip.checkpoint import BLOCK_WORDS, Changes
from chip.errors import ChipError
from chip.spec import TINY
from chip.sram import Sram
from chip.wire import pack_value
from cluster.cli import main
from cluster.errors import BadValue, CheckpointError, MachineError, WorkerLost
from cluster.machines import checkpoint_store
from cluster.machines.checkpoint import Checkpointed
from cluster.machines.checkpoint_store import CheckpointStore
from cluster.machines.machine import LocalMachine
from tests.cluster.tiny import local_outcome, lowered, no_progress, outcome

PLAN = (2, 1, "node")
ROOT = Path(__file__).resolve().parent.parent.parent
RUN = ["run", "tiny", "--prompt", "hello", "--tp", "2", "--pp", "1", "--json"]


class Fragile(LocalMachine):
    """Loses its memory before some launches, and comes back blank with `revive`."""

    def __init__(self, dies_before) -> None:
        super().__init__()
        self.dies_before, self.count = set(dies_before), 0

    def load(self, plan, progress) -> None:
        self.plan = plan
        super().load(plan, progress)

    def launch(self, name, inputs):
        self.count += 1
        if self.count in self.dies_before:
            self._group = None
            raise WorkerLost("fragile", "is gone")
        return super().launch(name, inputs)

    def revive(self) -> None:
        super().load(self.plan, no_progress)


@pytest.mark.parametrize("every, dies_before", [(1, [3]), (2, [1, 4, 5]), (16, [2, 6])])
def test_a_machine_that_dies_goes_on_from_its_checkpoint_with_equal_bits(every, dies_before):
    machine = Checkpointed(Fragile(dies_before), CheckpointStore(None), every)
    machine.load(lowered(*PLAN), no_progress)
    assert outcome(lowered(*PLAN), machine) == local_outcome(*PLAN)
    assert machine.failures == len(dies_before)
    folder = machine._store.folder
    machine.close()
    assert not folder.exists()


def test_after_too_many_failures_there_is_one_error():
    machine = Checkpointed(Fragile(range(1, 100)), CheckpointStore(None), 16)
    machine.load(lowered(*PLAN), no_progress)
    with pytest.raises(MachineError, match="6 failures, the last: is gone") as caught:
        outcome(lowered(*PLAN), machine)
    assert not isinstance(caught.value, WorkerLost)
    machine.close()


def test_a_replay_that_differs_is_an_error(monkeypatch):
    machine = Checkpointed(Fragile([4]), CheckpointStore(None), 16)
    machine.load(lowered(*PLAN), no_progress)
    monkeypatch.setattr(Fragile, "restore", lambda self, blocks: self._group.chips[0].write(*first))
    first = next(values[1:] for values in lowered(*PLAN).constants())
    first[1][:] += 1  # a constant is not what it was
    try:
        with pytest.raises(MachineError, match="left other bytes behind"):
            outcome(lowered(*PLAN), machine)
    finally:
        first[1][:] -= 1
        machine.close()


def test_changes_are_taken_once_and_put_back_exactly():
    sram = Sram(TINY)
    changes = Changes(sram)
    changes.watch([(1, 0, BLOCK_WORDS + 2), (5, 7, 7), (1, 4, 6)])
    assert changes.take() == []
    sram.write(1, np.array([BLOCK_WORDS]), np.full((1, TINY.lanes), 3, np.uint8))
    sram.write(5, np.array([6, 7]), np.full((2, TINY.lanes), 4, np.uint8))
    taken = changes.take()
    assert [(index, word) for index, word, _ in taken] == [(1, BLOCK_WORDS), (5, 7)]
    assert changes.take() == []
    sram.write(1, np.array([0]), np.full((1, TINY.lanes), 9, np.uint8))
    changes.restore(taken)
    assert not sram.read(1, np.array([0])).any() and (sram.read(5, np.array([6, 7])) == 4).all()
    assert changes.take() == []
    with pytest.raises(ChipError, match="slice 2, word 0 is not of this run"):
        changes.restore([(2, 0, b"")])


def test_files_of_a_store_are_merged(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_store, "MAX_FILES", 2)
    machine = Checkpointed(LocalMachine(), CheckpointStore(tmp_path / "kept"), 1)
    machine.load(lowered(*PLAN), no_progress)
    expected = outcome(lowered(*PLAN), machine)
    machine.close()
    assert len(list((tmp_path / "kept").iterdir())) <= 3
    again = Checkpointed(LocalMachine(), CheckpointStore(tmp_path / "kept", resume=True), 1)
    again.load(lowered(*PLAN), no_progress)
    assert outcome(lowered(*PLAN), again) == expected == local_outcome(*PLAN)
    assert again.costs()["resumed_launches"] == again._count


def test_what_cannot_be_resumed_is_refused(tmp_path):
    folder = tmp_path / "kept"
    with pytest.raises(BadValue, match=r"--resume .*there is no checkpoint"):
        CheckpointStore(folder, resume=True)
    kept = CheckpointStore(folder)
    kept.open("programs")
    with pytest.raises(BadValue, match="is not empty; --resume goes on"):
        CheckpointStore(folder)
    with pytest.raises(CheckpointError, match="its programs differ"):
        CheckpointStore(folder, resume=True).open("others")
    (folder / "000001").write_bytes(b"\x93")
    with pytest.raises(CheckpointError, match="000001: is damaged"):
        CheckpointStore(folder, resume=True).open("programs")
    (folder / "000001").write_bytes(pack_value({"launches": [], "blocks": {1: [[-1, 0, b""]]}}))
    with pytest.raises(CheckpointError, match="blocks without a place"):
        CheckpointStore(folder, resume=True).blocks()


def test_another_prompt_cannot_go_on_with_a_checkpoint(tmp_path, capsys):
    kept = ["--checkpoint", str(tmp_path / "kept"), "--checkpoint-every", "1"]
    assert main([*RUN, "--max-new-tokens", "2", *kept]) == 0
    assert main([*RUN, "--prompt", "other", "--max-new-tokens", "2", *kept, "--resume"]) == 2
    assert "launch 0 has other inputs than there" in capsys.readouterr().err
    assert main([*RUN, "--resume"]) == 2
    assert "--resume" in capsys.readouterr().err


def test_a_killed_run_resumes_with_the_digest_of_a_whole_one(tmp_path, capsys):
    kept = ["--checkpoint", str(tmp_path / "kept"), "--checkpoint-every", "2"]
    command = [sys.executable, "-m", "cluster", *RUN, "--max-new-tokens", "200", *kept]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while not list((tmp_path / "kept").glob("00000[4-9]")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = max(int(path.name) for path in (tmp_path / "kept").glob("0*"))
    count = ["--max-new-tokens", str(done + 3)]
    assert main([*RUN, *count, *kept, "--resume"]) == 0
    resumed = json.loads(capsys.readouterr().out)
    assert main([*RUN, *count]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert resumed["host"]["resumed_launches"] == done
    for key in ("digest", "text", "emulated"):
        assert resumed[key] == whole[key]
