"""Bring the tables and the plot of docs/accuracy.md up to date: some five minutes."""

import argparse
import subprocess
import sys
from pathlib import Path

from cluster.validate.document import markdown, put
from cluster.validate.table import rows

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "accuracy.md"


def main(wanted: set[str]) -> None:
    """Make the sections `rows` and `sensitivity` anew, those of `wanted` if any are named."""
    if not wanted or "rows" in wanted:
        put(PAGE, "rows", markdown(list(rows())))
    if not wanted or "sensitivity" in wanted:
        command = [sys.executable, ROOT / "scripts" / "sensitivity.py"]
        made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        put(PAGE, "sensitivity", made.stdout.strip())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    sections = parser.add_argument("sections", nargs="*", help="rows or sensitivity; all if none")
    named = set(parser.parse_args().sections)
    if unknown := sorted(named - {"rows", "sensitivity"}):
        parser.error(f"unknown section {unknown[0]}; use {sections.help}")
    main(named)
