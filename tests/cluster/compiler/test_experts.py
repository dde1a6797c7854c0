"""Experts by gathered addresses: what they cost, and what cannot be read."""

from dataclasses import replace

import numpy as np
import pytest

from chip.errors import ChipError
from chip.schedule import Pace
from chip.spec import GROQCHIP1
from cluster.compiler.assign import SUMMANDS
from cluster.compiler.rank import ranks_of
from cluster.compiler.stage import Stage
from cluster.compiler.stage_shape import StageShape, compiled, stage_shape
from cluster.model.graph.builder import Builder
from cluster.model.graph.experts import ExpertLinear
from cluster.model.graph.graph import Section
from cluster.model.graph.route import Route
from cluster.model.graph.stand_in import Experts
from cluster.model.graph.values import Dim
from cluster.model.known import known_model
from cluster.model.mixture import mixture, spread_experts
from tests.cluster.compiler.op_rig import LANES, Launch, OpRig, SectionWeights
from tests.cluster.model.graphs import EPS


def mixed(count: int, chosen: int, hidden: int = 64, ffn: int = 96) -> Section:
    """An FFN that is a mixture."""
    b = Builder(Dim("hidden", hidden))
    h = b.norm(b.x, "norm", EPS)
    b.add(b.x, mixture(b, h, Experts(count, chosen, ffn), "silu", b.x.dims[0]))
    return b.section()


def cycles(count: int, chosen: int, hidden: int = 64) -> int:
    """Of a token in such a layer."""
    section = compiled(mixed(count, chosen, hidden), 1, "fp16")
    stage = Stage(GROQCHIP1, StageShape((section,), None, ranks_of([section], LANES), 320, 8))
    return sum(step.cycles for step in stage.alone(1, 1, lambda _, address: address))


def test_a_token_costs_the_experts_it_chooses_and_not_those_there_are():
    """But for its router, which compares the scores of as many superlanes as experts take."""
    counts = (4, 9, 16, 50, 64)
    found = {(count, chosen): cycles(count, chosen) for count in counts for chosen in (1, 2, 4)}
    for chosen in (1, 2, 4):
        assert found[9, chosen] == found[16, chosen]
        assert found[50, chosen] == found[64, chosen]
        assert found[4, chosen] < found[16, chosen] < found[64, chosen] < found[4, chosen] + 360
    assert found[4, 1] < found[4, 2] < found[4, 4] < 4 * found[4, 1]


def test_more_experts_than_a_bank_has_tiles_of_cost_a_token_what_few_do():
    """A bank has 4,096 words, 102 whole tiles of 320 columns. Routers of more compare more."""
    few, many, most = (cycles(count, 4, hidden=320) for count in (4, 128, 204))
    assert few < many < most < few + 440  # 1,295, 1,672 and 1,715 were measured


@pytest.mark.parametrize("cut", [False, True])
def test_gate_and_up_enter_both_arrays_at_a_time(cut):
    """In chips filled to 90 %, too: what one array's loads read is in no slice of the other's."""
    model, layers = spread_experts(known_model("gpt-oss-120b"), 16), 3 if cut else 1
    shape = stage_shape(model, GROQCHIP1, 48, 320, 8, "int8", (1, 1), (16, layers), False)
    stage = Stage(GROQCHIP1, replace(shape, anywhere=cut))
    for step in stage.steps(1, 1, None):
        events = [one for part, _ in step.parts for one in part.events]
        mine = [one for one in events if one[0].endswith(("w_gate", "w_up"))]
        if mine:
            assert len(mine) == 2 * 4
            first, last = min(start for _, start, _ in mine), max(end for *_, end in mine)
            alone = 4 * 27 * 20  # cycles in which one array takes in the tiles of four experts
            assert last - first < 1.45 * alone  # in turns it would be 2


def test_a_chunk_of_tokens_takes_less_than_its_tokens_one_by_one():
    section = compiled(known_model("qwen3-30b-a3b").layers[0], 32, "fp16")
    stage = Stage(GROQCHIP1, StageShape((section,), None, ranks_of([section], LANES), 320, 8))
    cycles = [sum(s.cycles for s in stage.alone(n, 1, lambda _, at: at)) for n in (1, 8)]
    assert cycles[0] < cycles[1] < 8 * cycles[0]


class Chosen(OpRig):
    """A rig whose rows choose what they are told to."""

    numbers: tuple[int, ...] = ()

    def _input(self, work, ops, value):
        drawn = super()._input(work, ops, value)
        for op in ops:
            if value == getattr(op, "choice", None):
                drawn[:, 0] = self.numbers
                for copy in self.at.read(work, op, value).copies:
                    self._fill(copy, self.at.layout(value), drawn)
        return drawn


def with_choice(*numbers: int, count: int = 5, hidden: int = 64) -> Chosen:
    rig = Chosen(mixed(count, 2, hidden), 1, 0, "fp16", Launch(1, 0, 8))
    rig.numbers = numbers
    return rig


@pytest.mark.parametrize(("numbers", "size"), [
    ((0, 1), {}), ((4, 3), {}), ((4, 4), {}), ((0, 39), {"count": 40, "hidden": 640}),
])  # fmt: skip
def test_whichever_experts_are_chosen_are_read(numbers, size):
    rig = with_choice(*numbers, **size)
    for op in (op for op in rig.ops if isinstance(op, ExpertLinear)):
        result = rig.run(op)
        expected = np.asarray(result.expected).reshape(1, -1)
        limit = 2e-6 * np.abs(expected).max()
        for dtype, values in result.copies:
            np.testing.assert_allclose(values, expected, 1e-3 if dtype == "f16" else 1e-6, limit)


def test_an_expert_that_is_not_there_is_outside_the_region():
    rig = with_choice(0, 5)
    op = next(op for op in rig.ops if isinstance(op, ExpertLinear))
    with pytest.raises(ChipError, match="is outside the region of"):
        rig.run(op)


class Scored(OpRig):
    """A rig whose router is told the scores of its rows."""

    scores: np.ndarray

    def _input(self, work, ops, value):
        (op,), drawn = ops, super()._input(work, ops, value)
        drawn[:] = self.scores
        self._fill(self.at.read(work, op, value).copies[0], self.at.layout(value), drawn)
        return drawn


def test_a_router_takes_the_highest_and_of_equal_ones_the_lowest_lanes():
    """Also of scores below the zeros in the lanes beyond them, and of those that drown others."""
    count, up = 7, np.arange(7.0)
    rows = [0 * up, -1e30 + 0 * up, up, -up, up // 2, -(up // 2), 1e30 * (up - 3), up % 2 * 1e-30]
    rig = Scored(mixed(count, 3), 1, 0, "int8", Launch(len(rows), 0, 8))
    rig.scores = np.array(rows, np.float32)
    result = rig.run(next(op for op in rig.ops if isinstance(op, Route)))
    for _, values in result.copies:
        assert np.array_equal(values, result.expected.reshape(len(rows), -1))
        numbers = [sorted(range(count), key=lambda e, row=row: (-row[e], e))[:3] for row in rows]
        assert values[:, :3].tolist() == numbers


@pytest.mark.parametrize("count", [1, 7, 9, 17, 320])
def test_ranks_are_those_of_sorted_scores_however_many_are_alike(count):
    """Scores of three kinds, zeros of both signs and minus infinity among them."""
    chosen, rows, rng = min(count, 8), 3, np.random.default_rng(count)
    scores = rng.choice(np.array([-1, -0.0, 0.0, 2, -np.inf, 3e38], np.float32), (rows, count))
    scores[:, rng.integers(count)] = 5  # so that the highest is finite
    rig = Scored(mixed(count, chosen, 8, 8), 1, 0, "int8", Launch(rows, 0, 8))
    rig.scores = scores
    result = rig.run(next(op for op in rig.ops if isinstance(op, Route)))
    for _, values in result.copies:
        assert np.array_equal(values, result.expected.reshape(rows, -1))
        order = [sorted(range(count), key=lambda e, row=row: (-row[e], e)) for row in scores]
        assert values[:, :chosen].tolist() == [row[:chosen] for row in order]


@pytest.mark.parametrize(("count", "rows"), [(2, 1), (4, 4), (8, 1), (8, 3), (8, 5)])
@pytest.mark.parametrize("weights", ["int8", "w8a16"])
def test_few_scores_are_ranked_on_their_way_from_the_array(weights, count, rows, monkeypatch):
    """Also where some are alike: here experts have one of three rows of weights."""
    drawn = SectionWeights.array

    def alike(self, place, weight, rows=slice(None)):
        found = drawn(self, place, weight)
        return (found[np.arange(len(found)) % 3] if weight.name == "router" else found)[rows]

    monkeypatch.setattr(SectionWeights, "array", alike)
    rig = OpRig(mixed(count, min(count, 5), 400), 1, 0, weights, Launch(rows, 0, 8))
    result = rig.run(next(op for op in rig.ops if isinstance(op, Route)))
    for _, values in result.copies:
        assert np.array_equal(values, result.expected.reshape(rows, -1))


def left_of_a_chunk(weights: str, limit: int | None) -> tuple[list[np.ndarray], list[int]]:
    """The summands of a rank after eight tokens, and the cycles of its steps."""
    rig = OpRig(mixed(9, 4, 320, 320), 2, 0, weights, Launch(8, 0, 8))
    x = rig.stage.view("x0", rig.stage.hidden_blocks * 8)
    rig.chip.put(x, rig.rng.standard_normal((x.region.vectors, LANES), np.float32))
    pace = Pace(1, limit, 0) if limit else None
    rig.chip.plan = rig.stage.schedule(8, 1, None, pace, only=0)
    rig.chip.run()
    steps = list(rig.stage.steps(8, 1, None, limit))
    return [rig.chip.read(rig.stage.memory[n]) for n in SUMMANDS], [one.cycles for one in steps]


@pytest.mark.parametrize("weights", ["fp16", "int8"])
def test_where_clocks_leave_few_cycles_some_tokens_meet_experts_at_a_time(weights):
    whole, cycles = left_of_a_chunk(weights, None)
    limit = 1200  # their router takes 1,057
    parts, each = left_of_a_chunk(weights, limit)
    assert len(cycles) == 1 and max(each) <= limit < max(cycles)
    assert len(each) > len(list(mixed(9, 4).ops))
    for one, other in zip(whole, parts, strict=True):
        assert np.array_equal(one, other)
