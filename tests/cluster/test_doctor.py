"""`lpu doctor`, completion, and how much a command says."""

import json

import pytest

from cluster import host_checks
from cluster.cli import main
from cluster.host_checks import checks


def test_the_doctor_says_what_there_is_and_fails_where_something_lacks(capsys, monkeypatch):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["checks"]
    names = {check["name"] for check in found}
    assert {"Python", "cores", "memory", "kernels", "cache", "model smollm2", "Ray"} <= names
    assert all(check["ok"] and not check["advice"] for check in found)
    monkeypatch.setattr(host_checks, "MEMORY_BYTES", 1 << 60)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert out.count("NO") == 1 and "smollm2 takes about 1 GiB" in out


def test_a_cache_that_cannot_be_written_and_a_cluster_that_is_gone_are_named(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LPU_CACHE", str(tmp_path / "file" / "below"))
    gone = {"RAY_ADDRESS": "127.0.0.1:1"}
    bad = {check.name: check for check in checks(gone) if not check.ok}
    assert bad.keys() == {"cache", "Ray"}
    assert "LPU_CACHE" in bad["cache"].advice and "127.0.0.1:1" in bad["Ray"].advice


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_and_completes(shell, capsys, monkeypatch):
    assert main(["completion", shell]) == 0
    assert "_LPU_COMPLETE" in capsys.readouterr().out
    monkeypatch.setenv("_LPU_COMPLETE", f"{shell}_complete")
    monkeypatch.setenv("COMP_WORDS", "lpu sw")
    monkeypatch.setenv("COMP_CWORD", "sw" if shell == "fish" else "1")
    with pytest.raises(SystemExit):
        main([])
    assert "sweep" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [
    ["--verbose", "plan", "tiny"], ["plan", "tiny", "--verbose"], ["--quiet", "plan", "tiny"],
    ["plan", "tiny"],
])  # fmt: skip
def test_progress_is_lines_with_verbose_and_nothing_with_quiet(arguments, capsys):
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert said.out.count("tokens/s per user") == 1
    assert ("timing what is not known" in said.err) == ("--verbose" in arguments)
