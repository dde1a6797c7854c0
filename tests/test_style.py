"""The rules of the code base that a machine can check."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

# Words of an old vocabulary: what they named has a name in the field.
PRIVATE_WORDS = frozenset(
    ("beat", "crew", "course", "extents", "flight", "landing", "ledger", "outline", "remains",
     "settle", "shelf", "sketch", "strand", "survey", "told", "walk", "wish")
)  # fmt: skip
IN_FLIGHT = {"IN_FLIGHT", "in_flight"}  # sequences in flight: said everywhere
# Names that are data of ours, with their kind in a field: nobody looks at how they are spelled.
OUR_NAMES = {"name", "label", "buffer", "kind", "what", "mnemonic", "role"}
SPELLING = {"startswith", "endswith", "removeprefix", "removesuffix"}
# Names made of parts: files, mnemonics, folders of sessions, what a kind of layers has of its own.
SPELLED_FORMATS = {
    "chip/isa/op.py", "chip/kernels/sram_map.py", "chip/own_spec.py", "cluster/files.py",
    "cluster/machines/ray/surroundings.py", "cluster/model/fetch.py",
}  # fmt: skip

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


@cache
def nodes() -> tuple[tuple[str, ast.AST], ...]:
    """Every node of every module of ours, with the module's file."""
    return tuple(
        (path.relative_to(ROOT).as_posix(), node)
        for package in OURS
        for path in sources(package)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
    )


def test_nothing_is_known_by_where_it_lies_in_memory():
    """`id()` as a key outlives its object; what is compared by identity has `eq=False`."""
    found = [
        f"{name}:{node.lineno}" for name, node in nodes()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "id"
    ]  # fmt: skip
    assert not found


def is_ours(node: ast.expr) -> bool:
    """Whether an expression is the name of an op, a buffer or the like: `x.name`, `label`, .."""
    called = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return called in OUR_NAMES


def starts_with(node: ast.AST) -> bool:
    """Whether it is a call such as `op.name.startswith(...)`."""
    named = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    return named and node.func.attr in SPELLING and is_ours(node.func.value)


def compares_a_letter(node: ast.AST) -> bool:
    """Whether it is a comparison such as `buffer[-1] in "01"`."""
    if not isinstance(node, ast.Compare) or not isinstance(node.left, ast.Subscript):
        return False
    letter = isinstance(node.left.slice, ast.UnaryOp | ast.Constant)
    return letter and is_ours(node.left.value)


def test_no_meaning_is_read_out_of_the_spelling_of_a_name():
    """Neither `op.name.startswith("matmul")` nor `buffer[-1] in "01"`: a field says what it is."""
    found = {name for name, node in nodes() if starts_with(node) or compares_a_letter(node)}
    assert found == SPELLED_FORMATS


def defined(node: ast.AST) -> str:
    """The name that a node defines, if it does."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name
    if isinstance(node, ast.arg):
        return node.arg
    stored = isinstance(getattr(node, "ctx", None), ast.Store)
    return str(getattr(node, "id", getattr(node, "attr", ""))) if stored else ""


def test_names_are_words_of_the_field():
    named = {(defined(node), name) for name, node in nodes()}
    named |= {(path.stem, str(path)) for package in OURS for path in sources(package)}
    found = {
        where for where in named
        if PRIVATE_WORDS & set(where[0].lower().split("_")) and where[0].strip("_") not in IN_FLIGHT
    }  # fmt: skip
    assert not found


def test_there_is_no_drawer_for_odds_and_ends():
    names = {path.stem for package in OURS for path in sources(package)}
    assert not {"utils", "util", "helpers", "common", "misc"} & names


def test_modules_have_different_contents():
    """Ray names an uploaded package by a hash of its contents without its name."""
    texts = [path.read_text(encoding="utf-8") for package in OURS for path in sources(package)]
    assert len(set(texts)) == len(texts)
    assert all(text.startswith('"""') for text in texts)
