"""`lpu fetch MODEL`: a model into the cache."""

import json
from pathlib import Path

import click

from cluster.commands.parameters import FILE, NAME
from cluster.errors import BadValue, UnknownName
from cluster.files import check_writable, write_whole
from cluster.model.fetch import fetch_minilm, fetch_smollm2
from cluster.model.known import known_models
from cluster.runs.display import Bars

FETCHABLE = {
    "smollm2": fetch_smollm2,
    "smollm2-135m": fetch_smollm2,
    "smollm2-moe8": fetch_smollm2,  # of which it is made as it is loaded
    "minilm": fetch_minilm,
    "minilm-l6": fetch_minilm,
}


@click.command("fetch")
@click.argument("model", type=NAME)
@click.option("--tokenizer", type=FILE, metavar="DIR",
              help="Write its tokenizer for clients that work offline.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def fetch_command(model: str, tokenizer: Path | None, as_json: bool) -> None:
    """Download MODEL (smollm2, smollm2-moe8, minilm) into the cache, and verify it."""
    if model.lower() not in FETCHABLE:
        raise UnknownName("model to fetch", model, tuple(FETCHABLE))
    fetch = FETCHABLE[model.lower()]
    if tokenizer is not None:
        if fetch is not fetch_smollm2:
            raise BadValue("--tokenizer", tokenizer, f"is for smollm2, not for {model}")
        check_writable("--tokenizer", tokenizer, folder_wanted=True)
    with Bars() as bars:
        found = fetch(progress=lambda done, total: bars.step("fetch", done, total))
    if tokenizer is not None:
        _write_tokenizer(found.path, tokenizer)
    if as_json:
        report = {"path": str(found.path), "sha256": found.sha256}
        click.echo(json.dumps(report | ({"tokenizer": str(tokenizer)} if tokenizer else {})))
    else:
        how = "downloaded" if found.downloaded else "in the cache"
        click.echo(f"{found.path}\nSHA-256 {found.sha256}, {how}")
        if tokenizer is not None:
            click.echo(f"{tokenizer}: tokenizer.json, tokenizer_config.json, config.json")


def _write_tokenizer(path: Path, folder: Path) -> None:
    """Write what `AutoTokenizer.from_pretrained(folder)` needs, without any hub."""
    from cluster.model.gguf_file import GgufFile
    from cluster.model.gguf_tokenizer import read_gguf_tokenizer

    config = known_models()["smollm2-135m"].config | {"architectures": ["LlamaForCausalLM"]}
    files = read_gguf_tokenizer(GgufFile(path)).files()
    folder.mkdir(exist_ok=True)
    for name, text in {**files, "config.json": json.dumps(config, indent=1)}.items():
        write_whole(folder / name, text.encode() + b"\n")
