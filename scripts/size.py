"""Print lines per file and the longest functions; fail when a file has more than 400 lines.

python scripts/size.py            the table, and the sums beside those before the graph was built
python scripts/size.py --quiet    only what is too long
"""

import argparse
import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("chip", "topology", "cluster", "scripts", "tests")
PRODUCT = ("chip", "topology", "cluster")
# The chip itself, with the files beside these folders; not kernels, schedules and assembly.
CORE = ("chip/isa/", "chip/linker/", "chip/numerics/", "chip/jit/", "chip/tape/")
BEFORE = "640fb06", 37_030, 11_503  # the commit, and its lines, counted in the same way
MAX_LINES = 400
LONGEST_SHOWN = 15

Functions = list[tuple[int, str]]


def function_lengths(path: Path, source: str) -> Functions:
    """Return (lines without docstring, "file:line name") of every function in `source`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            has_doc = len(body) > 1 and ast.get_docstring(node) is not None
            start = body[1].lineno if has_doc else node.lineno
            where = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
            found.append(((node.end_lineno or start) - start + 1, where))
    return found


def measure() -> tuple[list[tuple[int, str]], Functions]:
    """Return (lines, file) and function lengths of all our Python files, longest first."""
    files, functions = [], []
    for path in sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        files.append((source.count("\n"), str(path.relative_to(ROOT))))
        functions += function_lengths(path, source)
    return sorted(files, reverse=True), sorted(functions, reverse=True)


def sums(files: list[tuple[int, str]]) -> str:
    """Lines of the three packages and of the chip core, now and before."""
    whole = sum(lines for lines, name in files if name.split("/")[0] in PRODUCT)
    core = sum(
        lines for lines, name in files
        if name.startswith(CORE) or (name.count("/") == 1 and name.startswith("chip/"))
    )  # fmt: skip
    commit, whole_before, core_before = BEFORE
    rows = [
        ("chip + topology + cluster", whole, whole_before),
        ("  of them the chip core", core, core_before),
        ("  of them all else", whole - core, whole_before - core_before),
    ]
    head = f"{'lines':27s} {'now':>7s} {commit:>8s}\n"
    return head + "".join(f"{name:27s} {now:7,d} {then:8,d}\n" for name, now, then in rows)


def main(quiet: bool) -> int:
    """Print the tables and return the exit code."""
    files, functions = measure()
    if not quiet:
        for lines, name in files:
            print(f"{lines:6d}  {name}")
        product = sum(lines for lines, name in files if not name.startswith("tests"))
        print(f"{sum(lines for lines, _ in files):6d}  in all, {product} of them not tests\n")
        print(sums(files))
        print(f"longest functions of {len(functions)} (lines without docstring)")
        for lines, name in functions[:LONGEST_SHOWN]:
            print(f"{lines:6d}  {name}")
    too_long = [(lines, name) for lines, name in files if lines > MAX_LINES]
    for lines, name in too_long:
        print(f"{name} has {lines} lines, at most {MAX_LINES} are allowed", file=sys.stderr)
    return 1 if too_long else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quiet", action="store_true", help="only what is too long")
    sys.exit(main(parser.parse_args().quiet))
