import numpy as np
import pytest

from topology import node, parse
from topology.collectives import Draft, Engine, Job

ONE = np.array([0])


def draft(graph, num_bytes=3200, blocks=1, **more):
    return Draft(Job("all_reduce", graph, tuple(sorted(graph)), num_bytes, **more), blocks)


def starts(drafted):
    return [batch.start_cycle.tolist() for batch in Engine(drafted.messages()).steps]


def test_a_message_follows_the_one_that_feeds_it_vector_by_vector():
    d = draft(parse("ring:4"))
    d.send(np.array([0]), np.array([1]), ONE)
    d.send(np.array([1]), np.array([2]), ONE)
    d.send(np.array([2]), np.array([3]), ONE, whole=True)
    assert starts(d) == [[0], [270], [270 + 270 + 9 * 27]]


def test_a_slow_link_holds_back_what_follows_it(user_graph):
    graph = parse(f"file:{user_graph}")  # link 0-1: 81/2 cycles per vector, 400 cycles
    d = draft(graph)
    d.send(np.array([0]), np.array([1]), ONE)
    d.send(np.array([1]), np.array([2]), ONE)
    # The last of ten vectors lands at 400 + ceil(9 * 40.5) and leaves 9 * 27 after the first.
    assert starts(d)[1][0] in range(400 + 365 - 243, 400 + 365 - 243 + 3)


def test_messages_on_one_cable_queue_up_in_order_of_readiness():
    d = draft(node(), 320 * 30, blocks=3, release_cycles=(100, 0, 0, 0, 0, 0, 0, 0))
    d.send(np.array([0, 0, 1]), np.array([1, 1, 0]), np.array([0, 1, 2]))
    assert starts(d) == [[100, 100 + 10 * 27, 0]]


def test_existing_bookings_are_respected():
    d = draft(node(), 320, busy_until=np.full(56, 1000))
    d.send(np.array([0]), np.array([1]), ONE)
    assert starts(d) == [[1000]]


@pytest.mark.parametrize("cost", [0, 9])
def test_additions_cost_what_the_job_says(cost):
    d = draft(node(), 320, add_cycles=cost)
    d.send(np.array([0]), np.array([1]), ONE, add=True)
    assert Engine(d.messages()).end_cycle == 270 + cost
    d.combine((0, 0), 1)
    assert Engine(d.messages()).end_cycle == 270 + 2 * cost


def test_what_holds_nothing_is_not_sent():
    d = draft(parse("ring:4"))
    d.send(np.array([0]), np.array([1]), ONE, dst_slot=1)
    d.send(np.array([0, 1]), np.array([1, 2]), np.array([0, 0]), src_slot=1, dst_slot=1)
    assert d.messages().steps[1].src.tolist() == [1]
