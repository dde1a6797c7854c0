"""Reports as files: a page to look at, or the JSON object, by the end of the name."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cluster.files import write_whole
from cluster.report.page import Page, html


def write_report(path: Path, found: Mapping[str, Any], page: Callable[[], Page]) -> None:
    """Write the page that `page` makes, or `found` as JSON where the name ends in .json."""
    if path.suffix == ".json":
        write_whole(path, json.dumps(found, indent=1).encode() + b"\n")
    else:
        write_whole(path, html(page()).encode())
