"""Where buffers rest: whatever is asked for, nothing that lives at one time shares a word."""

from collections import defaultdict
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chip.kernels.conflicts import MUST, Conflicts
from chip.kernels.memory import MemoryMap, SramFull
from chip.kernels.occupancy import FOREVER, Occupancy, Taken
from chip.kernels.trial import Demands
from chip.kernels.work import CACHE, CONSTANT, INPUT, SCRATCH, Request
from chip.spec import EAST, GROQCHIP1, TINY, WEST
from cluster.compiler.limits import CONTEXT_BLOCK
from cluster.compiler.memory_map import MapError, check_map, cut_map, memory_map
from cluster.compiler.rank import ranks_of
from cluster.compiler.stage import Stage
from cluster.compiler.stage_shape import StageShape, compiled, roomy, stage_shape
from cluster.errors import ClusterError
from cluster.model.graph.builder import Builder
from cluster.model.graph.values import Dim
from cluster.model.known import known_model
from tests.cluster.model.graphs import Shape, layer

LAYERS = {"": 1, "layer.": 3}
OPS = 6


@st.composite
def demands(draw) -> Demands:
    """Buffers of all kinds, when they are used, and pairs that must lie apart."""
    requests, lives = [], {}
    for number in range(draw(st.integers(1, 14))):
        role = draw(st.sampled_from([SCRATCH, SCRATCH, INPUT, CONSTANT, CACHE]))
        columns = role == CACHE or (role == CONSTANT and draw(st.booleans()))
        each = role in (CACHE, CONSTANT) and draw(st.booleans())
        name = f"{'layer.' if each else ''}b{number}"
        # matrices that may be cut are large now and then
        large = columns and role == CONSTANT and draw(st.booleans())
        vectors = 8 * draw(st.integers(1, 600)) if large else draw(st.integers(1, 120))
        requests.append(
            Request(
                name,
                draw(st.integers(1, 700)) if columns and not large else vectors,
                "f16" if columns else draw(st.sampled_from(["f16", "f32", "i8"])),
                draw(st.sampled_from([EAST, WEST])),
                role,
                "columns" if columns else "rows",
                each,
                role == CACHE,
                cuts=tuple(range(0, vectors // 8, draw(st.integers(1, 9)))) if large else (),
            )
        )
        lives[name] = tuple(sorted(draw(st.tuples(*[st.integers(0, OPS - 1)] * 2))))
    rows = sorted(r.name for r in requests if r.layout == "rows")
    pairs = list(combinations(rows, 2))
    chosen = st.lists(st.sampled_from(pairs), max_size=6) if pairs else st.just([])
    slices, banks = (dict.fromkeys(draw(chosen), MUST) for _ in range(2))
    return Demands(tuple(requests), lives, Conflicts(slices, banks), OPS)


def words_of(found: MemoryMap, name: str):
    """Every (slice, word) of a buffer, of all layers and slots."""
    for own in found.word_ranges(name):
        for offset in own.further:
            for index in range(own.index, own.index + own.slices):
                for word in range(own.words):
                    yield index, own.address + offset + word


@given(demands(), st.integers(1, 2), st.sampled_from([memory_map, cut_map]))
@settings(max_examples=60, deadline=None)
def test_no_word_has_two_buffers_at_one_time(asked, slots, lay_out):
    try:
        found = lay_out(TINY, asked, LAYERS, (slots, 1), [("x0", (EAST, 0, 0), 40, "f32")])
    except SramFull as full:
        assert full.what in asked.lives and full.needs_bytes > 0
        return
    owners, bank = defaultdict(set), TINY.bank_words
    for name in found.buffers:
        mine = list(words_of(found, name))
        assert len(mine) == len(set(mine)), "two layers share words"
        for place in mine:
            owners[place].add(name)
    for names in owners.values():
        for a, b in combinations(sorted(names), 2):
            (_, last, one), (first, _, two) = sorted((*_life(asked, found, n), n) for n in (a, b))
            assert last < first, (a, b)
            assert one in found.buffers[two].after
    for request in asked.requests:
        mine, region = list(words_of(found, request.name)), found.buffers[request.name].region
        if request.cuts and lay_out is cut_map:
            layers = LAYERS["layer."] if request.per_layer else 1
            assert len(mine) == 16 * layers * request.vectors // 8
            continue
        assert {index // TINY.hemisphere_slices for index, _ in mine} == {request.side}
        assert {word // bank for _, word in mine if request.layout == "rows"} <= {
            region.address // bank
        }
        if request.one_bank:
            for offset in found.moves[request.name].words if request.name in found.moves else (0,):
                start = region.address + offset
                assert start // bank == (start + region.words - 1) // bank
    for (a, b), _ in asked.conflicts.slices.items():
        assert not {i for i, _ in words_of(found, a)} & {i for i, _ in words_of(found, b)}
    for (a, b), _ in asked.conflicts.banks.items():
        one, two = ({(i, w // bank) for i, w in words_of(found, n)} for n in (a, b))
        assert not one & two


def _life(asked: Demands, found: MemoryMap, name: str) -> tuple[int, int]:
    return asked.lives[name] if found.roles[name] == SCRATCH and name != "x0" else FOREVER


def test_what_finds_no_room_says_how_much_it_needs_and_what_is_left():
    rows = Request("scores", 520, "f32", WEST)
    asked = Demands((rows,), {"scores": (0, 0)}, Conflicts({}, {}), 1)
    with pytest.raises(SramFull) as error:
        memory_map(TINY, asked, LAYERS, (1, 1), [])
    assert error.value.needs_bytes == 520 * 4 * TINY.lanes
    assert error.value.has_bytes == TINY.sram_bytes // 2
    assert "scores needs 0.6 MiB of SRAM, 13.8 MiB are left for it" in str(error.value)


# --- validators refuse ----------------------------------------------------------------------
def two() -> tuple[MemoryMap, Demands]:
    """Two scratch buffers used one after the other, in the same words; and one kept."""
    requests = (
        Request("a", 10, "f32", EAST),
        Request("b", 10, "f32", EAST),
        Request("kept", 10, "f32", EAST, CONSTANT),
    )
    asked = Demands(requests, {"a": (0, 1), "b": (2, 3), "kept": (0, 3)}, Conflicts({}, {}), 4)
    return memory_map(TINY, asked, LAYERS, (1, 1), []), asked


def moved(found: MemoryMap, name: str, index: int, address: int) -> None:
    buffer = found.buffers[name]
    region = replace(buffer.region, index=index, address=address)
    found.buffers[name] = replace(buffer, region=region)


def placed_together(found: MemoryMap) -> None:
    for name in ("a", "b"):
        moved(found, name, 40, 0)
    found.buffers["b"] = replace(found.buffers["b"], after=("a",))


def test_a_map_is_refused_where_buffers_do_not_fit():
    breaks = {
        "outside": lambda f: moved(f, "a", 86, 0),
        "lies in two banks": lambda f: moved(f, "a", 40, TINY.bank_words - 5),
        "for good": lambda f: (moved(f, "kept", 40, 0), moved(f, "a", 40, 5)),
        "in no order": lambda f: (placed_together(f), f.buffers.update(
            b=replace(f.buffers["b"], after=()))),
    }  # fmt: skip
    for rule, change in breaks.items():
        found, asked = two()
        change(found)
        with pytest.raises(MapError, match=rule):
            check_map(found, asked)
    found, asked = two()
    placed_together(found)
    check_map(found, asked)
    with pytest.raises(MapError, match="a and b have the same words at the same time"):
        check_map(found, replace(asked, lives=asked.lives | {"a": (0, 2)}))
    for what, rule in (("slices", "rest in one slice"), ("banks", "rest in one bank")):
        met = replace(asked.conflicts, **{what: {("a", "b"): MUST}})
        with pytest.raises(MapError, match=f"meet in a chain, and {rule}"):
            check_map(found, replace(asked, conflicts=met))


def stage_of(section) -> Stage:
    sharded = compiled(section, 1, "fp16")
    ranks = ranks_of([sharded], TINY.lanes)
    return Stage(TINY, StageShape((sharded,), None, ranks, CONTEXT_BLOCK, 8))


def test_a_stage_is_refused_if_a_layer_leaves_its_result_elsewhere():
    b = Builder(Dim("hidden", 64))
    b.linear(b.norm(b.x, "norm", 1e-5), "w", Dim("hidden", 64))
    with pytest.raises(ClusterError, match="must end in the buffer x0, it ends in None"):
        stage_of(b.section())
    assert stage_of(layer(Shape())).memory.used_bytes


def test_an_assignment_is_refused_if_a_layout_does_not_hold_its_value():
    stage = stage_of(layer(Shape()))
    assigned = stage.assigned(stage.shape.layers[0], 0, 8)
    short = replace(assigned.layout(assigned.section.x), spans=())
    assigned._layouts["x"] = short
    with pytest.raises(ClusterError, match="x has 64 elements, its layout holds 0"):
        assigned.check()


def test_rows_that_find_no_place_in_their_turn_come_before_others(monkeypatch):
    """Of Llama 2 70B on 12 chips steps of integers meet all that others left them slices beside."""
    size = 12, CONTEXT_BLOCK, 32, "int8", (1, 1), (0, 1), True
    shape = stage_shape(known_model("llama-2-70b"), GROQCHIP1, *size)
    assert Stage(GROQCHIP1, shape).memory.used_bytes
    monkeypatch.setattr("cluster.compiler.memory_map.TRIED_AGAIN", 0)
    assert shape.whole is not None
    with pytest.raises(SramFull, match="step1 needs"):
        Stage(roomy(GROQCHIP1), shape.whole).lay_out()


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 90), st.integers(0, 30)), max_size=9))
def test_words_that_are_taken_are_counted_once(spans):
    """Each span is (first slice, first word, words) of two slices; also with one more to come."""
    occupancy, words = Occupancy(TINY), np.zeros((9, 150), bool)
    for number, (index, start, count) in enumerate(spans):
        assert occupancy.used(0, 9, (start, start + count)) == np.count_nonzero(
            words.any(0) | ((np.arange(150) >= start) & (np.arange(150) < start + count))
        )
        occupancy.take(index, 2, Taken(start, start + count, f"b{number}", 0, 1))
        words[index : index + 2, start : start + count] = True
        assert occupancy.used(0, 9) == np.count_nonzero(words.any(0))
