"""Lines of keys in a TOML file: what reads TOML says where it is broken, not where a key is."""

import re

Where = tuple[str | int, ...]  # keys, and numbers in arrays of tables
_HEADER = re.compile(r"\s*(\[\[?)([^\[\]]+)\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"\s*([\w\"'.\- ]+?)\s*=")


def spelled(where: Where) -> str:
    """A key as people write it.

    >>> spelled(("grid", "link", "latency_cycles")), spelled(("points", 1, "tp"))
    ('grid.link.latency_cycles', 'points[1].tp')
    """
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text


def line_of(text: str, where: Where) -> int:
    """The line, from 1 on, of the nearest key that leads to `where`; 0 where there is none.

    >>> line_of('model = "tiny"' + chr(10) + "[grid]" + chr(10) + "chips = [1]", ("grid", "chips"))
    3
    """
    best, line, table = 0, 0, Where()
    counts: dict[Where, int] = {}
    for number, row in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(row):
            table = _parts(header[2])
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
            here = table
        elif key := _KEY.match(row):
            here = (*table, *_parts(key[1]))
        else:
            continue
        shared = len(here) if here == where[: len(here)] else 0
        if shared > best:
            best, line = shared, number
    return line


def _parts(text: str) -> Where:
    return tuple(part.strip().strip("\"'") for part in text.split("."))
