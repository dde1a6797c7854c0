"""The worked programs do what they say, found again with NumPy from the bytes they start with."""

import json
from pathlib import Path

import numpy as np
import pytest

from chip.assembly import Image
from chip.assembly.image import Network
from chip.errors import HazardError
from cluster.cli import main
from cluster.machines.execution import Execution, execute, read_image
from tests.cluster.test_cli import complaint

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "scripts" / "asm"
Given = dict[tuple[int, int], np.ndarray]  # (chip, slice) -> values put there


def given(image: Image) -> Given:
    return {(f.chip, f.region.index): f.values.astype(np.float64) for f in image.fills}


def vector_add(data: Given) -> dict[tuple[int, str], np.ndarray]:
    return {(0, "sum"): data[0, 0].astype(np.float16) + data[0, 44].astype(np.float16)}


def matmul_tile(data: Given) -> dict[tuple[int, str], np.ndarray]:
    return {(0, "y"): np.einsum("mk,nk->mn", data[0, 0], data[0, 16]).astype(np.float32)}


def transpose(data: Given) -> dict[tuple[int, str], np.ndarray]:
    found = np.zeros((16, 320))
    for superlane in range(20):
        lanes = slice(16 * superlane, 16 * superlane + 16)
        found[:, lanes] = np.stack([data[0, i][0, lanes] for i in range(16)]).T
    return {(0, f"y{i}"): found[i : i + 1] for i in range(16)}


def softmax(data: Given) -> dict[tuple[int, str], np.ndarray]:
    shifted = np.exp(data[0, 8] - data[0, 8].max())
    return {(0, "p"): shifted / shifted.sum()}


def ping_pong(data: Given) -> dict[tuple[int, str], np.ndarray]:
    return {(0, "back"): data[0, 0] + 1}


def all_reduce(data: Given) -> dict[tuple[int, str], np.ndarray]:
    total = sum(data[chip, 8] for chip in range(8))
    return {(chip, "total"): total for chip in range(8)}


ORACLES = {
    f.__name__: f for f in (vector_add, matmul_tile, transpose, softmax, ping_pong, all_reduce)
}
TOLERANCE = {"softmax": 1e-4}


@pytest.fixture(scope="module")
def executed() -> dict[str, Execution]:
    return {name: execute(read_image(PROGRAMS / f"{name}.lpuasm")) for name in ORACLES}


def test_every_worked_program_has_an_oracle_here():
    assert {path.stem for path in PROGRAMS.glob("*.lpuasm")} == set(ORACLES)


@pytest.mark.parametrize("name", ORACLES)
def test_results_are_those_of_numpy(name, executed):
    run = executed[name]
    expected = ORACLES[name](given(run.image))
    found = {
        (chip, key): values for chip, named in run.memory.items() for key, values in named.items()
    }
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_allclose(found[key].astype(np.float64), values, 0, TOLERANCE.get(name, 0))


@pytest.mark.parametrize("name", ORACLES)
def test_each_output_is_checked_by_the_program_itself(name, executed):
    run = executed[name]
    assert all(one.ok for one in run.checks)
    checked = {(one.check.chip, one.check.name) for one in run.checks}
    assert checked == {(chip, key) for chip, named in run.memory.items() for key in named}


@pytest.mark.parametrize("name", ["vector_add", "ping_pong", "transpose"])
@pytest.mark.parametrize("spec", ["lp30", "tiny"])
def test_a_text_runs_on_chips_of_another_shape(name, spec):
    run = execute(read_image(PROGRAMS / f"{name}.lpuasm", spec))
    assert all(one.ok for one in run.checks)


@pytest.mark.parametrize("latency_cycles", [217, 1000])
def test_the_ring_works_with_other_latencies(latency_cycles):
    network = Network("ring:8", "", (f"latency_cycles={latency_cycles}",))
    run = execute(read_image(PROGRAMS / "all_reduce.lpuasm", network=network))
    assert all(one.ok for one in run.checks)
    assert run.cycles > 14 * (latency_cycles + 27)


# --- the commands -----------------------------------------------------------------------------
def result(capsys, *arguments: str) -> dict:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_exec_prints_cycles_and_memory_of_text_and_of_the_assembled_file(capsys, tmp_path):
    source, made = str(PROGRAMS / "ping_pong.lpuasm"), tmp_path / "pp.lpu"
    trace, text = tmp_path / "t.json", tmp_path / "pp.lpuasm"
    assert result(capsys, "asm", source, "-o", str(made))["chips"] == 2
    assert main(["disasm", str(made), "-o", str(text)]) == 0
    reports = [
        result(capsys, "exec", str(path), "--trace", str(trace)) for path in (source, made, text)
    ]
    for report in reports:
        assert report["memory"]["0"]["back"]["values"] == [[n % 100 + 1 for n in range(320)]]
        assert report["checks"] == [
            {"chip": 0, "name": "back", "ok": True, "wrong": 0, "largest_error": 0.0, "within": 0.0}
        ]
        assert report["cycles"] == reports[0]["cycles"] > 2 * 270
        assert report["digest"] == reports[0]["digest"]
    events = json.loads(trace.read_text())
    assert events["otherData"]["end_cycle"] == reports[0]["cycles"]
    assert sum(event["ph"] == "s" for event in events["traceEvents"]) == 2  # two packets


def test_the_tour_shows_what_exec_prints(capsys):
    tour = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
    shown = tour.partition("$ lpu exec ")[2].partition("```")[0]
    program, *lines = shown.strip("\n").splitlines()
    assert main(["exec", str(ROOT / program)]) == 0
    printed = [line.strip() for line in capsys.readouterr().out.splitlines()]
    for line in lines:
        assert any(found.startswith(line.strip()) for found in printed), line


def test_a_wrong_result_exits_with_1_and_says_where(capsys, tmp_path):
    text = (PROGRAMS / "vector_add.lpuasm").read_text()
    path = tmp_path / "wrong.lpuasm"
    path.write_text(text.replace("= a + b", "= a - b"))
    assert main(["exec", str(path)]) == 1
    assert "WRONG: " in capsys.readouterr().out
    path.write_text(text.replace("= a + b", "= a + b + 0.001") + "\n")
    assert main(["exec", str(path), "--json"]) == 1
    (check,) = json.loads(capsys.readouterr().out.splitlines()[-1])["checks"]
    assert not check["ok"] and check["wrong"] > 0 and check["largest_error"] > 0
    path.write_text(text.replace("= a + b", "= a + b + 0.001 within 0.01") + "\n")
    assert main(["exec", str(path)]) == 0


def test_a_broken_schedule_names_chip_queue_cycle_and_line(tmp_path):
    text = (PROGRAMS / "vector_add.lpuasm").read_text().replace("@%sum ", "@%sum+1")
    path = tmp_path / "late.lpuasm"
    path.write_text(text)
    line = 1 + text[: text.index("@%sum+1")].count("\n")
    words = rf"nobody drives: chip 0 queue mem\.w:4 cycle.*late\.lpuasm:{line}\)"
    with pytest.raises(HazardError, match=words):
        execute(read_image(path))


WRONG = {
    "absent": (None, "No such file"),
    "binary": (b"\x00\x01\x02\xff" * 9, "neither an assembled file nor"),
    "empty msgpack": (b"\x80", "neither an assembled file nor"),
    "unknown op": (b"mem.r:0 mem.raed a=0", "x:1:9: unknown instruction mem.raed; did you mean"),
    "unknown queue": (b"\n mem.r:88 mem.read 0 E0", "x:2:2: no queue 'mem.r:88' on chip"),
    "small topology": (
        b".topology ring:4\n.chip 0..7\n@0 mem.r:0 mem.read address=0 out=E0",
        "x:1:11: topology ring:4: has 4 chips, 0 to 3; the program is for chip 7 too",
    ),
    "hazard": (b"@0 mem.w:0 mem.write address=0 a=E0", "mem.w:0 cycle 0"),
    "columns": (b".output y f16 slice 0 address 0 vectors 8 columns", "is not rows"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_one_line(case, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, message = WRONG[case]
    if data is not None:
        Path("x").write_bytes(data)
    assert message in complaint(capsys, "exec", "x")


def test_wrong_uses_are_one_line(capsys, tmp_path):
    source, made = str(PROGRAMS / "vector_add.lpuasm"), str(tmp_path / "made.lpu")
    assert "Is a directory" in complaint(capsys, "exec", str(tmp_path))
    assert "Is a directory" in complaint(capsys, "disasm", str(tmp_path))
    assert "does not exist" in complaint(capsys, "asm", source, "-o", "/nowhere/x")
    assert main(["asm", source, "-o", made]) == 0
    capsys.readouterr()
    assert "is assembled for groqchip1" in complaint(capsys, "exec", made, "--spec", "tiny")
    assert "unknown chip 'tpu'" in complaint(capsys, "exec", source, "--spec", "tpu")
    assert "unknown topology" in complaint(capsys, "exec", source, "--topology", "blob")
    assert "need --topology" in complaint(capsys, "exec", source, "--link", "latency_cycles=3")
    whole = Path(made).read_bytes()
    Path(made).write_bytes(whole[: len(whole) // 2])
    assert "or one cut short" in complaint(capsys, "exec", made)
