import numpy as np
import pytest

from topology import node, parse
from topology.collectives import Engine, Job

ONE = np.array([0])


def engine(graph, num_bytes=3200, blocks=1, **more):
    return Engine(Job("all_reduce", graph, tuple(sorted(graph)), num_bytes, **more), blocks)


def test_a_message_follows_the_one_that_feeds_it_vector_by_vector():
    e = engine(parse("ring:4"))
    e.send(np.array([0]), np.array([1]), ONE)
    second = e.send(np.array([1]), np.array([2]), ONE)
    third = e.send(np.array([2]), np.array([3]), ONE, whole=True)
    assert second.start_cycle.tolist() == [270]
    assert third.start_cycle.tolist() == [270 + 270 + 9 * 27]


def test_a_slow_link_holds_back_what_follows_it(user_graph):
    graph = parse(f"file:{user_graph}")  # link 0-1: 81/2 cycles per vector, 400 cycles
    e = engine(graph)
    e.send(np.array([0]), np.array([1]), ONE)
    second = e.send(np.array([1]), np.array([2]), ONE)
    # The last of ten vectors lands at 400 + ceil(9 * 40.5) and leaves 9 * 27 after the first.
    assert second.start_cycle[0] in range(400 + 365 - 243, 400 + 365 - 243 + 3)


def test_messages_on_one_cable_queue_up_in_order_of_readiness():
    e = engine(node(), 320 * 30, blocks=3, release_cycles=(100, 0, 0, 0, 0, 0, 0, 0))
    batch = e.send(np.array([0, 0, 1]), np.array([1, 1, 0]), np.array([0, 1, 2]))
    assert batch.start_cycle.tolist() == [100, 100 + 10 * 27, 0]


def test_existing_bookings_are_respected():
    graph = node()
    free = np.zeros(56, np.int64)
    job = Job("all_reduce", graph, tuple(range(8)), 320, busy_until=free + 1000)
    e = Engine(job, 1)
    assert e.send(np.array([0]), np.array([1]), ONE).start_cycle.tolist() == [1000]


@pytest.mark.parametrize("cost", [0, 9])
def test_additions_cost_what_the_job_says(cost):
    e = engine(node(), 320, add_cycles=cost)
    e.send(np.array([0]), np.array([1]), ONE, add=True)
    assert e.end_cycle == 270 + cost
    e.combine(0, 0, 1)
    assert e.end_cycle == 270 + 2 * cost
