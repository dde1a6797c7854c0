"""Bytes that a launch sends over each link, counted from its instructions."""

from collections import Counter
from collections.abc import Iterator, Mapping

from chip.program import Instruction, Program
from chip.schedule import Schedule
from chip.wire import body_of, unpack
from cluster.compiler.lower import Lowered
from cluster.tracing.levels import Kernel, Launch, ends_of, kernels_of

LinkBytes = dict[tuple[int, int], int]  # from chip to chip


def launch_link_bytes(lowered: Lowered, joined: Mapping[int, str]) -> LinkBytes:
    """Of the programs of a launch; `joined` says whose program each chip runs in it."""
    ends, lanes = ends_of(lowered.cables), lowered.plan.spec.lanes
    known: dict[bytes, Counter[int]] = {}
    found: Counter[tuple[int, int]] = Counter()
    for chip, name in joined.items():
        data = lowered.launches[name].programs[chip]
        body = body_of(data)
        if body not in known:
            sent: Counter[int] = Counter()
            for port, held in _sends(unpack(data)):
                sent[port] += sum(one.count for one in held if one.op == "c2c.send")
            known[body] = sent
        for port, vectors in known[body].items():
            found[chip, ends[chip, port][0]] += vectors * lanes
    return dict(found)


def _sends(program: Program) -> Iterator[tuple[int, tuple[Instruction, ...]]]:
    """(port, what its queue holds) of every port that a program may send from."""
    for queue in program.queues:
        family, _, port = queue.partition(":")
        if family == "c2c.s":
            yield int(port), program.queues[queue]


def step_link_bytes(launch: Launch) -> LinkBytes:
    """Of the steps of a launch, which must have schedules."""
    ends = ends_of(launch.cables)
    known: dict[Schedule, dict[int, list[Kernel]]] = {}
    found: Counter[tuple[int, int]] = Counter()
    for step in launch.steps:
        for part, everyone in step.parts:
            if part not in known:
                sends = {
                    member: [k for k in mine if k.unit.partition(":")[0] == "c2c.s"]
                    for member, mine in kernels_of(part).items()
                }
                known[part] = sends
            for members in everyone:
                for number, kernels in known[part].items():
                    chip = step.chip(members[number] if members else number)
                    for one in kernels:
                        port = int(one.unit.partition(":")[2])
                        found[chip, ends[chip, port][0]] += one.issues * launch.lanes
    return dict(found)
