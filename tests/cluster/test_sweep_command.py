"""`lpu sweep`: what is wrong in a file is one line; what is known is not computed again."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cluster
from cluster.cli import main
from cluster.compiler.choose import PlanRequest
from cluster.hybrid.answer import with_gpus
from cluster.hybrid.between import between
from cluster.hybrid.gpus import gpus_of
from cluster.hybrid.systems import AFD
from cluster.planning.planner import make, report
from cluster.serving import replay
from cluster.serving.core import play
from cluster.sweeps import row_store, sweeping
from cluster.sweeps.evaluation import OF_REPORT, Evaluator, Finding
from cluster.sweeps.local_pool import LocalPool, here
from cluster.sweeps.question import asked, read

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS = sorted((ROOT / "scripts" / "whatif").glob("*.toml"))
FILE = """\
question = "Which number of chips is fastest for tiny?"
model = "tiny"

[grid]
tp = [1, 2, 4]
topology = ["node", "ring:6"]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with FILE in it, and a cache that is empty but for what is compiled."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LPU_CACHE", str(tmp_path / "cache"))
    (tmp_path / "q.toml").write_text(FILE)
    return tmp_path


def counts(capsys, *arguments: str) -> dict:
    assert main(["sweep", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_sweep_writes_rows_plots_and_an_answer_and_knows_them_next_time(folder, capsys):
    first = counts(capsys, "q.toml", "--workers", "1")
    assert {k: first[k] for k in ("points", "computed", "cached", "failed")} == {
        "points": 6, "computed": 6, "cached": 0, "failed": 0,
    }  # fmt: skip
    lines = [json.loads(line) for line in (folder / "q/results.jsonl").read_text().splitlines()]
    assert [(row["tp"], row["topology"]) for row in lines] == [
        (tp, topology) for tp in (1, 2, 4) for topology in ("node", "ring:6")
    ]
    with (folder / "q/results.csv").open(newline="") as file:
        assert [row["cycles_per_token"] for row in csv.DictReader(file)] == [
            str(row["cycles_per_token"]) for row in lines
        ]
    page = (folder / "q/report.html").read_text()
    best = max(lines, key=lambda row: row["tokens_per_s_per_user"])
    assert page.index(f"{best['tokens_per_s_per_user']:,.0f}") < page.index("<h2>")
    assert 'class="answer"' in page and "<svg" in page and (folder / "q/heat_map.svg").exists()
    before = {path.name: path.read_bytes() for path in (folder / "q").glob("results.*")}
    again = counts(capsys, "q.toml")
    assert (again["computed"], again["cached"]) == (0, 6) and again["answer"] == first["answer"]
    assert before == {path.name: path.read_bytes() for path in (folder / "q").glob("results.*")}
    (folder / "q.toml").write_text(FILE.replace("4]", "3]"))  # two points are others now
    assert counts(capsys, "q.toml")["computed"] == 2


def test_a_row_has_the_figures_of_lpu_plan(folder):
    (folder / "tiny").mkdir()  # as results of tiny.toml would be: it is no model
    found = cluster.sweep("q.toml", workers=1)
    for row in found.rows[::3]:
        request = PlanRequest(tp=row["tp"], topology=row["topology"])
        stated = report(make("tiny", request))
        assert {name: row[name] for name in OF_REPORT} == {name: stated[name] for name in OF_REPORT}
    assert found.failed == 0 and str(found) == found.answer and "tokens/s per user" in found.answer


TRAFFIC = """\
do = "replay"
model = "tiny"
lengths = "~16:~8"
requests = 60
slo = "ttft=0.0001"
pp = 2
[grid]
load = ["poisson:9000", "closed:3"]
[answer]
along = "load"
"""


def test_a_replayed_row_has_the_figures_of_lpu_replay(folder, capsys, monkeypatch):
    monkeypatch.setattr(replay, "compiled_play", lambda: play.play)  # sooner than compiled
    (folder / "q.toml").write_text(TRAFFIC)
    found = cluster.sweep("q.toml", workers=1)
    assert len(found.rows) == 2 and found.failed == 0
    for row in found.rows:
        options = ["--load", row["load"], "--lengths", "~16:~8", "--requests", "60", "--json"]
        line = ["--model", "tiny", "--pp", str(row["pp"]), "--slo", "ttft=0.0001", *options]
        assert main(["replay", *line]) == 0
        stated = json.loads(capsys.readouterr().out)
        same = ("goodput_requests_per_s", "output_tokens_per_s", "slo_met", "joules_per_token")
        assert {name: row[name] for name in same} == {name: stated[name] for name in same}
        assert row["ttft_s_p99"] == stated["ttft_s"]["p99"] > stated["ttft_s"]["p50"]
        assert row["requests_served"] == stated["requests"] == 60
    best = max(found.rows, key=lambda row: row["goodput_requests_per_s"])
    assert found.answer.startswith(f"Load {best['load']} is best with ")


def test_rows_with_gpus_are_of_the_systems_that_lpu_compare_shows(folder):
    asked_for = {"model": "tiny", "tp": 2, "weights": "int8", "grid": {"afd": ["B200:1"]}}
    (row,) = cluster.sweep(asked_for, workers=1).rows
    request = PlanRequest(tp=2, weights="int8")
    found = with_gpus("tiny", request, between(()), afd=gpus_of("--afd", "B200:1"))
    mixed = [one for one in found.points if one.kind == AFD]
    most = max(mixed, key=lambda one: one.tokens_per_s_per_mw)
    assert row["with_gpus_tokens_per_s_per_mw"] == most.tokens_per_s_per_mw
    assert row["with_gpus_joules_per_token"] == most.joules_per_token
    assert row["gpus_help"] == any(one in found.front for one in mixed)


def test_a_baseline_of_all_settings_is_what_every_point_is_compared_with(folder):
    links = {"latency_cycles": ["x1", "x4"], "bandwidth": ["x1", "x0.5"]}
    same = {"link.latency_cycles": "x1", "link.bandwidth": "x1"}
    found = cluster.sweep(
        {"model": "tiny", "tp": 2, "grid": {"link": links},
         "answer": {"kind": "change", "along": "link.latency_cycles", "baseline": same}},
        workers=1,
    )  # fmt: skip
    first, narrow, slow, both = (row["tokens_per_s_per_user"] for row in found.rows)
    said = f"latency_cycles x4 {slow / first - 1:+.1%}, bandwidth x0.5 {narrow / first - 1:+.1%}"
    assert found.answer.startswith(f"Speed changes: {said}, against {first:,.0f} tokens/s")
    text = f"latency_cycles x4 and bandwidth x0.5 {both / first - 1:+.1%}"
    assert found.answer.endswith(f"Together: {text}.")


def test_points_without_a_plan_are_rows_with_their_reason(folder, capsys):
    (folder / "q.toml").write_text('model = "llama-2-7b"\nweights = "fp16"\n[grid]\nchips = [1]\n')
    found = counts(capsys, "q.toml")
    (row,) = (json.loads(line) for line in (folder / "q/results.jsonl").read_text().splitlines())
    assert found["failed"] == 1 and row["status"] == "failed" and "MiB" in row["reason"]
    assert row["reason"][:40] in found["answer"]


WRONG = {  # what is wrong -> what the line says
    'model = "tiny"\n[grid]\nchps = [1]': "line 3: grid.chps: unknown key; did you mean 'chips'?",
    'model = "tiny"\n[grid]\nchips = [1, "two"]': "line 3: grid.chips[1]: must be an integer",
    'model = "tiny"\n[grid]\nchips = []': "line 3: grid.chips: is an empty list",
    'model = "tiny"\n[grid]\nchips = 4': "line 3: grid.chips: must be a list",
    'model = "tiny"\nchips = [4]': "line 2: chips: must be one value; lists",
    'model = "tiny"\n[grid]\ntopology = ["nod"]': "line 3: grid.topology: unknown topology 'nod'",
    'model = "tiny"\n[grid]\ntopology = ["torus:4"]\n[grid]': "is not TOML",
    'model = "tiny"\n[grid]\ntopology = ["mesh:4x"]': "line 3: grid.topology: mesh:4x",
    'model = "tiny"\n[grid]\ntopology = ["file:no.graphml"]': "No such file",
    'model = "tinny"\n[grid]\nchips = [1]': "line 1: model: unknown model 'tinny'",
    '[grid]\nchips = [1]': "no point has a model",
    'question = "?"': "asks for no points",
    'model = "tiny"\n[grid]\nspec = ["groqchip9"]': "line 3: grid.spec: unknown chip",
    'model = "tiny"\n[chip]\nclock = 1': "line 3: chip.clock:",
    'model = "tiny"\n[grid.link]\nlatency = [1]': "line 3: grid.link.latency:",
    'model = "tiny"\n[grid]\nlink = { bandwidth = [2] }': 'a factor such as "x2"',
    'model = "tiny"\n[grid]\nweights = ["fp4"]': "must be 'fp16', 'int8' or 'w8a16', not 'fp4'",
    'model = "tiny"\nbatch = 0\n[grid]\nchips = [1]': "line 2: batch: must be an integer from 1",
    'model = "tiny"\nmachine = "ray"\n[grid]\nchips = [1]': 'means something with do = "run"',
    'model = "tiny"\nchips = 1\n[grid]\nchips = [1]': "give it once",
    'model = "tiny"\n[grid]\ntp = ["{chips}"]': "{chips} is no setting of this point",
    'model = "tiny"\n[[points]]\ntp = 1\n[[points]]\ntp = "x"': "line 5: points[1].tp:",
    'model = "tiny"\n[gpus]\ndevices = ["H1"]': "line 3: gpus.devices[0]: must be 'A100'",
    'model = "tiny"\n[grid]\ntp = [1]\n[answer]\nby = "joy"': "line 5: answer.by: 'joy' is no",
    'model = "tiny"\n[grid]\ntp = [1]\n[answer]\nalong = "pp"': "line 5: answer.along:",
    'model = "tiny"\n[grid]\ntp = [1]\n[answer]\nkind = "fewest"': "needs at_least",
    'do = "replay"\nmodel = "tiny"\n[grid]\nrate = [1]': 'a replay needs load = "poisson:50"',
    'do = "replay"\nmodel = "tiny"\nlengths = "4:4"\n[grid]\nload = ["poison:1"]':
        "line 5: grid.load: --load poison:1: is none of",
    'do = "replay"\nmodel = "tiny"\nload = "poisson:1"\nlengths = "4:4"\n[grid]\nslo = ["x"]':
        "line 6: grid.slo: --slo x: write",
    'do = "replay"\nmodel = "tiny"\ntrace = "no.csv"\n[grid]\npp = [1]': "line 3: trace:",
    'do = "replay"\nmodel = "tiny"\nep = 2\n[grid]\npp = [1]': "line 3: ep: means nothing with",
    'model = "tiny"\n[grid]\nslo = ["ttft=1"]': 'grid.slo: means something with do = "replay"',
    'model = "tiny"\n[grid]\nafd = ["H1:8"]': "line 3: grid.afd: afd H1:8: names no GPU",
    'model = "tiny"\nbetween = "pcie5x16"\n[grid]\ntp = [1]': "line 2: between: joins LPUs to GPUs",
    "caf\xe9": "is not TOML",
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_in_a_file_is_one_line_with_its_place(text, folder, capsys):
    (folder / "wrong.toml").write_text(text, encoding="latin-1")
    assert main(["sweep", "wrong.toml", "--workers", "1"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "wrong.toml" in said and WRONG[text] in said
    assert not (folder / "wrong").exists()


def test_an_output_that_cannot_be_written_is_refused_before_the_work(folder, capsys, monkeypatch):
    monkeypatch.setattr(sweeping, "sweep", None)  # nothing is computed
    (folder / "file").write_text("")
    for output in ("file", "absent/below", "/proc/lpu"):
        assert main(["sweep", "q.toml", "--output", output]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and output in said


def test_a_full_disk_is_one_line_and_loses_no_row(folder, capsys, monkeypatch):
    def full(path, _data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patched:
        patched.setattr("cluster.sweeps.sweeping.write_whole", full)
        assert main(["sweep", "q.toml", "--workers", "1"]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "No space left on device" in said and "results" in said
    assert counts(capsys, "q.toml")["cached"] == 6


def test_a_full_cache_is_one_line(folder, capsys, monkeypatch):
    with row_store.RowStore(folder / "cache" / sweeping.STORE) as store:
        store._base.execute("PRAGMA max_page_count = 1")
        with pytest.raises(OSError, match="full"):
            store.keep((f"{n}" * 64, {"row": "x" * 999}) for n in range(100))
        assert store.known(["0" * 64]) == {}


def test_a_damaged_cache_begins_anew(folder):
    path = folder / "sweeps.sqlite"
    path.write_bytes(b"no data base at all" * 99)
    with row_store.RowStore(path) as store:
        store.keep([("a", {"x": 1})])
        assert store.known(["a", "b"]) == {"a": {"x": 1}}


def test_a_dry_run_counts_and_computes_nothing(folder, capsys):
    assert main(["sweep", "q.toml", "--dry-run"]) == 0
    assert capsys.readouterr().out == "6 points\n"
    assert counts(capsys, "q.toml", "--dry-run")["points"] == 6
    assert not (folder / "q").exists() and not (folder / "cache").exists()


@pytest.mark.parametrize("path", QUESTIONS, ids=lambda path: path.stem)
def test_ready_questions_can_be_asked(path, capsys):
    assert counts(capsys, str(path), "--dry-run")["points"] > 2
    assert read(path).question.endswith("?") and read(path).answer is not None


def test_processes_give_the_rows_of_one_and_replace_those_that_die(folder):
    from cluster.sweeps.grid import points

    found = points(read(folder / "q.toml"))
    evaluator = Evaluator(folder / "cache")
    alone = {one.number: one.row for some in here(found, evaluator) for one in some}
    together: dict[int, object] = {}
    killed = False
    with LocalPool(2, folder / "cache") as pool:
        for some in pool.results(found):
            together |= {one.number: one.row for one in some}
            if not killed:
                killed = True
                os.kill(pool._workers[0].process.pid, signal.SIGKILL)
    assert together == alone


def test_a_point_that_kills_its_process_twice_is_a_row_that_is_not_kept(folder, monkeypatch):
    pool = LocalPool.__new__(LocalPool)
    from cluster.sweeps.grid import points

    point = points(read(folder / "q.toml"))[0]
    pool._suspects, worker = {point.number}, type("Worker", (), {})()
    worker.process, worker.left, worker.given = (
        type("P", (), {"join": lambda _: None})(),
        [point],
        1,
    )
    monkeypatch.setattr(LocalPool, "_start", lambda _: worker)
    worker.pipe = None
    (finding,) = pool._replace(worker)
    assert isinstance(finding, Finding) and not finding.kept and "died" in finding.row["reason"]


def test_a_killed_sweep_goes_on_where_it_was(folder, capsys):
    """Rows are on disk as they come: of a killed sweep none is computed again."""
    (folder / "q.toml").write_text(FILE.replace("[1, 2, 4]", "[1, 2, 3, 4, 5, 6]"))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "cluster", "sweep", "q.toml", "--workers", "1"]
    process = subprocess.Popen(command, env=environment, cwd=folder)
    base = folder / "cache" / sweeping.STORE

    def rows() -> int:
        if not base.exists():
            return 0
        import sqlite3

        try:
            with sqlite3.connect(base) as found:
                return found.execute("SELECT count(*) FROM rows").fetchone()[0]
        except sqlite3.OperationalError:  # it is being made
            return 0

    end = time.monotonic() + 120
    while not rows() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    process.kill()
    process.wait()
    kept = rows()
    assert kept
    found = counts(capsys, "q.toml", "--workers", "1")
    assert found["cached"] == kept and found["computed"] == 12 - kept


def test_a_question_may_be_tables_of_python(folder):
    found = cluster.sweep({"model": "tiny", "grid": {"chips": [1, 2]}}, output="here", workers=1)
    assert len(found.rows) == 2 and (folder / "here/report.html").exists()
    with pytest.raises(cluster.errors.ClusterError, match="is an empty list"):
        asked({"model": "tiny", "grid": {"chips": []}}, Path("sweep"))
