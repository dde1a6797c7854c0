"""The package stands alone: it imports no other part of the product, and no plotting by itself."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import topology

FOLDER = Path(topology.__file__).parent
ALLOWED = {"topology", "numpy", "networkx", "scipy", "matplotlib"}


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda p: p.name)
def test_imports_are_the_standard_library_and_three_packages(path):
    for statement in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in statement.names] if isinstance(statement, ast.Import) else []
        names += [statement.module] if isinstance(statement, ast.ImportFrom) else []
        for name in names:
            top = name.split(".")[0]
            assert top in ALLOWED or top in sys.stdlib_module_names
            assert top != "matplotlib" or path.name == "drawing.py"


def test_importing_it_loads_no_plotting():
    code = "import topology, sys; print('matplotlib' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=FOLDER.parent
    )
    assert done.stdout.strip() == "False"


def test_public_names_exist():
    assert all(hasattr(topology, name) for name in topology.__all__)
