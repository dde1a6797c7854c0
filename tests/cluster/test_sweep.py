"""A sweep says at each point what `lpu plan` says there; costs from disk are those lowered anew."""

import pytest

from chip.schedule import Schedule, merged
from chip.spec import GROQCHIP1
from cluster.compiler.choose import PlanRequest
from cluster.compiler.hand_over import row_cycles, send_activations, send_shares
from cluster.compiler.launch import decode_kind, prefill_kind
from cluster.compiler.place import Places
from cluster.compiler.sizes import Sizes
from cluster.compiler.timeline import in_parts
from cluster.compiler.wires import Wires
from cluster.errors import BadValue, DoesNotFit
from cluster.model.known import known_model
from cluster.planning.cost_store import CostStore
from cluster.planning.costs import Costs, Width
from cluster.planning.planner import make, report
from cluster.planning.sweep import Point, Sweep
from topology import parse

PROMPT, NEW = 330, 10
KEYS = ("cycles_per_token", "tokens_per_s_per_user", "prefill_cycles", "time_to_first_token_s")


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    return Sweep("tiny", PROMPT, NEW)


@pytest.mark.parametrize("point", [
    Point("node", 1, 1), Point("node", 2, 2), Point("ring:6", 4, 1), Point("dragonfly:24", 1, 2),
])  # fmt: skip
def test_a_point_has_the_numbers_of_its_plan(sweep, point):
    row = sweep.row(point)
    request = PlanRequest(
        tp=point.tp, pp=point.pp, topology=point.topology, context=PROMPT + NEW,
        prompt_tokens=PROMPT,
    )  # fmt: skip
    stated = report(make("tiny", request))
    assert {key: getattr(row, key) for key in KEYS} == {key: stated[key] for key in KEYS}


def test_several_sequences_have_the_numbers_of_their_plan():
    sweep = Sweep("tiny", 4, 8, pipelines=True)
    row = sweep.row(Point("node", 1, 2, 2))
    request = PlanRequest(
        tp=1, pp=2, topology="node", batch=2, context=12, prompt_tokens=4
    )  # fmt: skip
    stated = report(make("tiny", request))
    assert row.pipeline == {key: stated[key] for key in row.pipeline}
    assert row.cycles_per_token == stated["cycles_per_token"]


def test_all_points_that_fit_are_found_and_others_say_why(sweep):
    found = list(sweep.points(["ring:6"], [1, 2, 4], [1, 2]))
    assert len(found) == len(set(found)) > 6
    assert all(p.tp * p.pp <= 6 for p in found) and {p.batch for p in found} == {1, 2}
    with pytest.raises(BadValue, match="ring:6: has 6 chips, 4 stages x tp 2 need more"):
        sweep.row(Point("ring:6", 2, 4))
    (error,) = Sweep("llama-2-7b").rows([Point("node", 1, 1)])
    assert isinstance(error, DoesNotFit) and error.needs_bytes > error.has_bytes


def test_costs_on_disk_are_those_of_the_schedules(tmp_path, monkeypatch):
    sizes, width = Sizes(known_model("smollm2"), GROQCHIP1), Width(3, 8)
    graph = parse("node")
    routes = Wires(graph).group(Places(graph).place(3, 1).placement[0]).routes
    fresh, kept = Costs(sizes), Costs(sizes, CostStore(tmp_path))
    kinds = decode_kind(320), prefill_kind(8, 320)
    for kind in kinds:
        assert kept.layer(width, 0, kind, routes) == fresh.layer(width, 0, kind, routes)
    again = Costs(sizes, CostStore(tmp_path))
    monkeypatch.setattr("cluster.planning.costs.step_timing", None)  # nothing is lowered any more
    assert again.layer(width, 0, kinds[1], routes) == kept.layer(width, 0, kinds[1], routes)


@pytest.mark.parametrize("topology, tp", [("dragonfly:72", 8), ("ring:24", 12), ("torus:5x8", 20)])
@pytest.mark.parametrize("rows, limit", [(1, None), (8, 3000)])
def test_what_crosses_is_timed_as_it_is_scheduled(topology, tp, rows, limit):
    """Paths that do not meet are timed apart, here all in one schedule; or shares, if quicker."""
    width, graph = Width(tp, 8), parse(topology)
    costs, wires = Costs(Sizes(known_model("llama-2-7b"), GROQCHIP1)), Wires(graph)
    link = wires.link(*Places(graph).place(tp, 2).placement)
    stage = costs.stage(width)
    parts = costs.links.crossing(costs.stage(width), rows, link.paths, link.onward, limit)
    assert bool(link.onward) == (topology == "dragonfly:72")  # ranks that are neighbours

    def together(first: int, last: int) -> Schedule:
        size = link.paths, (first, last)
        whole = send_activations(Schedule(stage.spec), stage, stage, *size)
        shared = send_shares(stage, stage, link.paths, link.onward, (first, last))
        assert shared is None or shared.end_cycle < whole.end_cycle
        return shared or whole

    least = 0 if link.onward else row_cycles(link.paths)
    scheduled = in_parts(rows * stage.hidden_blocks, limit, together, least)
    assert len(parts) == len(scheduled) and (len(parts) > 1) == bool(limit)
    for part, plan in zip(parts, scheduled, strict=True):
        assert part == merged([(*plan.timings[0][:1], None, 0)])


def test_a_damaged_cost_file_counts_as_none(tmp_path):
    store = CostStore(tmp_path)
    assert store.kept("answer", 1, lambda: 42, int, int) == 42
    (path,) = tmp_path.rglob("*.json")
    assert store.kept("answer", 1, lambda: 43, int, int) == 42
    path.write_text("[")
    assert store.kept("answer", 1, lambda: 44, int, int) == 44


def test_costs_of_another_source_are_not_taken(tmp_path, monkeypatch):
    assert CostStore(tmp_path).kept("answer", 1, lambda: 42, int, int) == 42
    monkeypatch.setattr(CostStore, "source", "another")
    assert CostStore(tmp_path).kept("answer", 1, lambda: 43, int, int) == 43
