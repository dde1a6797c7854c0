"""What actors cost their hosts, whether the hosts have it, and how many chips go into one actor."""

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.errors import MachineError
from cluster.grouping import grouped
from cluster.loadable import Loadable

AUTO = "auto"  # as chips per actor
# Measured on Linux with Ray 2.60, Python 3.11 (`scripts/bench.py ray` prints them):
ACTOR_BYTES = 64 << 20  # a worker that has imported Ray, NumPy and `chip`, and holds no chip
CHIP_BYTES = 40 << 20  # of each chip: accumulators, activations, steps
PROGRAM_FACTOR = 60  # memory of a linked program, per byte of its msgpack
SRAM_FACTOR = 6.0  # of a chip's used SRAM: the SRAM, and weights gathered from it, in float64


@dataclass(frozen=True)
class Host:
    """One node of a Ray cluster: what it can still give."""

    name: str
    cpus: float
    memory_bytes: int


def actor_bytes(lowered: Loadable, group: Sequence[int]) -> int:
    """Memory of an actor with the chips of `group`, about."""
    held = [n for n, ranks in enumerate(lowered.placement) for chip in ranks if chip in group]
    sram = sum(lowered.sram_bytes(stage) for stage in held)
    launches = lowered.launches.values()
    programs = sum(len(launch.programs.get(chip, b"")) for launch in launches for chip in group)
    return int(
        ACTOR_BYTES + CHIP_BYTES * len(group) + SRAM_FACTOR * sram + PROGRAM_FACTOR * programs
    )


def automatic_pack(lowered: Loadable, hosts: Sequence[Host]) -> int:
    """Chips per actor such that there are as many actors as CPUs, in whole tensor groups.

    A tensor group on one host computes side by side, so with CPUs for every chip it is 1.
    """
    tp = max(map(len, lowered.placement))
    chips = len(lowered.chips) + len(lowered.transit_chips)
    cpus = max(1, int(sum(host.cpus for host in hosts)))
    pack = -(-chips // cpus)
    return pack if pack < tp else -(-pack // tp) * tp


def check_fits(lowered: Loadable, bundles: Sequence[Sequence[int]], hosts: Sequence[Host]) -> None:
    """Raise MachineError unless all bundles, lists of actors' bytes that share a host, fit.

    The largest first, each to the host with the most room: what fits so, Ray can place.
    """
    room = sorted((host.memory_bytes for host in hosts), reverse=True)
    for size in sorted((sum(bundle) for bundle in bundles), reverse=True):
        if not room or room[0] < size:
            raise MachineError("ray", _shortage(bundles, hosts, size), _advice(lowered, hosts))
        room[0] -= size
        room.sort(reverse=True)


def _shortage(bundles: Sequence[Sequence[int]], hosts: Sequence[Host], size: int) -> str:
    actors = sum(map(len, bundles))
    needs, has = sum(map(sum, bundles)), sum(host.memory_bytes for host in hosts)
    if needs > has:
        many = f"{actors} actors need" if actors > 1 else "1 actor needs"
        return f"{many} about {gib(needs)}, this cluster has {gib(has)}"
    most = max((host.memory_bytes for host in hosts), default=0)
    return f"actors that share a host need {gib(size)}, no host has that left (at most {gib(most)})"


def _advice(lowered: Loadable, hosts: Sequence[Host]) -> str:
    """The smallest packing that fits, tried as powers of two and whole tensor groups."""
    has = sum(host.memory_bytes for host in hosts)
    chips, tp = len(lowered.chips) + len(lowered.transit_chips), max(map(len, lowered.placement))
    powers = [2**n for n in range(1, chips.bit_length() + 1)]
    for pack in sorted({*powers, *(tp * n for n in powers), tp}):
        if sum(actor_bytes(lowered, group) for group in grouped(lowered, pack)) <= has:
            return f"use --chips-per-actor {pack}"
    return "add hosts, or use --machine local"


def gib(size: int) -> str:
    """Bytes as GiB.

    >>> gib(3 << 29)
    '1.5 GiB'
    """
    return f"{size / 2**30:.1f} GiB"
