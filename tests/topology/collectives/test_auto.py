import pytest

from topology import collective, parse
from topology.collectives.auto import MAX_MESSAGES, estimated_messages
from topology.collectives.job import Job
from topology.errors import BadCollective


def test_what_would_not_fit_memory_is_refused_before_it_starts():
    graph = parse("dragonfly:10440")
    for operation, name in (("all_reduce", "direct"), ("all_to_all", "auto")):
        with pytest.raises(BadCollective, match="million messages"):
            collective(operation, graph, 320, name)


@pytest.mark.parametrize("name", ["direct", "ring", "ring-stepwise", "tiled", "tree", "exchange"])
def test_estimates_are_not_too_low(name):
    graph = parse("dragonfly:72")
    job = Job("all_reduce", graph, tuple(range(72)), 1 << 20)
    real = collective("all_reduce", graph, 1 << 20, name).message_count
    assert real <= 1.1 * estimated_messages(job, name) < MAX_MESSAGES


def test_auto_answers_for_ten_thousand_chips():
    timed = collective("all_reduce", parse("dragonfly:10440"), 320)
    assert timed.cycles == 7 * 270 and timed.algorithm == "hierarchical"
