"""Timelines, read back by their formats alone, against what the emulator reports."""

import json
import re
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

import cluster
from chip.wire import unpack
from cluster.cli import main
from cluster.errors import BadValue
from tests.cluster.trace_reader import Read, read

PLANS = {
    "one chip": {"tp": 1, "pp": 1},
    "six chips": {"tp": 2, "pp": 3, "topology": "ring:8"},
}
LEVELS = ("segments", "kernels", "instructions")


def check_nested(found: Read) -> None:
    """Slices of a track lie apart or in each other, and every flow joins two."""
    for track in found.tracks:
        open_ends: list[int] = []
        for start, end, *_ in sorted(track.slices, key=lambda one: (one[0], -one[1])):
            assert start < end
            while open_ends and open_ends[-1] <= start:
                open_ends.pop()
            assert not open_ends or end <= open_ends[-1], (track.chip, track.title, start, end)
            open_ends.append(end)
    for ends in found.flows:
        for track, cycle in ends:
            assert any(start <= cycle < end for start, end, *_ in track.slices)


def end_cycle(found: Read) -> int:
    """When the last slice is over, as the last results are: segments say so."""
    return max(one[1] for track in found.tracks for one in track.slices)


def link_bytes(found: Read, plan_chips: dict[str, int]) -> dict[str, int]:
    """Bytes by link, from the slices of sends: of kernels, which name who receives."""
    total: dict[str, int] = defaultdict(int)
    for track in found.tracks:
        if track.title.startswith("C2C send"):
            for *_, args in track.slices:
                total[f"{plan_chips[track.chip]}->{args['peer']}"] += args["bytes"]
    return dict(total)


def chip_numbers(found: Read) -> dict[str, int]:
    return {track.chip: int(track.chip.split()[0].removeprefix("chip-")) for track in found.tracks}


def busy_cycles(found: Read, unit: str) -> dict[str, int]:
    """Queue cycles of a unit on each chip."""
    total: dict[str, int] = defaultdict(int)
    for track in found.tracks:
        if re.match(rf"{unit}\b", track.title):
            for start, end, _, args in track.slices:
                total[track.chip] += args.get("queue_cycles", end - start)
    return dict(total)


@pytest.fixture(scope="module", params=PLANS)
def ran(request, tmp_path_factory):
    """A run's report, and the timelines of its last token at all levels in both formats."""
    folder = tmp_path_factory.mktemp("traces")
    shape = PLANS[request.param]
    words = ["run", "tiny", "--prompt-ids", "1,5,9", "--max-new-tokens", "2"]
    words += [word for name, value in shape.items() for word in (f"--{name}", str(value))]
    files = ["--report", str(folder / "r.json"), "--trace", str(folder / "kernels.json.gz")]
    assert main([*words, *files, "--json"]) == 0
    found = {("kernels", ".json.gz"): read(folder / "kernels.json.gz")}
    with cluster.load("tiny", **shape) as engine:
        engine.generate([1, 5, 9], 2)
        for level in LEVELS:
            for suffix in (".json.gz", ".pftrace"):
                if (level, suffix) not in found:
                    engine.trace(folder / f"{level}{suffix}", level)
                    found[level, suffix] = read(folder / f"{level}{suffix}")
    return json.loads((folder / "r.json").read_text()), found


def test_slices_nest_flows_join_two_and_both_formats_say_the_same(ran):
    report, found = ran
    for level in LEVELS:
        chrome, perfetto = (found[level, suffix] for suffix in (".json.gz", ".pftrace"))
        check_nested(chrome)
        assert end_cycle(chrome) == report["emulated"]["decode_cycles"][-1]
        content = [
            {(t.chip, t.title): sorted(map(repr, t.slices)) for t in one.tracks}
            for one in (chrome, perfetto)
        ]
        assert content[0] == content[1]
        flows = [sorted((a.title, x, b.title, y) for (a, x), (b, y) in one.flows)
                 for one in (chrome, perfetto)]  # fmt: skip
        assert len(flows[0]) == len(flows[1])
        order = [[(t.chip, t.title) for t in sorted(one.tracks, key=lambda t: (t.chip, t.order))]
                 for one in (chrome, perfetto)]  # fmt: skip
        assert order[0] == order[1]
        assert (len(report["plan"]["stages"]) == 1) == (not flows[0])


def test_bytes_of_links_and_busy_units_are_those_of_the_report_at_every_level(ran):
    report, found = ran
    kernels, fine = (found[level, ".pftrace"] for level in ("kernels", "instructions"))
    assert link_bytes(kernels, chip_numbers(kernels)) == report["emulated"]["link_bytes"]
    for unit in ("MXM load weights", "MXM activations", "VXM", "SXM", "MEM read", "C2C send"):
        assert busy_cycles(kernels, unit) == busy_cycles(fine, unit)
    loads = sum(
        args["issues"] for t in kernels.tracks for *_, args in t.slices
        if t.title.startswith("MXM load weights")
    )  # fmt: skip
    cycles, plan = report["emulated"]["decode_cycles"][-1], report["plan"]
    chips = plan["chips"] + len(plan["transit_chips"])
    share = loads / (2 * cycles * chips)  # one load a cycle on each side of a chip
    assert share == pytest.approx(report["emulated"]["utilisation"]["mxm_weights"])
    named = {name for t in kernels.tracks for _, _, name, _ in t.slices}
    assert {"layer 0 matmul wq", "layer 1 ffn: silu", "head", "start of the chips"} - named <= {
        "start of the chips"  # a chip alone starts at once
    }


def test_counters_add_up_to_what_the_queues_do(ran):
    _, found = ran
    kernels = found["kernels", ".json.gz"]
    for chip in {track.chip for track in kernels.tracks}:
        samples = kernels.counters[chip, "busy queues"]
        area = sum((b - a) * value for (a, value), (b, _) in pairwise(samples))
        mine = [t for t in kernels.tracks if t.chip == chip and t.title != "segments"]
        done = sum(args["queue_cycles"] for t in mine for *_, args in t.slices)
        assert area == pytest.approx(done, rel=0.01)


def test_every_instruction_of_a_program_is_a_slice_with_its_kernel(tmp_path):
    with cluster.load("tiny", tp=2, pp=2, topology="ring:4") as engine:
        engine.generate([1, 5], 1)
        path = tmp_path / "t.json"
        engine.trace(path, "instructions", chips=[1])
        (name,) = {json.loads(path.read_text())["otherData"]["launch"]}
        program = unpack(engine.lowered.launches[name].programs[1])
        with pytest.raises(BadValue, match=r"\.pftrace"):
            engine.trace(tmp_path / "t.txt")
    wanted = sorted(
        (program.start_cycle + cycle, one.op) for _, cycle, one in program.instructions()
    )
    found = read(path)
    assert {track.chip for track in found.tracks} == {"chip-001 stage 0 rank 1"}
    slices = [one for t in found.tracks if t.title != "segments" for one in t.slices]
    assert sorted((start, name) for start, _, name, _ in slices) == wanted
    assert all(args["kernel"] for *_, args in slices)


def test_a_plan_s_timeline_ends_with_its_token_and_needs_no_schedule_for_segments(tmp_path, capsys):
    path = tmp_path / "plan.json.gz"
    words = ["plan", "tiny", "--tp", "2", "--pp", "2", "--topology", "ring:4", "--json"]
    for level in ("segments", "kernels"):
        assert main([*words, "--trace", str(path), "--trace-level", level]) == 0
        planned = json.loads(capsys.readouterr().out)
        found = read(path)
        check_nested(found)
        assert end_cycle(found) == planned["cycles_per_token"]
        assert found.flows and (level == "segments") == (not found.counters)
        steps = [one for t in found.tracks if t.title == "segments" for one in t.slices]
        attention = {(s, e) for s, e, name, _ in steps if name.endswith("attention")}
        assert attention
    assert main([*words, "--trace", str(path), "--trace-chips", "1-2"]) == 0
    assert {t.chip.split()[0] for t in read(path).tracks} == {"chip-001", "chip-002"}


def test_several_in_flight_show_each_stage_at_its_own_sequence(tmp_path, capsys):
    prompts, path = tmp_path / "p.txt", tmp_path / "t.pftrace"
    prompts.write_text("a\nbc\nd\n")
    shape = ["--tp", "1", "--pp", "2", "--concurrency", "2", "--max-new-tokens", "4"]
    words = ["run", "tiny", "--prompts", str(prompts), *shape, "--json", "--trace", str(path)]
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    found = read(path)
    check_nested(found)
    assert end_cycle(found) == report["emulated"]["decode_cycles"][-1]
    assert link_bytes(found, chip_numbers(found)) == report["emulated"]["link_bytes"]


@pytest.mark.soak
def test_a_token_of_ninety_chips_is_less_than_20_mb(tmp_path, capsys):
    path = Path(tmp_path / "t.json")
    shape = ["--tp", "3", "--pp", "30", "--topology", "torus:9x10"]
    words = ["run", "smollm2", "--prompt", "Hello", "--max-new-tokens", "2", *shape]
    assert main([*words, "--json", "--trace", str(path)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert path.stat().st_size < 20e6
    found = read(path)
    check_nested(found)
    assert end_cycle(found) == report["emulated"]["decode_cycles"][-1]
    assert link_bytes(found, chip_numbers(found)) == report["emulated"]["link_bytes"]
