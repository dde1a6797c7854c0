"""Items done one by one in any order that their dependences allow give what the list gives."""

from random import Random

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.topology.collectives.test_registry import PAIRS, timed_or_none
from topology import execute, parse
from topology.collectives import SUM_FORMATS, counted, defined
from topology.collectives.spelled import Message, spelled

SPECS = ["node", "ring:5", "torus:3x3", "mesh:2x3", "hypercube:3", "dragonfly:16", "random:9:4:1"]


def in_any_order(items, random):
    """Numbers of items, none before what it waits for."""
    left = {number: set(item.after) for number, item in enumerate(items)}
    while left:
        number = random.choice([number for number, waits in left.items() if not waits])
        del left[number]
        for waits in left.values():
            waits.discard(number)
        yield number


def carried_out(timed, inputs, random):
    """The result of all ranks, item by item; what a slot never got is NaN."""
    items = spelled(timed)
    rank = {chip: number for number, chip in enumerate(timed.chips)}
    slots, landed = {0: inputs.copy()}, {}

    def slot(number):
        return slots.setdefault(number, np.full_like(inputs, np.nan))

    for number in in_any_order(items, random):
        item = items[number]
        start, count = item.target.first, item.target.length
        target = slice(start, start + count)
        if isinstance(item, Message):
            source = slice(item.source.first, item.source.first + item.source.length)
            values = slot(item.source.slot)[rank[item.path[0]], source].copy()
            if item.lands:
                landed[number] = values
            else:
                slot(item.target.slot)[rank[item.path[-1]], target] = values
            continue
        total = None
        for one in item.operands:
            if isinstance(one, int):
                value = landed.pop(one)
            else:
                value = slot(one.slot)[rank[item.chip], one.first : one.first + one.length].copy()
            total = value if total is None else total + value
        narrow = item.target.slot in timed.messages.narrow
        total = timed.messages.job.sums.rounded(total) if narrow else total
        slot(item.target.slot)[rank[item.chip], target] = total
    assert not landed
    return slot(timed.messages.result_slot)


@given(
    spec=st.sampled_from(SPECS),
    pair=st.sampled_from(PAIRS),
    num_bytes=st.integers(1, 40_000),
    unit=st.sampled_from([1, 4]),
    chunks=st.sampled_from([None, 1, 3]),
    sums=st.sampled_from(list(SUM_FORMATS)),
    random=st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_dependences_are_complete(spec, pair, num_bytes, unit, chunks, sums, random: Random):
    operation, name = pair
    more = {"chunks": chunks, "unit_vectors": unit, "sums_between": sums}
    timed = timed_or_none(operation, parse(spec), num_bytes, name, **more)
    if timed is None:
        return
    shape = (len(timed.chips), timed.vectors, 2)
    values = np.random.default_rng(num_bytes).standard_normal(shape, np.float32)
    inputs, where = counted(timed, values), defined(timed)
    found = carried_out(timed, inputs, random)[where]
    assert (found == execute(timed, inputs)[where]).all()
