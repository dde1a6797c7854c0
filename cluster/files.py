"""Files that appear whole or not at all."""

import os
import tempfile
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


def write_whole(path: Path, data: bytes) -> None:
    """Write a temporary file beside `path` and rename it."""
    handle, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}-")
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), 0o644)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
