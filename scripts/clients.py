"""Two load generators and an evaluation of others against `lpu serve smollm2`, without any hub.

Each gets a virtual environment in FOLDER, unless there is one of that name; the first run needs a
package index, and guidellm brings a PyTorch of some GB. What they print goes to FOLDER/NAME.txt,
and its last lines here.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MODEL, SHOWN = "smollm2", 40
TOKENIZER = "local/smollm2"
BLOCK_TOKENS = 32  # of a hash of the trace
MOONCAKE = [(0, 40, 6, [1, 2]), (400, 60, 4, [1, 3]), (900, 24, 8, [4])]  # ms, in, out, blocks
QUESTIONS = [
    ("The capital of France is", [" Paris", " seventeen"], 0),
    ("Two and two make", [" blue", " four"], 1),
    ("Water freezes into", [" ice", " because"], 0),
    ("The opposite of hot is", [" of", " cold"], 1),
]
TASK = """
task: lpu_words
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: ""
metric_list:
  - metric: acc
"""


@dataclass(frozen=True)
class Client:
    """What is installed, and the command, given a URL and the folder that it runs in."""

    requirement: str
    command: Callable[[str, Path], list[str]]


def mooncake(folder: Path) -> Path:
    """A trace as Mooncake's are."""
    names = "timestamp", "input_length", "output_length", "hash_ids"
    lines = [json.dumps(dict(zip(names, row, strict=True))) for row in MOONCAKE]
    trace = folder / "mooncake.jsonl"
    trace.write_text("\n".join(lines) + "\n")
    return trace


def aiperf(url: str, folder: Path) -> list[str]:
    """A Mooncake trace, at its times."""
    return [
        "aiperf", "profile", "--model", MODEL, "--url", url, "--endpoint-type", "chat",
        "--streaming", "--input-file", str(mooncake(folder)),
        "--custom-dataset-type", "mooncake_trace", "--fixed-schedule",
        "--prompt-input-tokens-block-size", str(BLOCK_TOKENS), "--tokenizer", TOKENIZER,
        "--ui", "none", "--output-artifact-dir", str(folder / "aiperf-files"),
    ]  # fmt: skip


def guidellm(url: str, folder: Path) -> list[str]:
    """The same trace, whose times it takes for seconds."""
    backend = f"kind=openai_http,target={url},model={MODEL},request_format=/v1/chat/completions"
    source = {"kind": "json_file", "path": str(mooncake(folder))}
    data = {"kind": "mooncake", "source": source, "hash_id_block_size": BLOCK_TOKENS}
    return [
        "guidellm", "run", "--backend", backend, "--profile", "kind=replay,time_scale=0.001",
        "--data", json.dumps(data),
        "--tokenizer", f"kind=huggingface_auto,model={TOKENIZER}", "--output", "kind=console",
        "--disable-progress",
    ]  # fmt: skip


def lm_eval(url: str, folder: Path) -> list[str]:
    """A task of our own, which wants logprobs of prompts."""
    names = "question", "choices", "answer"
    data = folder / "questions.json"
    data.write_text(json.dumps([dict(zip(names, row, strict=True)) for row in QUESTIONS]))
    tasks = folder / "tasks"
    tasks.mkdir(exist_ok=True)
    (tasks / "lpu_words.yaml").write_text(TASK.format(data=data))
    settings = f"base_url={url}/v1/completions,model={MODEL},tokenizer={TOKENIZER},num_concurrent=2"
    return [
        "lm_eval", "--model", "local-completions", "--model_args", settings,
        "--include_path", str(tasks), "--tasks", "lpu_words",
    ]  # fmt: skip


CLIENTS = {
    "aiperf": Client("aiperf", aiperf),
    "guidellm": Client("guidellm[recommended]", guidellm),
    "lm-eval": Client("lm-eval[api]", lm_eval),
}


def run(arguments: list[str] | None = None) -> int:
    """Return 0 if all clients are content."""
    parser = argparse.ArgumentParser(prog="clients.py", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CLIENTS)} (all)")
    parser.add_argument("--folder", type=Path, default=Path("clients"), help="for all of it")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in CLIENTS]
    if unknown:
        parser.error(f"{unknown[0]} is none of {', '.join(CLIENTS)}")
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    chosen = {name: CLIENTS[name] for name in options.names or CLIENTS}
    places = {name: installed(folder / name, one.requirement) for name, one in chosen.items()}
    lpu = [sys.executable, "-m", "cluster"]
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    offline["HF_HUB_CACHE"] = str(cached(folder / "hub", [*lpu, "fetch", MODEL, "--tokenizer"]))
    code = 0
    with server([*lpu, "serve", MODEL, "--port", "0", "--embeddings", "none"]) as url:
        for name, one in chosen.items():
            command = one.command(url, folder)
            command[0] = str(places[name] / "bin" / command[0])
            code |= shown(command, folder / f"{name}.txt", offline)
    return code


def cached(hub: Path, fetch: list[str]) -> Path:
    """A cache of the hub that holds our tokenizer: offline, aiperf looks nowhere else."""
    repository, revision = hub / f"models--{TOKENIZER.replace('/', '--')}", "0" * 40
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(revision)
    (repository / "snapshots").mkdir(exist_ok=True)
    subprocess.run([*fetch, str(repository / "snapshots" / revision)], check=True)
    return hub


def installed(place: Path, requirement: str) -> Path:
    """A virtual environment with a requirement, made unless it is there."""
    if not place.exists():
        print(f"installing {requirement} into {place}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        subprocess.run([place / "bin" / "pip", "install", "--quiet", requirement], check=True)
    return place


@contextmanager
def server(command: list[str]) -> Iterator[str]:
    """The URL of a server, which is told to end afterwards."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"(http://\S+)/v1", process.stdout.readline())
        if not found:
            raise SystemExit("lpu serve did not start")
        try:
            yield found[1]
        finally:
            process.terminate()


def shown(command: list[str], file: Path, environment: Mapping[str, str]) -> int:
    """Run a client, keep what it prints, and show the end of that; its exit code."""
    done = subprocess.run(
        command, env=environment, cwd=file.parent, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    file.write_text(done.stdout)
    print(f"== {file.stem}: exit code {done.returncode}; all of it in {file}")
    print("\n".join(done.stdout.splitlines()[-SHOWN:]), flush=True)
    return done.returncode


if __name__ == "__main__":
    sys.exit(run())
