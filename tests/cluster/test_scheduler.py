"""The pipeline scheduler, whatever is asked of it and however long steps take.

No slot is leaked or shared, every request ends, time goes on, and rows pass all stages in order.
"""

from dataclasses import replace
from itertools import pairwise, repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chip.spec import GROQCHIP1
from cluster.compiler.launch import LaunchKind
from cluster.errors import PromptTooLong
from cluster.serving.host_link import HostLink
from cluster.serving.requests import Request, Step
from cluster.serving.scheduler import PipelineScheduler, drive

CHUNK, STOP = 8, 7

requests = st.lists(
    st.builds(
        Request,
        st.integers(1, 30).map(lambda size: tuple(range(size))),
        st.integers(1, 6),
        st.floats(0, 1e-3),
    ),
    min_size=1,
    max_size=8,
)
shapes = st.tuples(st.integers(1, 4), st.integers(1, 5), st.sampled_from([0, CHUNK]))


def link(beside: bool) -> HostLink:
    """A link over which a launch moves a little more with every row."""
    return HostLink(GROQCHIP1, lambda kind, _: (1000 * kind.rows, 500 * kind.logits_rows), beside)


def run(scheduler: PipelineScheduler, given: list[Request], ends: st.DataObject) -> list[Step]:
    """Answer all requests, each step taking some cycles, each token being some token."""
    steps: list[Step] = []

    def execute(step: Step):
        steps.append(step)
        scheduler.check()
        return ends.draw(st.integers(1, 10_000)), repeat(None)

    for request in given:
        scheduler.submit(request)
    pick = st.integers(0, STOP)
    for request, token in drive(scheduler, execute, lambda *_: ends.draw(pick), frozenset([STOP])):
        assert request.tokens[-1] == token
    scheduler.check()
    return steps


@settings(max_examples=150, deadline=None)
@given(requests, shapes, st.data())
def test_every_request_ends_and_every_slot_comes_back(given, shape, data):
    stages, slots, chunk = shape
    scheduler = PipelineScheduler(stages, slots, chunk, link(beside=slots > 1))
    run(scheduler, given, data)
    assert scheduler.next_step() is None
    assert scheduler._state.slots[0] == [-1] * slots
    for one in given:
        assert 0 <= one.slot < slots
        assert len(one.tokens) == one.max_new_tokens or one.tokens[-1] == STOP
        assert STOP not in one.tokens[:-1]


@settings(max_examples=150, deadline=None)
@given(requests, shapes, st.data())
def test_virtual_time_goes_on(given, shape, data):
    stages, slots, chunk = shape
    scheduler = PipelineScheduler(stages, slots, chunk, link(beside=slots > 1))
    run(scheduler, given, data)
    for before, after in pairwise(scheduler.records):
        assert after.start_s >= before.start_s + before.seconds > before.start_s
    for one in given:
        times = [one.arrives_s, one.entered_s, *one.token_s]
        assert times == sorted(times) and len(one.token_s) == len(one.tokens)
        assert one.token_s[-1] < float("inf")
    for slot in range(slots):
        mine = sorted((one.entered_s, one.token_s[-1]) for one in given if one.slot == slot)
        assert all(ended <= entered for (_, ended), (entered, _) in pairwise(mine))


@settings(max_examples=150, deadline=None)
@given(requests, shapes, st.data())
def test_whoever_is_cancelled_leaves_at_once_and_changes_nobody_elses_answer(given, shape, data):
    stages, slots, chunk = shape
    scheduler = PipelineScheduler(stages, slots, chunk, link(beside=slots > 1), history=False)
    for request in given:
        scheduler.submit(request)

    def cancel() -> None:
        for one in data.draw(st.lists(st.sampled_from(given), max_size=2)):
            ended = len(one.tokens) == one.max_new_tokens
            scheduler.cancel(one)
            scheduler.check()
            assert one.cancelled or ended

    before = 0.0
    while (step := scheduler.next_step()) is not None:
        assert scheduler.now_s >= before
        cancel()
        for one in scheduler.complete(step, data.draw(st.integers(1, 10_000))):
            if not one.cancelled:
                scheduler.token(one, 0)
        before = scheduler.now_s
        cancel()
    for one in given:
        assert one.cancelled or len(one.tokens) == one.max_new_tokens
        assert one.entered_s >= one.arrives_s or one.slot < 0
    assert not scheduler.requests and not scheduler.records


def test_time_goes_on_to_the_next_arrival_when_there_is_nothing_to_do():
    scheduler = PipelineScheduler(2, 1, CHUNK, link(beside=True))
    one, other = Request((1,), 1, arrives_s=5.0), Request((1,), 1, arrives_s=2.0)
    scheduler.submit(one)
    scheduler.submit(other)
    for _ in drive(scheduler, lambda _: (1000, repeat(None)), lambda *_: 0, frozenset()):
        pass
    assert (other.entered_s, one.entered_s) == (2.0, 5.0)
    assert scheduler.records[0].start_s == other.entered_s + scheduler.link.in_s(
        scheduler.records[0].works[0].kind
    )


@pytest.mark.parametrize("users", range(1, 6))
def test_a_step_waits_for_a_token_that_is_almost_back(users):
    stages, cycles = 3, 20_000
    step_s = cycles / GROQCHIP1.clock_hz
    late = HostLink(replace(GROQCHIP1, host_latency_s=0.53 * step_s), lambda *_: (0, 0), True)
    scheduler = PipelineScheduler(stages, users, 0, late)
    for _ in range(users):
        scheduler.submit(Request((1,), 12))
    for _ in drive(scheduler, lambda _: (cycles, repeat(None)), lambda *_: 0, frozenset()):
        pass
    away_s = 2 * late.spec.host_latency_s
    waits = -(-users // 2)  # in a round; of those in the line two are away while others wait
    around_s = max(users * step_s, (stages + 1) * step_s + waits * (away_s - step_s))
    for one in scheduler.requests:
        gaps = [after - before for before, after in pairwise(one.token_s[:-1])]  # all are there
        assert gaps == pytest.approx([around_s] * len(gaps))


@settings(max_examples=150, deadline=None)
@given(requests, shapes, st.data())
def test_each_row_of_a_sequence_passes_every_stage_once_and_in_order(given, shape, data):
    stages, slots, chunk = shape
    steps = run(PipelineScheduler(stages, slots, chunk, link(beside=slots > 1)), given, data)
    lines: dict[LaunchKind, list[Step]] = {}
    for step in steps:
        lines.setdefault(step.kind, []).append(step)
        busy = [work for work in step.works if work]
        assert busy and all(work.kind.idle == step.kind for work in busy)
        assert all(work.rows[-1].position < work.kind.context for work in busy)
    for line in lines.values():  # what a stage has done, the one behind it does in the next step
        for before, after in pairwise(line):
            assert before.works[:-1] == after.works[1:]
    for at in range(stages):
        seen = [row for step in steps if (work := step.works[at]) for row in work.rows]
        rows = sum(len(one.prompt) + len(one.tokens) - 1 for one in given)
        assert len(seen) == rows and sum(row.gives for row in seen) == sum(
            len(one.tokens) for one in given
        )


@pytest.mark.parametrize("size, new, holds", [(300, 21, True), (300, 22, False), (0, 1, False)])
def test_what_the_caches_do_not_hold_is_refused(size, new, holds):
    request = Request((1,) * size, new)
    if holds:
        assert request.check(320) is request
        return
    with pytest.raises(PromptTooLong):
        request.check(320)
