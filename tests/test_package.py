"""What is installed: the import guard, and the contents of the built wheel."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def python(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=environment, cwd=ROOT.parent, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", ["chip", "topology"])
def test_a_foreign_package_of_our_name_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    result = python("import cluster", tmp_path, ROOT)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: package '{name}' must lie in {ROOT}")
    assert str(tmp_path) in last


def test_importing_cluster_is_light():
    code = "import sys, cluster; print([m for m in ('ray', 'numba', 'numpy') if m in sys.modules])"
    assert python(code, ROOT).stdout.strip() == "[]"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel from the checkout as it is, without an isolated environment."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_the_three_packages_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry,) = [name for name in names if name.endswith("entry_points.txt")]
        assert "lpu = cluster.cli:main" in archive.read(entry).decode()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"chip", "topology", "cluster"}


def test_the_unpacked_wheel_imports_away_from_the_checkout(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    result = python("import cluster.model; print(cluster.__file__)", tmp_path)
    assert result.stdout.startswith(str(tmp_path)), result.stderr
