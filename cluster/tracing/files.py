"""Timelines as files: the end of a name says in which format."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from cluster.errors import BadValue
from cluster.files import write_whole
from cluster.tracing.chrome import chrome_json, chrome_json_gz
from cluster.tracing.events import LEVELS, Timeline


def _perfetto(timeline: Timeline) -> bytes:
    from cluster.tracing.perfetto import perfetto_trace  # its classes take a while to load

    return perfetto_trace(timeline)


FORMATS: Mapping[str, Callable[[Timeline], bytes]] = MappingProxyType(
    {".json.gz": chrome_json_gz, ".json": chrome_json, ".pftrace": _perfetto}
)


def check_format(path: Path, level: str) -> None:
    """Raise BadValue for a name or a level that is not written."""
    if not str(path).endswith(tuple(FORMATS)):
        raise BadValue("trace", path, f"must end in {', '.join(FORMATS)}")
    if level not in LEVELS:
        raise BadValue("level", level, f"must be one of {', '.join(LEVELS)}")


def write_timeline(path: Path, timeline: Timeline) -> None:
    """Write a timeline whole; raises BadValue for a name that ends in no known format."""
    check_format(path, timeline.level)
    encode = next(one for suffix, one in FORMATS.items() if str(path).endswith(suffix))
    write_whole(path, encode(timeline))
