"""The rules of the code base that a machine can check."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = {"chip", "topology", "cluster"}
ALLOWED = {
    "chip": {"chip", "numpy", "msgpack"},
    "topology": {"topology", "numpy", "networkx", "scipy"},
}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Yield the top-level name of every absolute import, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("package", ALLOWED)
def test_lower_packages_import_only_what_they_may(package):
    for path in sources(package):
        allowed = ALLOWED[package] | sys.stdlib_module_names
        if path.is_relative_to(ROOT / "chip" / "jit"):
            allowed = allowed | {"numba", "llvmlite"}  # the compiled fast path
        if path.is_relative_to(ROOT / "chip" / "assembly"):
            allowed = allowed | {"lark"}  # loaded only where there is text to read
        if path.name == "drawing.py":
            allowed = allowed | {"matplotlib"}  # loaded only when a picture is asked for
        assert not set(imports(path)) - allowed, path.relative_to(ROOT)


def test_ray_is_imported_in_one_folder_only():
    users = {p for package in OURS for p in sources(package) if "ray" in imports(p)}
    assert {path.parent for path in users} <= {ROOT / "cluster" / "machines" / "ray"}


def test_nothing_of_ours_imports_scripts_or_tests():
    for package in OURS:
        for path in sources(package):
            assert not {"scripts", "tests"} & set(imports(path)), path.relative_to(ROOT)


def test_there_is_no_drawer_for_odds_and_ends():
    names = {path.stem for package in OURS for path in sources(package)}
    assert not {"utils", "util", "helpers", "common", "misc"} & names


def test_modules_have_different_contents():
    """Ray names an uploaded package by a hash of its contents without its name."""
    texts = [path.read_text(encoding="utf-8") for package in OURS for path in sources(package)]
    assert len(set(texts)) == len(texts)
    assert all(text.startswith('"""') for text in texts)
