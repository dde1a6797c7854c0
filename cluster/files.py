"""Files that appear whole or not at all; what a killed process leaves is removed by the next.

And the lines of text files that somebody else has written.
"""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.errors import BadValue


def check_writable(option: str, path: Path | None, folder_wanted: bool = False) -> None:
    """Raise BadValue now rather than after the work when `path` cannot be written later."""
    if path is None:
        return
    folder = path.absolute().parent
    if path.exists() and path.is_dir() != folder_wanted:
        raise BadValue(option, path, "is a file" if folder_wanted else "is a folder")
    if not folder.is_dir():
        raise BadValue(option, path, f"the folder {folder} does not exist")
    if not os.access(folder, os.W_OK):
        raise BadValue(option, path, f"the folder {folder} cannot be written to")


def read_lines(
    path: Path, option: str = "--prompts", what: str = "prompt"
) -> list[tuple[int, str]]:
    """(number, text) of all lines that are not blank, each as it stands.

    Lines end with a line feed, or with carriage return and line feed, and with nothing else; a
    byte order mark is none of the text. Raises BadValue of an `option` if there is none.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BadValue(option, path, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadValue(option, path, "is not UTF-8 text") from None
    if "\0" in text:
        raise BadValue(option, path, "is not text: it holds NUL bytes")
    whole = [line.removesuffix("\r") for line in text.split("\n")]
    lines = [(n, line) for n, line in enumerate(whole, 1) if line.strip()]
    if not lines:
        raise BadValue(option, path, f"holds no {what}; write one a line")
    return lines


def write_whole(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a temporary file beside `path`, of one piece or many, and rename it.

    Errors name `path`.
    """
    folder = path.absolute().parent
    with naming(path):
        handle, name = tempfile.mkstemp(dir=folder, prefix=mark(folder, f".{path.name}-"))
    partial = Path(name)
    try:
        with naming(path), os.fdopen(handle, "wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
            os.fchmod(file.fileno(), 0o644)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def temporary_folder(prefix: str, parent: Path | None = None) -> Path:
    """Make a folder for this process; those that killed ones have left behind are removed."""
    parent = parent or Path(tempfile.gettempdir())
    return Path(tempfile.mkdtemp(dir=parent, prefix=mark(parent, prefix)))


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """Make a temporary folder, and remove it at the end."""
    folder = temporary_folder(prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give errors of the system that say nothing of a file, as of a full disk, the name `path`."""
    try:
        yield
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error


def mark(folder: Path, prefix: str) -> str:
    """Return `prefix` with host and process; remove what dead ones of this host have left."""
    mine = f"{prefix}{socket.gethostname()}-"
    for left in folder.glob(f"{_escaped(mine)}*"):
        owner = left.name.removeprefix(mine).partition("-")[0]
        if owner.isdecimal() and not _runs(int(owner)):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
    return f"{mine}{os.getpid()}-"


def _escaped(text: str) -> str:
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in text)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
