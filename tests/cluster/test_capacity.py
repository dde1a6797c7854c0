"""Memory of actors: what fits is taken, the faster way first; what does not fit says what does."""

import pytest

from cluster.errors import MachineError
from cluster.machines.ray import capacity
from cluster.machines.ray.capacity import Host, actor_bytes, chosen, worker_threads
from cluster.machines.ray.grouping import bundled, grouped
from tests.cluster.tiny import lowered

PLAN = (2, 2, "ring:4")
FAST, LEAN = (actor_bytes(lowered(*PLAN), [0], backend) for backend in ("auto", "numpy"))


def host(actors: float, size: int = LEAN, cpus: int = 2) -> Host:
    """A host with room for so many actors of a size."""
    return Host("here", cpus, int(actors * size * 1.02))


def choose(pack: int, *hosts: Host):
    plan = lowered(*PLAN)
    groups = grouped(plan, pack)
    return chosen(plan, groups, bundled(plan, groups), hosts)


def test_few_actors_with_memory_compile_and_others_do_not():
    assert choose(1, host(4, FAST))[0] == "auto"
    assert choose(1, host(4, LEAN))[0] == "numpy"  # no room for compiled kernels
    assert choose(1, host(4, FAST, cpus=0))[0] == "auto"
    assert choose(1, host(2, FAST), host(2, FAST))[0] == "auto"


def test_crowds_compile_if_they_have_much_to_do(monkeypatch):
    monkeypatch.setattr(capacity, "COMPILED_PER_CPU", 1)
    assert choose(1, host(4, FAST))[0] == "numpy"
    monkeypatch.setattr(capacity, "COMPILED_SRAM_BYTES", 1 << 20)
    assert choose(1, host(4, FAST))[0] == "auto"


def test_a_shortage_names_both_sizes_and_a_packing_that_fits():
    with pytest.raises(
        MachineError, match=r"4 actors need about 0\.5 GiB, this cluster has 0\.4 GiB"
    ) as e:
        choose(1, host(3.5))
    pack = int(str(e.value).rpartition(" ")[2])
    assert pack > 1 and choose(pack, host(3.5))[0] == "numpy"


def test_what_shares_a_host_needs_room_on_one():
    with pytest.raises(MachineError, match="actors that share a host need"):
        choose(1, *[host(1.5)] * 3)


def test_the_cpus_of_a_host_are_shared_by_those_that_compute_at_a_time():
    plan = lowered(*PLAN)
    assert [worker_threads(plan, pack, [host(4, cpus=8)]) for pack in (1, 2, 4)] == [4, 8, 8]
    assert worker_threads(plan, 1, [host(4, cpus=1)]) == 1
