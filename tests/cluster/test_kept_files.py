"""Files that people keep: prompts in, answers out, and nothing left by a killed process."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.cli import main
from cluster.files import read_lines, temporary_folder, write_whole

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        ("\ufeffone\ntwo", [(1, "one"), (2, "two")]),
        ("a\u2028b\u2029c\x85d\x0ce\x0bf\x1cg", [(1, "a\u2028b\u2029c\x85d\x0ce\x0bf\x1cg")]),
        ("one\r\ntwo\r\n", [(1, "one"), (2, "two")]),
        ("one\rstill one\n", [(1, "one\rstill one")]),
        ("\n \n  spaced \t\n", [(3, "  spaced \t")]),
    ],
)
def test_prompts_are_split_at_ends_of_lines_and_nowhere_else(data, lines, tmp_path):
    path = tmp_path / "prompts"
    path.write_bytes(data.encode())
    assert read_lines(path) == lines


def test_raw_prompts_are_taken_as_they_stand(tmp_path, capsys):
    path = tmp_path / "prompts"
    path.write_bytes(b" a \n")
    asked = {}
    for raw in ([], ["--raw"]):
        command = ["run", "tiny", "--prompts", str(path), "--max-new-tokens", "1", "--json", *raw]
        assert main(command) == 0
        (one,) = json.loads(capsys.readouterr().out)["sequences"]
        asked[bool(raw)] = bytes(one["prompt_ids"])
    assert asked == {True: b" a ", False: b"a"}


def test_answers_are_written_as_each_is_whole_with_the_reason_of_its_end(tmp_path, capsys):
    (tmp_path / "prompts").write_text("Hello\n\nHow are you\nHi\n")
    output = tmp_path / "answers.jsonl"
    command = ["run", "tiny", "--prompts", str(tmp_path / "prompts"), "--max-new-tokens", "3"]
    assert main([*command, "--output", str(output)]) == 0
    shown = capsys.readouterr().out
    answers = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [one["line"] for one in answers] == [1, 3, 4]
    assert [one["prompt"] for one in answers] == ["Hello", "How are you", "Hi"]
    for answer, sequence in zip(answers, report["sequences"], strict=True):
        assert sequence.items() <= answer.items()
        assert answer["finish_reason"] == "length"
        assert f"[{answer['line']}] {answer['text']}\n" in shown
    assert main(["run", "tiny", "--prompt", "a", "--output", str(output)]) == 2
    assert "--output" in capsys.readouterr().err


def test_a_generation_that_met_a_stop_token_says_so(capsys):
    folder = ROOT / "tests" / "data" / "two-stop-tokens"
    golden = json.loads((folder / "golden.json").read_text())
    prompt = ",".join(map(str, golden["prompt_ids"]))
    for count, reason in ((8, "stop"), (3, "length")):
        more = ["--max-new-tokens", str(count), "--json"]
        assert main(["run", str(folder), "--prompt-ids", prompt, *more]) == 0
        assert json.loads(capsys.readouterr().out)["finish_reason"] == reason


def test_resume_says_where_it_goes_on(tmp_path, capsys):
    kept = ["--checkpoint", str(tmp_path / "kept"), "--json"]
    command = ["run", "tiny", "--prompt", "a", "--max-new-tokens", "3", *kept]
    assert main(command) == 0
    capsys.readouterr()
    assert main([*command, "--resume"]) == 0
    assert "holds no launch yet; this run starts with the first" in capsys.readouterr().err
    assert main([*command, "--resume", "--checkpoint-every", "1"]) == 0
    capsys.readouterr()
    assert main([*command, "--resume"]) == 0
    assert "this run goes on after launch 3" in capsys.readouterr().err


WRITES = """
import os, sys
from pathlib import Path
from cluster.files import mark, temporary_folder
folder = Path(sys.argv[1])
(temporary_folder(".report-", folder) / "large").write_bytes(bytes(1000))
(folder / f"{mark(folder, '.report.json-')}x").write_bytes(bytes(1000))
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_leaves_is_removed_by_the_next(tmp_path):
    done = subprocess.run([sys.executable, "-c", WRITES, str(tmp_path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL and len(list(tmp_path.iterdir())) == 2
    mine = temporary_folder(".report-", tmp_path)
    again = temporary_folder(".report-", tmp_path)  # that of a living process stays
    write_whole(tmp_path / "report.json", b"{}")
    assert sorted(tmp_path.iterdir()) == sorted([mine, again, tmp_path / "report.json"])


def test_a_full_disk_names_the_file(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fchmod", full)
    report = tmp_path / "report.json"
    command = ["run", "tiny", "--prompt", "a", "--max-new-tokens", "1", "--report", str(report)]
    assert main(command) == 2
    assert capsys.readouterr().err == f"lpu: {report}: No space left on device\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_under_stdout_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cluster", "spec"],
            stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "lpu: No space left on device\n")


def test_a_full_disk_under_the_cache_changes_no_plan(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("LPU_CACHE", str(tmp_path))
    monkeypatch.setattr(os, "fchmod", full)
    assert main(["plan", "tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["chips"]
