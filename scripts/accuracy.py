"""Bring the tables, verdicts and the plot of docs/accuracy.md up to date: some ten minutes."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from cluster.validate.document import markdown, put
from cluster.validate.table import rows

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "accuracy.md"


COMPARED = ("llama-2-7b", "llama-3-8b", "llama-2-70b")
SECTIONS = ("rows", "gpus", "sensitivity")


def printed(*command: str) -> str:
    """What a Python program of ours prints."""
    made = subprocess.run(
        [sys.executable, *command], check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    return made.stdout


def verdicts() -> str:
    """What `lpu compare` says of some models."""
    found = (json.loads(printed("-m", "cluster", "compare", one, "--json")) for one in COMPARED)
    return "\n".join(f"- **{one['model']}**: {one['verdict']['sentence']}" for one in found)


def main(wanted: set[str]) -> None:
    """Make the sections anew, those of `wanted` if any are named."""
    made = {
        "rows": lambda: markdown(list(rows())),
        "gpus": verdicts,
        "sensitivity": lambda: printed("scripts/sensitivity.py").strip(),
    }
    for section in SECTIONS:
        if not wanted or section in wanted:
            put(PAGE, section, made[section]())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    known = ", ".join(SECTIONS)
    parser.add_argument("sections", nargs="*", help=f"of {known}; all if none")
    named = set(parser.parse_args().sections)
    if unknown := sorted(named - {*SECTIONS}):
        parser.error(f"unknown section {unknown[0]}; there are {known}")
    main(named)
