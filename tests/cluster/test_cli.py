"""The command line: what it prints, and the one line it gives for every bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cluster.runs.running
from chip.errors import ProgramError
from chip.wire import pack_value, unpack_values
from cluster.cli import COMMANDS, main
from cluster.model.reference import Reference
from tests.cluster.tiny import tiny_weights

ROOT = Path(__file__).resolve().parent.parent.parent
RUN = ["run", "tiny", "--prompt", "hello", "--max-new-tokens", "4", "--tp", "2", "--pp", "2"]
KEYS = {
    "plan": {"chips", "pp", "tp", "topology", "sram_bytes_max"},
    "emulated": {
        "clock_hz", "prefill_cycles", "decode_cycles", "time_to_first_token_s", "tokens_per_s",
        "host_transfer_s", "joules_per_token",
    },
    "host": {"machine", "actors", "load_s", "wall_s", "tokens_per_s", "peak_rss_bytes"},
}  # fmt: skip


def lpu(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "cluster", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, **options)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """One run with everything switched on: its output, and the folder with its files."""
    folder = tmp_path_factory.mktemp("run")
    files = {"--report": "r.json", "--trace": "t.json", "--record": "rec"}
    extra = [part for option, name in files.items() for part in (option, str(folder / name))]
    return lpu(*RUN, "--json", *extra), folder


def test_json_is_one_object_with_the_keys_of_the_contract(ran):
    result, folder = ran
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    for part, keys in KEYS.items():
        assert keys <= report[part].keys()
    assert {"text", "prompt_ids", "output_ids", "digest"} <= report.keys()
    assert report == json.loads((folder / "r.json").read_text())
    assert report["plan"]["chips"] == 4 and report["plan"]["topology"] == "node"
    energy = report["emulated"]["energy"]
    assert report["emulated"]["joules_per_token"] > energy["dynamic_j"] > 0
    assert energy["full_pipeline"]["joules_per_token"] < report["emulated"]["joules_per_token"]
    assert len(report["emulated"]["decode_cycles"]) == 3
    parts = report["host"]["load_parts_s"]
    assert set(parts) == {"import", "model", "lower", "link", "weights", "kernels"}
    assert sum(parts.values()) == pytest.approx(report["host"]["load_s"])


def test_the_tokens_are_those_of_the_reference(ran):
    report = json.loads(ran[0].stdout)
    assert report["prompt_ids"] == [*b"hello"]
    expected = Reference(tiny_weights(), context=320).generate([*b"hello"], 4)
    assert report["output_ids"] == expected
    assert report["text"] == "".join(map(chr, expected))


def test_chips_alone_repeat_every_logit_and_the_digest(ran, tmp_path):
    """Only copies of `chip` and `topology` can be imported."""
    result, folder = ran
    for name in ("chip", "topology"):
        shutil.copytree(ROOT / name, tmp_path / name)
    script = shutil.copy(ROOT / "scripts" / "replay.py", tmp_path)
    command = [sys.executable, "-P", script, str(folder / "rec")]
    alone = {"PYTHONPATH": str(tmp_path), "PATH": os.environ["PATH"]}

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command[0], *arguments], env=alone, cwd=tmp_path, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    shadow = tmp_path / "cluster"  # an installed `cluster` must not help either
    shadow.mkdir()
    (shadow / "__init__.py").write_text("raise ImportError('cluster is not to be imported')")
    assert "not to be imported" in python("-c", "import cluster").stderr
    replayed = python(*command[1:])
    assert (replayed.returncode, replayed.stderr) == (0, "")
    found = json.loads(replayed.stdout)
    assert found["digest"] == json.loads(result.stdout)["digest"]
    assert found["different"] == [] and found["launches"] == 6


def test_a_changed_recording_is_seen(ran, tmp_path):
    folder = shutil.copytree(ran[1] / "rec", tmp_path / "rec")
    with (folder / "constants.msgpack").open("rb") as file:
        (chip, region, values), *rest = unpack_values(file)
    changed = [[chip, region, values * np.float16(2)], *rest]
    (folder / "constants.msgpack").write_bytes(b"".join(map(pack_value, changed)))
    command = [sys.executable, str(ROOT / "scripts" / "replay.py"), str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and json.loads(result.stdout)["different"]
    (folder / "board.msgpack").write_bytes(b"\xc1")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2 and result.stderr.count("\n") == 1


def test_without_json_the_text_comes_first_and_then_the_summary(capsys):
    assert main([*RUN[:-4], "--chips", "1", "--seed", "5", "--temperature", "0.7"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for label in ("plan", "prefill", "decode", "emulated", "this host", "digest"):
        assert f"{label}  " in out


def test_a_prompt_may_be_longer_than_a_context_bucket(capsys):
    ids = [(7 * n) % 128 for n in range(325)]
    text = ",".join(map(str, ids))
    arguments = ["--prompt-ids", text, "--context", "400", "--max-new-tokens", "3", "--json"]
    assert main(["run", "tiny", *arguments]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["output_ids"] == Reference(tiny_weights(), context=640).generate(ids, 3)
    assert report["plan"]["context"] == 640


def test_help_lists_all_commands_and_imports_none():
    code = (
        "import sys; from cluster.cli import main; main(['--help']);"
        "print([m for m in ('numpy', 'ray', 'rich', 'networkx') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert result.stdout.splitlines()[-1] == "[]"
    assert all(f"  {name} " in result.stdout for name in COMMANDS)
    assert lpu().stdout.startswith("Usage: lpu")
    assert lpu("--version").stdout == "lpu 0.1.0\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    assert main([command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: lpu {command}")


BAD = {
    "model": (["nosuch", "--prompt", "x"], "unknown model 'nosuch'"),
    "shape only": (["llama-2-70b", "--prompt", "x"], "shape only"),
    "no file": (["absent.gguf", "--prompt", "x"], "No such file"),
    "option": (["tiny", "--nonsense"], "No such option"),
    "no model": ([], "Missing argument"),
    "no prompt": (["tiny"], "give it, --prompt-ids or --prompts"),
    "two prompts": (["tiny", "--prompt", "x", "--prompt-ids", "1"], "one of the three"),
    "empty prompt": (["tiny", "--prompt", ""], "prompt is empty"),
    "ids": (["tiny", "--prompt-ids", "1,x"], "must be numbers such as 1,2,3"),
    "id": (["tiny", "--prompt-ids", "1,128"], "must be 0 to 127"),
    "topology": (["tiny", "--prompt", "x", "--topology", "blob:3"], "unknown topology 'blob'"),
    "small topology": (
        ["tiny", "--prompt", "x", "--tp", "4", "--topology", "ring:3"],
        "--topology ring:3: has 3 chips, 1 stage x tp 4 needs 4",
    ),
    "tp": (["tiny", "--prompt", "x", "--tp", "5"], "must be 1 to 4, the heads of tiny"),
    "pp": (["tiny", "--prompt", "x", "--pp", "4"], "must be 1 to 3, the layers of tiny and its"),
    "chips": (["tiny", "--prompt", "x", "--chips", "5"], "try 4"),
    "chips, tp": (["tiny", "--prompt", "x", "--chips", "3", "--tp", "2"], "multiple of --tp 2"),
    "chips, tp, pp": (
        ["tiny", "--prompt", "x", "--chips", "3", "--tp", "2", "--pp", "2"],
        "--chips 3: --tp 2 x --pp 2 is 4 chips",
    ),
    "no chips": (["tiny", "--prompt", "x", "--chips", "0"], "'--chips'"),
    "context": (["tiny", "--prompt", "x", "--context", "513"], "must be 1 to 512 tokens"),
    "long prompt": (
        ["tiny", "--prompt", "x" * 321],
        "prompt of 321 tokens plus 1 new tokens does not fit the context of 320",
    ),
    "many tokens": (
        ["tiny", "--prompt", "xx", "--max-new-tokens", "320"],
        "prompt of 2 tokens plus 320 new tokens does not fit the context of 320",
    ),
    "spec": (["tiny", "--prompt", "x", "--spec", "groq"], "did you mean 'groqchip1'"),
    "weights": (["tiny", "--prompt", "x", "--weights", "int4"], "'fp16', 'int8'"),
    "sums": (
        ["tiny", "--prompt", "x", "--tp", "2", "--sums-between-nodes", "fp16"],
        "needs tensor groups of whole nodes, as --tp 16 or 32: in groups of 2 no node sends",
    ),
    "machine": (["tiny", "--prompt", "x", "--machine", "moon"], "'local', 'ray'"),
    "packing": (["tiny", "--prompt", "x", "--chips-per-actor", "2"], "needs --machine ray"),
    "address": (["tiny", "--prompt", "x", "--address", "auto"], "needs --machine ray"),
    "temperature": (["tiny", "--prompt", "x", "--temperature", "nan"], "--temperature nan"),
    "top-p": (["tiny", "--prompt", "x", "--top-p", "0"], "--top-p 0.0"),
    "seed": (["tiny", "--prompt", "x", "--seed", "-1"], "'--seed': -1"),
    "link": (["tiny", "--prompt", "x", "--link", "latency_cycles"], "write it as field=value"),
    "link field": (["tiny", "--prompt", "x", "--link", "colour=3"], "unknown field"),
    "profile": (["tiny", "--prompt", "x", "--profile", "x"], "known profiles"),
    "report": (["tiny", "--prompt", "x", "--report", "/nowhere/r.json"], "does not exist"),
    "trace": (["tiny", "--prompt", "x", "--trace", "/"], "must end in .json"),
    "record": (["tiny", "--prompt", "x", "--record", str(ROOT)], "is not empty"),
}  # fmt: skip


def complaint(capsys, *arguments: str) -> str:
    """The one line on stderr of a command that exits with 2 and prints nothing."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("lpu: ")
    return err


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line(case, capsys):
    arguments, message = BAD[case]
    assert message in complaint(capsys, "run", *arguments, "--json")


def test_unknown_commands_and_models_to_fetch(capsys):
    assert "No such command 'walk'" in complaint(capsys, "walk")
    assert "unknown model to fetch 'gpt'" in complaint(capsys, "fetch", "gpt")
    assert "topology" in complaint(capsys, "topology", "blob:3")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1:strict", "utf-8:strict"])
def test_no_locale_and_no_file_name_breaks_what_is_printed(encoding, tmp_path):
    awkward = os.fsdecode(bytes(tmp_path) + "/\N{SNOWMAN}".encode() + b"\xff.json")
    graph = {"nodes": [{"id": 0}, {"id": 1}], "edges": [{"source": 0, "target": 1}]}
    Path(awkward).write_text(json.dumps(graph), encoding="utf-8")
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    shown = lpu("topology", f"file:{awkward}", env=environment)
    assert (shown.returncode, shown.stderr) == (0, ""), shown.stderr
    missing = lpu("topology", f"file:{awkward}x", env=environment)
    assert missing.returncode == 2 and "Traceback" not in missing.stderr


def test_a_damaged_model_file_is_refused(capsys, tiny_gguf, tmp_path):
    whole = tiny_gguf.read_bytes()
    for size in (0, 3, len(whole) // 3, len(whole) - 5):
        (tmp_path / "cut.gguf").write_bytes(whole[:size])
        assert "cut.gguf" in complaint(capsys, "run", str(tmp_path / "cut.gguf"), "--prompt", "x")


def test_a_plan_that_does_not_fit_says_which_stage_how_much_and_what_would(capsys, smollm2_path):
    line = complaint(capsys, "run", str(smollm2_path), "--prompt", "x", "--chips", "1")
    assert "stage 0 needs " in line and "a chip has 220.0 MiB; what fits: --tp 1 --pp 2" in line


def test_no_network_leaves_no_trace_of_a_model(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("LPU_CACHE", str(tmp_path / "cache"))
    for name, value in {"INDEX_URL": "http://127.0.0.1:9/", "RETRIES": "0", "TIMEOUT": "1"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    assert "cannot fetch smollm2" in complaint(capsys, "run", "smollm2", "--prompt", "x")
    assert "cannot fetch smollm2" in complaint(capsys, "fetch", "smollm2", "--json")
    assert not list((tmp_path / "cache").iterdir())


@pytest.fixture
def failing(monkeypatch):
    """Return a function: from now on a run raises this error."""

    def install(error: BaseException) -> None:
        def lower(*_, **__):
            raise error

        monkeypatch.setattr(cluster.runs.running, "lower", lower)

    return install


def test_what_goes_wrong_inside_is_one_line_too(failing, capsys, monkeypatch):
    failing(ProgramError("no such queue", "queue vxm:99"))
    assert "queue vxm:99: no such queue" in complaint(capsys, *RUN)
    failing(ZeroDivisionError("a\nb"))
    assert main(RUN) == 1
    assert capsys.readouterr().err == (
        "lpu: internal error: ZeroDivisionError: a b (LPU_DEBUG=1 shows where)\n"
    )
    monkeypatch.setenv("LPU_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(RUN)


LOSES_IT = """
import sys, time
from cluster import cli
def run(*_, **__):
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        pass
    time.sleep(60)
cli.lpu.main = run
sys.exit(cli.main())
"""


def test_ctrl_c_that_a_callback_swallows_comes_again():
    process = subprocess.Popen(
        [sys.executable, "-c", LOSES_IT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=50)
    assert process.returncode == 130 and err == b"lpu: interrupted\n"


def test_ctrl_c_ends_a_run_quietly():
    command = [sys.executable, "-m", "cluster", *RUN[:4], "--max-new-tokens", "300"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    assert process.stdout.read(1)  # the first of 300 tokens
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130 and b"Traceback" not in err


def test_a_closed_pipe_ends_a_command_quietly():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "cluster", "--help"]
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, cwd=ROOT, check=False)
    os.close(write)
    assert result.returncode == 1 and result.stderr == b""
