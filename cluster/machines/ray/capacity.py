"""What actors cost their hosts, whether the hosts have it, and how many chips go into one actor."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cluster.errors import MachineError
from cluster.machines.loadable import Loadable
from cluster.machines.ray.grouping import grouped

AUTO = "auto"  # as chips per actor
COMPILED_PER_CPU = 4  # more actors per CPU load kernels, which takes each a second, only for
COMPILED_SRAM_BYTES = 4 << 20  # so much work on average, in bytes of SRAM
Backend = Literal["numpy", "auto"]  # of the workers; auto is the compiled one where it can be
Kind = Literal["numpy", "auto", "fork"]  # of workers; what is forked computes as `auto` does


@dataclass(frozen=True)
class Footprint:
    """Memory of an actor: a worker without chips, each chip, and factors of what chips hold.

    Of a program the factor is per byte of its msgpack, of SRAM per byte in use.
    """

    worker_bytes: int
    chip_bytes: int
    program_factor: float
    sram_factor: float


# Measured on Linux with Ray 2.60, Python 3.11 (`scripts/bench.py ray` prints them). Of what a fork
# has in common with its fork server only its part counts; compiled is with numba and its kernels.
FOOTPRINTS: dict[Kind, Footprint] = {
    "numpy": Footprint(64 << 20, 40 << 20, 60.0, 6.0),
    "auto": Footprint(144 << 20, 40 << 20, 60.0, 1.5),
    "fork": Footprint(40 << 20, 8 << 20, 20.0, 1.5),
}


@dataclass(frozen=True)
class Host:
    """One node of a Ray cluster: what it can still give."""

    name: str
    cpus: float
    memory_bytes: int


def living_hosts(nodes: Iterable[Any], free: Mapping[str, Mapping[str, float]]) -> list[Host]:
    """The living ones of Ray's `nodes`; `free` is what each can still give, by its identity."""
    return [
        Host(
            node["NodeName"],
            node["Resources"].get("CPU", 0),
            int(free.get(node["NodeID"], {}).get("memory", 0)),
        )
        for node in nodes
        if node["Alive"]
    ]


def chosen(
    lowered: Loadable,
    groups: Sequence[Sequence[int]],
    bundles: Sequence[Sequence[int]],
    hosts: Sequence[Host],
    forked: bool = False,
) -> tuple[Backend, list[int]]:
    """How the actors compute, and the bytes of each; raises MachineError if they do not fit.

    `bundles` are groups, by number, that share a host; `forked` actors come from a fork server.
    """
    for kind in _kinds(lowered, groups, hosts, forked):
        sizes = [actor_bytes(lowered, group, kind) for group in groups]
        packed = [[sizes[n] for n in bundle] for bundle in bundles]
        size = _misfit(packed, hosts)
        if not size:
            return "numpy" if kind == "numpy" else "auto", sizes
    raise MachineError("ray", _shortage(packed, hosts, size), _advice(lowered, hosts, forked))


def _kinds(
    lowered: Loadable, groups: Sequence[Sequence[int]], hosts: Sequence[Host], forked: bool
) -> tuple[Kind, ...]:
    """Kinds of workers to try, the best first."""
    return ("fork",) if forked else (worker_backend(lowered, groups, hosts), "numpy")


def worker_backend(
    lowered: Loadable, groups: Sequence[Sequence[int]], hosts: Sequence[Host]
) -> Backend:
    """NumPy's array passes for crowds of actors with little to do; else compiled, far faster."""
    few = len(groups) <= COMPILED_PER_CPU * max(1, sum(host.cpus for host in hosts))
    ranks = enumerate(map(len, lowered.placement))
    sram = sum(lowered.sram_bytes(stage) * tp for stage, tp in ranks)
    return "auto" if few or sram > COMPILED_SRAM_BYTES * len(groups) else "numpy"


def worker_threads(lowered: Loadable, pack: int, hosts: Sequence[Host]) -> int:
    """Threads of each actor: those of a tensor group compute at a time, and share a host's CPUs."""
    beside = -(-max(map(len, lowered.placement)) // pack)
    return max(1, int(min((host.cpus for host in hosts if host.cpus), default=1)) // beside)


def actor_bytes(lowered: Loadable, group: Sequence[int], kind: Kind = "numpy") -> int:
    """Memory of an actor with the chips of `group`, about."""
    held = [n for n, ranks in enumerate(lowered.placement) for chip in ranks if chip in group]
    sram = sum(lowered.sram_bytes(stage) for stage in held)
    launches = lowered.launches.values()
    programs = sum(len(launch.programs.get(chip, b"")) for launch in launches for chip in group)
    foot = FOOTPRINTS[kind]
    chips = foot.chip_bytes * len(group) + foot.sram_factor * sram
    return int(foot.worker_bytes + chips + foot.program_factor * programs)


def packing(wanted: int | str, lowered: Loadable, hosts: Sequence[Host]) -> int:
    """Chips per actor. AUTO makes as many actors as there are CPUs, of whole tensor groups.

    A tensor group on one host computes side by side, so with CPUs for every chip it is 1.
    """
    if wanted != AUTO:
        return int(wanted)
    tp = max(map(len, lowered.placement))
    chips = len(lowered.chips) + len(lowered.transit_chips)
    cpus = max(1, int(sum(host.cpus for host in hosts)))
    pack = -(-chips // cpus)
    return pack if pack < tp else -(-pack // tp) * tp


def _misfit(bundles: Sequence[Sequence[int]], hosts: Sequence[Host]) -> int:
    """Bytes of a bundle that finds no room, else 0.

    The largest first, each to the host with the most room: what fits so, Ray can place.
    """
    room = sorted((host.memory_bytes for host in hosts), reverse=True)
    for size in sorted((sum(bundle) for bundle in bundles), reverse=True):
        if not room or room[0] < size:
            return size
        room[0] -= size
        room.sort(reverse=True)
    return 0


def _shortage(bundles: Sequence[Sequence[int]], hosts: Sequence[Host], size: int) -> str:
    actors = sum(map(len, bundles))
    needs, has = sum(map(sum, bundles)), sum(host.memory_bytes for host in hosts)
    if needs > has:
        many = f"{actors} actors need" if actors > 1 else "1 actor needs"
        return f"{many} about {gib(needs)}, this cluster has {gib(has)}"
    most = max((host.memory_bytes for host in hosts), default=0)
    return f"actors that share a host need {gib(size)}, no host has that left (at most {gib(most)})"


def _advice(lowered: Loadable, hosts: Sequence[Host], forked: bool) -> str:
    """The smallest packing that fits, tried as powers of two and whole tensor groups."""
    has = sum(host.memory_bytes for host in hosts)
    chips, tp = len(lowered.chips) + len(lowered.transit_chips), max(map(len, lowered.placement))
    powers = [2**n for n in range(1, chips.bit_length() + 1)]
    for pack in sorted({*powers, *(tp * n for n in powers), tp}):
        groups = grouped(lowered, pack)
        kinds = _kinds(lowered, groups, hosts, forked)
        if min(sum(actor_bytes(lowered, group, kind) for group in groups) for kind in kinds) <= has:
            return f"use --chips-per-actor {pack}"
    return "add hosts, or use --machine local"


def gib(size: int) -> str:
    """Bytes as GiB.

    >>> gib(3 << 29)
    '1.5 GiB'
    """
    return f"{size / 2**30:.1f} GiB"
